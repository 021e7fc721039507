"""Which edits contradict each other?  A new or restored one takes the place of the others.

An edit that follows from others names them (`following`), and implies them: what denies a premise
denies it, too.
"""

from collections.abc import Mapping, Sequence

from lifelong.relations import back, is_single
from lifelong.subject import normalise, subject_key
from store import Edit
from store.records import JSON

Fact = tuple[str, ...]

_FOLLOWS = "follows_from"  # where an edit's provenance has its premises


def facts(edit: Edit) -> frozenset[Fact]:
    """What an edit settles: its prompt, and its subject's relation where both are known."""
    settled: set[Fact] = {("prompt", normalise(edit.prompt))}
    if edit.subject and edit.relation:
        settled.add(_relation(edit.relation, edit.subject))
    return frozenset(settled)


def implied(edit: Edit) -> Mapping[Fact, str]:
    """The values of other facts that an edit implies: those of its premises.

    And what follows the other way round: of Dana, who is the `ceo of` Acme, the `ceo` of Acme.
    """
    values = {fact: premise.target for premise in premises(edit) for fact in facts(premise)}
    if edit.subject and edit.relation:
        ways = back(normalise(edit.relation))
        values |= {_relation(way, edit.target): edit.subject for way in ways if is_single(way)}
    return values


def claims(edit: Edit) -> frozenset[Fact]:
    """What an edit settles or implies: whatever contradicts it claims one of them."""
    return facts(edit).union(implied(edit))


def following(premises: Sequence[Edit]) -> Mapping[str, JSON]:
    """The provenance of an edit that follows from these."""
    return {_FOLLOWS: [[e.prompt, e.target, e.subject, e.relation] for e in premises]}


def premises(edit: Edit) -> list[Edit]:
    """What an edit follows from."""
    told = edit.provenance.get(_FOLLOWS)
    rows = told if isinstance(told, list) else []
    return [_premise(row) for row in rows if isinstance(row, list) and len(row) == 4]


def follows(edit: Edit, other: Edit) -> bool:
    """Is what `other` says a premise of `edit`?"""
    return any(same_fact(p, other) and _alike(p.target, other.target) for p in premises(edit))


def same_fact(edit: Edit, other: Edit) -> bool:
    """Do both settle one fact?"""
    return not facts(edit).isdisjoint(facts(other))


def contradict(edit: Edit, other: Edit) -> bool:
    """Cannot both stand: they settle one fact, or one implies another value of it."""
    mine, others = implied(edit), implied(other)
    return (
        same_fact(edit, other)
        or any(not _alike(mine[fact], others[fact]) for fact in mine.keys() & others.keys())
        or _denies(edit, other)
        or _denies(other, edit)
    )


def _denies(edit: Edit, other: Edit) -> bool:
    """`other` settles what `edit` implies, with another value."""
    values = implied(edit)
    return any(not _alike(values[fact], other.target) for fact in facts(other) & values.keys())


def _alike(name: str, other: str) -> bool:
    return subject_key(name) == subject_key(other)


def _premise(row: list[JSON]) -> Edit:
    prompt, target, subject, relation = (text if isinstance(text, str) else "" for text in row)
    return Edit(prompt, target, subject, relation)


def _relation(relation: str, subject: str) -> Fact:
    return ("relation", normalise(relation), *subject_key(subject))
