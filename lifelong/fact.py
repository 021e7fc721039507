"""Which edits state the same fact?  A new or restored one takes the place of the others."""

from collections.abc import Iterable

from lifelong.subject import normalise, subject_key
from store import Edit

Fact = tuple[str, ...]


def facts(edit: Edit) -> frozenset[Fact]:
    """What an edit settles: its prompt, and its subject's relation where both are known."""
    settled: set[Fact] = {("prompt", normalise(edit.prompt))}
    if edit.subject and edit.relation:
        settled.add(("relation", normalise(edit.relation), *subject_key(edit.subject)))
    return frozenset(settled)


def same_fact(edit: Edit, others: Iterable[Edit]) -> list[Edit]:
    """Those that settle what `edit` settles."""
    mine = facts(edit)
    return [other for other in others if not mine.isdisjoint(facts(other))]
