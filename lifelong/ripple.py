"""What follows from an edit, told before it is written.

    reverse    (s, r, o)                   ->  (o, back(r), s)    Dana is the ceo of Acme
    composed   (x, q, s) live, (s, r, o)   ->  (x, q then r, o)   whoever leads to s leads on to o
               (s, r, o), (o, q, x) live   ->  (s, r then q, x)

By the rules of `relations.py`. Certain is what a rule has a name for, with premises for the same
people, and which takes the place of nothing that could be true beside it: a child has one mother, a
mother may have several children. That may be written along with the edit. It names its premises
(`fact.following`): it falls with any of them, and what denies one denies it. The rest is told only:
chains of hops (`hops.py`) see it whenever they are asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lifelong.conflicts import Conflict, find
from lifelong.fact import contradict, following, same_fact
from lifelong.hops import composition
from lifelong.relations import composed, inverse, is_single, relation_of, statement
from lifelong.router import Router
from lifelong.subject import subject_key as _key
from store import Edit

Kind = Literal["reverse", "composed"]
Rippling = Literal["report", "apply"]

_MANY = 64  # edits that lead to this one, and on from it, that are looked at: the newest


@dataclass(frozen=True, slots=True)
class Consequence:
    """An edit that follows from others: certainly, or as far as can be seen."""

    kind: Kind
    edit: Edit
    certain: bool

    def __str__(self) -> str:
        return f"{self.kind}: {self.edit.prompt} {self.edit.target}"


@dataclass(frozen=True, slots=True)
class Ripple:
    """An edit that is not written yet, what follows from it, what is live and at odds with it."""

    edit: Edit
    follows: tuple[Consequence, ...]
    conflicts: tuple[Conflict, ...]

    @property
    def certain(self) -> list[Edit]:
        """The edits that may be written along."""
        return [consequence.edit for consequence in self.follows if consequence.certain]


def ripple(router: Router, edit: Edit) -> Ripple:
    """What would follow from `edit`, as admitted, where it is to be live; its relation is named."""
    edit = _named(edit)
    follows = tuple(_new(router, edit))
    written = [edit, *(c.edit for c in follows if c.certain)]
    conflicts: dict[int, Conflict] = {}
    for one, vector in zip(written, router.encode(written), strict=True):
        for conflict in find(router, one, vector):
            conflicts.setdefault(conflict.edit.id, conflict)
    return Ripple(edit, follows, tuple(conflicts.values()))


def _new(router: Router, edit: Edit) -> Iterator[Consequence]:
    """What nobody says yet, and the edit does not deny: each once."""
    seen = list[Edit]()
    for consequence in _all(router, edit):
        said = consequence.edit
        rivals = _of_one_fact(router, said)
        told = any(_key(o.target) == _key(said.target) for o in rivals)
        if told or contradict(said, edit) or any(same_fact(o, said) for o in seen):
            continue
        give_way = is_single(said.relation or "") and all(contradict(o, said) for o in rivals)
        seen.append(said)
        yield replace(consequence, certain=consequence.certain and (give_way or not rivals))


def _all(router: Router, edit: Edit) -> Iterator[Consequence]:
    if edit.subject is None:
        return
    if way := inverse(relation_of(edit) or ""):
        said = Edit(statement(edit.target, way), edit.subject, edit.target, way)
        yield Consequence("reverse", _as_written(said, edit, [edit]), certain=True)
    before = map(_named, router.saying(edit.subject, edit.audience)[-_MANY:])
    after = map(_named, router.about(_key(edit.target), edit.audience)[-_MANY:])
    for first, then in (*((o, edit) for o in before), *((edit, o) for o in after)):
        if first.subject and not contradict(first, then) and not _returns(first, then):
            yield _composed(first, then, edit)


def _composed(first: Edit, then: Edit, edit: Edit) -> Consequence:
    """What two edits say together, one of which is `edit`."""
    subject = first.subject or ""
    name = composed(relation_of(first) or "", relation_of(then) or "")
    prompt = statement(subject, name) if name else composition([first, then])
    said = Edit(prompt, then.target, subject, name)
    certain = bool(name) and first.audience == then.audience
    return Consequence("composed", _as_written(said, edit, [first, then]), certain)


def _as_written(said: Edit, edit: Edit, premises: Sequence[Edit]) -> Edit:
    """For the same people as `edit`, in the same way, as long as all premises hold."""
    return replace(
        said,
        method=edit.method,
        user_id=edit.user_id,
        tenant=edit.tenant,
        valid_until=min((p.valid_until for p in premises if p.valid_until), default=None),
        provenance=following(premises),
    )


def _of_one_fact(router: Router, said: Edit) -> list[Edit]:
    """What is live of the same prompt, or of the same relation as far as it can be read."""
    about = router.about(_key(said.subject or ""), said.audience)
    return [
        o
        for o in about
        if same_fact(o, said) or (said.relation and relation_of(o) == said.relation)
    ]


def _named(edit: Edit) -> Edit:
    """With the relation that its prompt plainly asks for, if it names none."""
    return replace(edit, relation=edit.relation or relation_of(edit))


def _returns(first: Edit, then: Edit) -> bool:
    """Do they lead back to where they began?"""
    return _key(first.subject or "") == _key(then.target)
