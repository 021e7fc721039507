"""Who stands below whom?  What the edits that stand say decides, so undo and redo are exact.

The standing edits of one audience, in the order in which they rose (were recorded, approved,
promoted, or brought back on top): each supersedes those live before it that it contradicts. The
journal keeps the outcome; `settle` takes a step and brings the outcome in line with the edits that
stand after it, as if those that went had never been made.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal, Self, TypeVar

import numpy as np

from lifelong.fact import Fact, claims, contradict, facts, follows, premises, same_fact
from lifelong.gates import gate_of, gated
from lifelong.kept import Kept
from lifelong.names import other_names
from lifelong.postings import Postings
from lifelong.subject import anchors, subject_key
from store import Audience, Edit, Journal, Status

T = TypeVar("T")
What = Literal["fact", "subject", "target", "anchor", "name"]

_SUPERSEDED, _LIVE = 1, 2  # 0: it does not stand
_CHUNK = 5_000  # edits read from the journal at a time


class Standing:
    """The live and the superseded edits as of `epoch`, found by what they say, per audience.

    In memory are 64-bit hashes of what they settle, imply, are about and say, their audience and
    status by id, and the words of their subjects: 40 MB for 100,000 edits. The edits themselves
    stay in the journal, but for those that were needed lately. That two hashes among a million
    edits are one happens once in a million such stores.
    """

    def __init__(self, journal: Journal, epoch: int = 0) -> None:
        self.epoch = epoch
        self._kept = Kept(lambda ids: {e.id: e for e in journal.get_many(ids, self.epoch)})
        self._postings = Postings()
        self._codes: dict[Audience, int] = {}  # from 1
        self._places = array("i", [0])  # by id: 4 * the audience's code + _SUPERSEDED or _LIVE
        self._names = array("q", [0])  # by id: where the subject's words begin
        self._words = bytearray()
        self._live = Counter[int]()  # edits, by the audience's code
        self._ends: list[tuple[str, int]] = []  # a heap: until when, which

    @classmethod
    def of(cls, journal: Journal, at: int | None = None) -> Self:
        """All of the journal, as of epoch `at` (None: now)."""
        standing = cls(journal, journal.epoch if at is None else at)
        ids = journal.standing_ids(standing.epoch)
        for start in range(0, len(ids), _CHUNK):
            standing.add(journal.get_many(ids[start : start + _CHUNK], standing.epoch))
        return standing

    def __len__(self) -> int:
        """How many are live."""
        return self._live.total()

    def add(self, edits: Collection[Edit]) -> None:
        """These stand from now on, as they are: live or superseded."""
        self._kept.put({edit.id: edit for edit in edits})
        for edit in edits:
            self._place(edit)
            if edit.valid_until is not None and edit.status == "live":
                heappush(self._ends, (edit.valid_until, edit.id))

    def discard(self, ids: Iterable[int]) -> None:
        """These stand no longer, if they did."""
        gone = list(ids)
        self._kept.drop(gone)
        for id in gone:
            code, status = self._where(id)
            if status:
                self._places[id] -= status
                self._live[code] -= status == _LIVE

    def over(self, now: str) -> list[int]:
        """The live edits whose `valid_until` is not after `now` (as in an `Edit`); told once."""
        ids = set[int]()
        while self._ends and self._ends[0][0] <= now:
            ids.add(heappop(self._ends)[1])
        return sorted(filter(self.is_live, ids))

    def is_live(self, id: int) -> bool:
        """Whether this edit is live."""
        return self._where(id)[1] == _LIVE

    def live(self, audiences: Iterable[Audience]) -> list[int]:
        """The ids of the live edits of these audiences, in order."""
        wanted = [4 * self._codes[a] + _LIVE for a in audiences if a in self._codes]
        ids: list[int] = np.flatnonzero(np.isin(np.array(self._places), wanted)).tolist()
        return ids

    def edits(self, ids: Iterable[int]) -> dict[int, Edit]:
        """These edits as of the epoch, by id."""
        return self._kept.get(ids)

    def shelves(self, audiences: Iterable[Audience]) -> list["Shelf"]:
        """Those of these audiences for which anything is live."""
        return [Shelf(self, a) for a in audiences if self._live[self._codes.get(a, 0)]]

    def found(self, what: What, key: tuple[str, ...], audience: Audience) -> set[int]:
        """The ids of this audience's edits of which `what` is `key`."""
        code = self._codes.get(audience)
        if code is None:
            return set()
        theirs = (code, _SUPERSEDED), (code, _LIVE)
        ids = self._postings.get(hash((what, code, key)))
        return {id for id in ids if self._where(id) in theirs}

    def saying(self, fact: Fact, audience: Audience) -> set[int]:
        """The ids of this audience's edits that settle or imply `fact`."""
        return self.found("fact", fact, audience)

    def name(self, id: int) -> tuple[str, ...]:
        """The words of the subject of an edit that names one."""
        start = self._names[id]
        return tuple(self._words[start : self._words.index(b"\n", start)].decode().split(" "))

    def rivals(self, edit: Edit, audience: Audience | None = None) -> list[Edit]:
        """The live edits of its own audience, or of another, that contradict `edit`, by id."""
        among = audience or edit.audience
        ids = set[int]().union(*(self.saying(f, among) for f in claims(edit)))
        others = self.edits(sorted(filter(self.is_live, ids - {edit.id})))
        return [other for other in others.values() if contradict(edit, other)]

    def peers(self, edit: Edit) -> list[Edit]:
        """The live edits of each user of its tenant that settle a fact with it, by id."""
        among = [a for a in self._codes if a.user_id is not None and a.tenant == edit.tenant]
        ids = {id for a in among for fact in facts(edit) for id in self.saying(fact, a)}
        others = self.edits(sorted(filter(self.is_live, ids)))
        return [other for other in others.values() if same_fact(edit, other)]

    def followers(self, id: int) -> list[int]:
        """The ids of those that follow from an edit, step by step, among the people it is for."""
        found, todo = set[int](), list(self.edits([id] if self._where(id)[1] else []).values())
        while todo:
            premise = todo.pop()
            among = [audience for audience in self._codes if premise.audience.covers(audience)]
            ids = (self.saying(fact, audience) for audience in among for fact in facts(premise))
            others = self.edits(set[int]().union(*ids) - found).values()
            new = [other for other in others if follows(other, premise)]
            found |= {other.id for other in new}
            todo += new
        return sorted(found - {id})

    def kin(self, edits: Iterable[Edit]) -> set[int]:
        """The ids of these, as they stood, and of all that share a fact with them, step by step."""
        found, seen = set[int](), set[tuple[Audience, Fact]]()
        todo = list(edits)
        todo += self.edits([edit.id for edit in todo if self._where(edit.id)[1]]).values()
        while todo:
            edit = todo.pop()
            for fact in claims(edit):
                if (edit.audience, fact) not in seen:
                    seen.add((edit.audience, fact))
                    new = self.saying(fact, edit.audience) - found
                    found |= new
                    todo += self.edits(new).values()
        return found

    def _where(self, id: int) -> tuple[int, int]:
        """The code of the edit's audience, and what it is: 0 where it does not stand."""
        place = self._places[id] if id < len(self._places) else 0
        return place >> 2, place & 3

    def _place(self, edit: Edit) -> None:
        missing = edit.id + 1 - len(self._places)
        self._places.extend([0] * missing)
        self._names.extend([-1] * missing)
        code = self._codes.setdefault(edit.audience, len(self._codes) + 1)
        before, was = self._where(edit.id)
        status = _LIVE if edit.status == "live" else _SUPERSEDED
        if before != code:  # else what it says can be found already
            self._note(edit, code)
        self._places[edit.id] = 4 * code + status
        self._live[before] -= was == _LIVE
        self._live[code] += status == _LIVE

    def _note(self, edit: Edit, code: int) -> None:
        subject = subject_key(edit.subject or "")
        said: list[tuple[What, tuple[str, ...]]] = [
            ("subject", gated(edit.method) if gate_of(edit) else subject),
            ("target", subject_key(edit.target)),
            *(("fact", fact) for fact in claims(edit)),
        ]
        if subject:
            said.append(("anchor", anchors(subject)))
            said += [("name", name) for name in other_names(subject)]
            self._names[edit.id] = len(self._words)
            self._words += f"{' '.join(subject)}\n".encode()
        self._postings.add((hash((what, code, key)) for what, key in said), edit.id)


