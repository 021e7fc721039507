"""Any sequence of record, retire, restore and reopen keeps the rules of supersession.

The rules, per slot (one subject and relation, each record superseding the live edit of its slot):
a slot has one live edit when any edit of it stands, else none; undo right after a record, and
redo right after an undo, give back every status; every past epoch reads as it did then.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from store import AlreadyRetired, Edit, Hint, Journal, NotRetired
from tests.store.samples import unit

STANDING = {"live", "superseded"}
MEMORY = Path("/dev/shm")  # thousands of commits: spare the disk


class JournalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.exists() else None)
        self.slots: list[int] = []  # slot of edit i + 1
        self.then: dict[int, list[Edit]] = {0: []}
        self.journal = self.open()

    def open(self) -> Journal:
        return Journal.open(Path(self.folder.name) / "lifelong.db", model="m", encoder="e")

    def statuses(self) -> list[str]:
        return [edit.status for edit in self.journal.edits()]

    def remember(self) -> None:
        self.then[self.journal.epoch] = self.journal.edits()

    @rule(slot=st.integers(0, 1))
    def record(self, slot: int) -> None:
        before = self.statuses()
        over = [e.id for e in self.journal.live() if self.slots[e.id - 1] == slot]
        said = Edit(f"slot {slot}", f"target {len(self.slots)}")
        (edit,) = self.journal.record(
            [said], Hint("serac", (said.target,)), unit(slot), supersedes={0: over}
        )
        self.slots.append(slot)
        self.remember()
        assert edit == self.journal.get(len(self.slots))
        self.journal.retire(edit.id)
        assert self.statuses() == [*before, "retired"]
        self.journal.restore(edit.id)
        assert self.journal.live(at=edit.epoch) == self.journal.live()

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        id = data.draw(st.integers(1, len(self.slots)))
        before = self.statuses()
        if before[id - 1] not in STANDING:
            with pytest.raises(AlreadyRetired):
                self.journal.retire(id)
            return
        self.journal.retire(id)
        self.journal.restore(id)
        assert self.statuses() == before
        self.journal.retire(id)
        self.remember()

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        id = data.draw(st.integers(1, len(self.slots)))
        if self.statuses()[id - 1] in STANDING:
            with pytest.raises(NotRetired):
                self.journal.restore(id)
            return
        slot = self.slots[id - 1]
        over = [e.id for e in self.journal.live() if self.slots[e.id - 1] == slot]
        assert self.journal.restore(id, supersedes=over).status in STANDING
        self.remember()

    @rule(data=st.data())
    def carry(self, data: st.DataObject) -> None:
        live = self.journal.live()
        some = [edit for edit in live if data.draw(st.booleans())]
        before = self.statuses(), self.journal.rose(edit.id for edit in live)
        self.journal.carry([edit.id for edit in some], Hint("ike", tuple(e.prompt for e in some)))
        assert (self.statuses(), self.journal.rose(edit.id for edit in live)) == before
        self.remember()
        moved = {id: p for p in self.journal.patches() for id in p.edits}
        assert all(moved[edit.id].patch.method == "ike" for edit in some)

    @rule()
    def reopen(self) -> None:
        before = self.journal.edits()
        self.journal.close()
        self.journal = self.open()
        assert self.journal.edits() == before

    @invariant()
    def one_live_edit_a_slot(self) -> None:
        statuses = self.statuses()
        for slot in (0, 1):
            here = [s for s, mine in zip(statuses, self.slots, strict=True) if mine == slot]
            assert here.count("live") == (1 if STANDING.intersection(here) else 0)

    @invariant()
    def views_agree(self) -> None:
        live = [e.id for e in self.journal.live()]
        assert self.journal.vectors()[0].tolist() == live
        patches = self.journal.patches()  # a carried edit is in a later one
        assert sorted(id for patch in patches for id in patch.live) == live
        assert [patch.id for patch in patches] == sorted(patch.id for patch in patches)

    def teardown(self) -> None:
        for epoch, edits in self.then.items():
            assert self.journal.edits(at=epoch) == edits
        assert self.journal.verify() == self.journal.epoch
        self.journal.close()
        self.folder.cleanup()


JournalMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
TestJournalMachine = JournalMachine.TestCase
