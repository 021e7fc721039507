"""Which edits contradict each other?  A new or restored one takes the place of the others."""

from lifelong.relations import back, is_single
from lifelong.subject import normalise, subject_key
from store import Edit

Fact = tuple[str, ...]


def facts(edit: Edit) -> frozenset[Fact]:
    """What an edit settles: its prompt, and its subject's relation where both are known."""
    settled: set[Fact] = {("prompt", normalise(edit.prompt))}
    if edit.subject and edit.relation:
        settled.add(_relation(edit.relation, edit.subject))
    return frozenset(settled)


def implied(edit: Edit) -> frozenset[Fact]:
    """What follows the other way round: of Dana, who is the `ceo of` Acme, the `ceo` of Acme."""
    if not (edit.subject and edit.relation):
        return frozenset()
    ways = back(normalise(edit.relation))
    return frozenset(_relation(way, edit.target) for way in ways if is_single(way))


def same_fact(edit: Edit, other: Edit) -> bool:
    """Do both settle one fact?"""
    return not facts(edit).isdisjoint(facts(other))


def contradict(edit: Edit, other: Edit) -> bool:
    """Cannot both stand: they settle one fact, or one implies another value of it."""
    implied_twice = not implied(edit).isdisjoint(implied(other))
    return (
        same_fact(edit, other)
        or (implied_twice and not _alike(edit.subject, other.subject))
        or _denies(edit, other)
        or _denies(other, edit)
    )


def _denies(edit: Edit, other: Edit) -> bool:
    """`other` settles what `edit` implies, with another value."""
    return not implied(edit).isdisjoint(facts(other)) and not _alike(edit.subject, other.target)


def _alike(name: str | None, other: str | None) -> bool:
    return subject_key(name or "") == subject_key(other or "")


def _relation(relation: str, subject: str) -> Fact:
    return ("relation", normalise(relation), *subject_key(subject))
