"""What an edit is at odds with, found before it is written.

    direct          another edit settles the same fact (`fact.facts`), or denies it by a relation
                    that has one value
    near-duplicate  another edit of the same subject asks for the same in other words
    reverse         (s, r, o) against (o, back(r), x): x is not s
    cycle           (s, r, o) and, along the same relation, from o back to s

Relations are the edits' own, or read from a plain prompt (`relations.relation_of`). Vectors are a
second signal: two prompts of one subject, subject masked, whose cosine is high.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from lifelong.encoder import Vectors
from lifelong.relations import back, is_order, relation_of
from lifelong.router import Router
from lifelong.subject import subject_key
from store import Edit

Kind = Literal["direct", "near-duplicate", "reverse", "cycle"]

ALIKE = 0.7  # cosine of masked prompts from which they ask for the same

_STEPS = 32  # along one relation, in search of a cycle


@dataclass(frozen=True, slots=True)
class Conflict:
    """A live edit that another one is at odds with; `score` is 1.0, or the cosine that told."""

    kind: Kind
    edit: Edit
    score: float = 1.0

    def __str__(self) -> str:
        return f"{self.kind}, edit {self.edit.id}: {self.edit.prompt} -> {self.edit.target}"


def find(router: Router, edit: Edit, vector: Vectors) -> list[Conflict]:
    """The conflicts of `edit` with what is live where it is to be live: each other edit once."""
    found: dict[int, Conflict] = {}
    for conflict in _all(router, edit, vector):
        if conflict.edit.id != edit.id:
            found.setdefault(conflict.edit.id, conflict)
    return list(found.values())


def _all(router: Router, edit: Edit, vector: Vectors) -> Iterator[Conflict]:
    yield from (Conflict("direct", other) for other in router.visible(edit))
    if edit.subject is None:
        return
    relation = relation_of(edit)
    same_subject = router.about(subject_key(edit.subject), edit.audience)
    if relation is not None:
        yield from (Conflict("direct", o) for o in same_subject if relation_of(o) == relation)
        yield from _reverse(router, edit, relation)
        yield from _cycle(router, edit, relation)
    yield from _near_duplicates(router, same_subject, relation, vector)


def _near_duplicates(
    router: Router, others: list[Edit], relation: str | None, vector: Vectors
) -> Iterator[Conflict]:
    """Of edits of the same subject, those that could be of the same relation and look alike."""
    open_ = [o for o in others if None in (relation, relation_of(o))]
    if not open_:
        return
    cosines = (router.vectors(open_) @ vector).tolist()
    for other, cosine in zip(open_, cosines, strict=True):
        if cosine >= ALIKE:
            yield Conflict("near-duplicate", other, cosine)


def _reverse(router: Router, edit: Edit, relation: str) -> Iterator[Conflict]:
    """Edits that go the other way from this one's target, or came this way to its subject."""
    ways = back(relation)
    for other in router.about(subject_key(edit.target), edit.audience):
        if relation_of(other) in ways and not _alike(other.target, edit.subject):
            yield Conflict("reverse", other)
    for other in router.saying(edit.subject or "", edit.audience):
        if relation_of(other) in ways and not _alike(other.subject, edit.target):
            yield Conflict("reverse", other)


def _cycle(router: Router, edit: Edit, relation: str) -> Iterator[Conflict]:
    """The edit that leads back to this one's subject, if the others lead there from its target."""
    if not is_order(relation):
        return
    seen, places = set[tuple[str, ...]](), [edit.target]
    for _ in range(_STEPS):
        steps = list(_steps(router, edit, relation, places))
        yield from (Conflict("cycle", step) for step in steps if _alike(step.target, edit.subject))
        seen |= {subject_key(place) for place in places}
        places = [step.target for step in steps if subject_key(step.target) not in seen]


def _steps(router: Router, edit: Edit, relation: str, places: Iterable[str]) -> Iterator[Edit]:
    for place in places:
        for step in router.about(subject_key(place), edit.audience):
            if relation_of(step) == relation:
                yield step


def _alike(name: str | None, other: str | None) -> bool:
    return subject_key(name or "") == subject_key(other or "")