@dataclass(frozen=True, slots=True)
class Shelf:
    """The live edits of one audience: a gate for the subjects that they name."""

    standing: Standing
    audience: Audience

    def about(self, subject: tuple[str, ...]) -> set[int]:
        """The ids of those that name this subject; () for those that name none and no gate is for.

        `gated` is what the others are under.
        """
        return self._live("subject", subject)

    def saying(self, target: tuple[str, ...]) -> set[int]:
        """The ids of those with this target."""
        return self._live("target", target)

    def knows(self, subject: tuple[str, ...]) -> bool:
        """Whether one of them names this subject."""
        return bool(self.about(subject))

    def anchored(self, anchors: tuple[str, ...]) -> set[tuple[str, ...]]:
        """The subjects they name that have these anchors."""
        return {self.standing.name(id) for id in self._live("anchor", anchors)}

    def called(self, name: tuple[str, ...]) -> set[tuple[str, ...]]:
        """The subjects they name that have this other name."""
        return {self.standing.name(id) for id in self._live("name", name)}

    def _live(self, what: What, key: tuple[str, ...]) -> set[int]:
        found = self.standing.found(what, key, self.audience)
        return set(filter(self.standing.is_live, found))


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
    fallen = journal.retire(id, kind=kind, reason=reason)
    for other in standing.followers(id):
        journal.retire(other, kind=kind, reason=reason, cause=id)
    return fallen


def wipe(journal: Journal, standing: Standing, edits: Iterable[Edit], *, reason: str) -> list[Edit]:
    """Wipe these; those that stood give way first, while it can be read what they said."""
    erased = list(edits)
    stood = [edit.id for edit in erased if edit.status in ("live", "superseded")]
    settle(journal, standing, lambda: [journal.retire(id, reason=reason) for id in stood])
    return journal.erase([edit.id for edit in erased], reason=reason)


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
