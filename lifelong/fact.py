"""Which edits state the same fact?  A new or restored one takes the place of the others."""

from collections.abc import Iterable

from lifelong.subject import normalise, subject_key
from store import Edit


def same_fact(edit: Edit, others: Iterable[Edit]) -> list[Edit]:
    """Those with the prompt of `edit`, or with its subject and relation."""
    return [other for other in others if _same(edit, other)]


def _same(a: Edit, b: Edit) -> bool:
    if subject_key(a.subject or "") != subject_key(b.subject or ""):
        return False
    if a.relation and b.relation and normalise(a.relation) == normalise(b.relation):
        return True
    return normalise(a.prompt) == normalise(b.prompt)
