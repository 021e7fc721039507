"""Who stands below whom?  What the edits that stand say decides, so undo and redo are exact.

The standing edits of one audience, in the order in which they rose (were recorded, approved,
promoted, or brought back on top): each supersedes those live before it that it contradicts. The
journal keeps the outcome; `settle` takes a step and brings the outcome in line with the edits that
stand after it, as if those that went had never been made.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Self, TypeVar

from lifelong.fact import Fact, claims, contradict, facts, follows, premises
from store import Audience, Edit, Journal, Status

T = TypeVar("T")


class Standing:
    """The live and the superseded edits, found by what they settle or imply, per audience."""

    def __init__(self) -> None:
        self._edits: dict[int, Edit] = {}
        self._saying: dict[Audience, dict[Fact, set[int]]] = {}

    @classmethod
    def of(cls, journal: Journal) -> Self:
        """All of the journal."""
        standing = cls()
        for edit in (*journal.live(), *journal.edits("superseded")):
            standing.add(edit)
        return standing

    def add(self, edit: Edit) -> None:
        """The edit stands from now on, as it is."""
        self._edits[edit.id] = edit
        saying = self._saying.setdefault(edit.audience, defaultdict(set))
        for fact in claims(edit):
            saying[fact].add(edit.id)

    def discard(self, id: int) -> None:
        """The edit stands no longer, if it did."""
        edit = self._edits.pop(id, None)
        if edit is None:
            return
        saying = self._saying[edit.audience]
        for fact in claims(edit):
            saying[fact].discard(id)
            if not saying[fact]:
                del saying[fact]
        if not saying:
            del self._saying[edit.audience]

    def saying(self, fact: Fact, audience: Audience) -> set[int]:
        """The ids of this audience's edits that settle or imply `fact`; not to be changed."""
        return self._saying.get(audience, {}).get(fact, set())

    def rivals(self, edit: Edit, audience: Audience | None = None) -> list[Edit]:
        """The live edits of its own audience, or of another, that contradict `edit`, by id."""
        among = audience or edit.audience
        ids = set[int]().union(*(self.saying(f, among) for f in claims(edit)))
        others = [self._edits[id] for id in sorted(ids - {edit.id})]
        return [o for o in others if o.status == "live" and contradict(edit, o)]

    def followers(self, id: int) -> list[int]:
        """The ids of those that follow from an edit, step by step, among the people it is for."""
        found, todo = set[int](), [self._edits[id]] if id in self._edits else []
        while todo:
            premise = todo.pop()
            among = (s for a, s in self._saying.items() if premise.audience.covers(a))
            ids = (saying.get(fact, set()) for saying in among for fact in facts(premise))
            others = [self._edits[other] for other in set[int]().union(*ids) - found]
            new = [other for other in others if follows(other, premise)]
            found |= {other.id for other in new}
            todo += new
        return sorted(found - {id})

    def kin(self, edits: Iterable[Edit]) -> set[int]:
        """The ids of these, as they stood, and of all that share a fact with them, step by step."""
        found, seen = set[int](), set[tuple[Audience, Fact]]()
        todo = list(edits)
        todo += [self._edits[edit.id] for edit in todo if edit.id in self._edits]
        while todo:
            edit = todo.pop()
            for fact in claims(edit):
                if (edit.audience, fact) not in seen:
                    seen.add((edit.audience, fact))
                    new = self.saying(fact, edit.audience) - found
                    found |= new
                    todo += [self._edits[id] for id in new]
        return found


def places(edits: Iterable[Edit]) -> Mapping[int, int | None]:
    """Which edit each one stands below (None: it is live), when they rise in this order."""
    above: dict[int, int | None] = {}
    live: dict[int, Edit] = {}
    saying: dict[tuple[Audience, Fact], set[int]] = defaultdict(set)
    for edit in edits:
        said = [(edit.audience, fact) for fact in claims(edit)]
        for id in set[int]().union(*(saying[key] for key in said)) & live.keys():
            if contradict(edit, live[id]):
                above[id] = edit.id
                del live[id]
        above[edit.id], live[edit.id] = None, edit
        for key in said:
            saying[key].add(edit.id)
    return above


def settle(journal: Journal, standing: Standing, step: Callable[[], T]) -> T:
    """Take a step of the journal and let everybody stand where they belong: one transaction.

    `standing` is as of before the step. Raises what the step raises; then nothing has happened.
    """
    with journal.together():
        before = journal.epoch
        result = step()
        touched = {event.edit_id for event in journal.history(since=before)}
        kin = touched | standing.kin(journal.get_many(touched))
        standing_now = [e for e in journal.get_many(kin) if e.status in ("live", "superseded")]
        rose = journal.rose(edit.id for edit in standing_now)
        ordered = sorted(standing_now, key=lambda edit: (rose[edit.id], edit.id))
        journal.arrange(places(ordered))
        return result


def retire(
    journal: Journal, standing: Standing, id: int, *, kind: Status = "retired", reason: str = ""
) -> Edit:
    """A step: the edit is retired, and with it what follows from it."""
    return journal.retire(id, kind=kind, reason=reason, along=standing.followers(id))


def holding(journal: Journal, ids: Iterable[int]) -> list[int]:
    """These edits, and all that ever followed from them and so holds what they say."""
    derived = [edit for edit in journal.edits() if premises(edit)]
    found = dict.fromkeys(ids)
    todo = journal.get_many(found)
    while todo:
        premise = todo.pop()
        among = (edit for edit in derived if premise.audience.covers(edit.audience))
        new = [edit for edit in among if edit.id not in found and follows(edit, premise)]
        found |= dict.fromkeys(edit.id for edit in new)
        todo += new
    return list(found)


def waiting(journal: Journal, audience: Audience) -> list[Edit]:
    """What waits for an approval, by id, of all whom `audience` covers: for their keeper."""
    found = (*journal.edits("proposed"), *journal.edits("pending"))
    covered = (edit for edit in found if audience.covers(edit.audience))
    return sorted(covered, key=lambda edit: edit.id)
