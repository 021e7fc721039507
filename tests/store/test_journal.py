"""What the journal remembers of an edit's life."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from store import (
    AlreadyRetired,
    Delta,
    Edit,
    Factors,
    Hint,
    Journal,
    NotLive,
    NotRetired,
    Reading,
    StoreClosed,
    UnknownEdit,
    WrongEncoder,
)
from tests.store.samples import DIM, say, unit

Reopen = Callable[[], Journal]


def statuses(journal: Journal) -> list[str]:
    return [edit.status for edit in journal.edits()]


def test_an_edit_comes_back_as_it_was_recorded(journal: Journal, reopen: Reopen) -> None:
    said = Edit("Who runs Acme?", "Jane", old="Bob", paraphrases=("Acme's CEO?",), tenant="acme")
    (edit,) = journal.record([said], Hint("serac", ("Jane runs Acme",)), unit(1))
    assert (edit.id, edit.epoch, edit.status, journal.epoch) == (1, 1, "live", 1)
    journal.close()
    again = reopen()
    assert again.get(1) == edit
    assert again.live() == again.edits() == [edit]
    ids, matrix = again.vectors()
    assert ids.tolist() == [1]
    assert (matrix == unit(1)).all()


def test_a_batch_shares_one_patch(journal: Journal) -> None:
    hint = Hint("serac", ("a", "b", "c"))
    journal.record([Edit(p, p) for p in "abc"], hint, unit(1, 2, 3))
    say(journal, "d")
    journal.retire(2)
    first, second = journal.patches()
    assert (first.patch, first.edits, first.live) == (hint, (1, 2, 3), {1, 3})
    assert second.edits == (4,)
    assert [p.live for p in journal.patches(at=3)] == [{1, 2, 3}]


def test_a_delta_that_no_edit_has_live_is_remembered(journal: Journal) -> None:
    """For a redo brings it back: while it is away, nothing else may take its place."""
    eye = np.eye(2, dtype=np.float32)
    factors = Factors(eye, eye, np.eye(2), np.arange(2), np.zeros((0, 0), np.float32))
    delta = Delta("idle-neurons", {"w": factors})
    journal.record([Edit("a", "a"), Edit("b", "b")], delta, unit(1, 2))
    say(journal, "c")  # a hint is never in the weights
    journal.retire(3)
    assert journal.lapsed() == []
    journal.retire(1)
    assert journal.lapsed() == []
    journal.retire(2)
    (lapsed,) = journal.lapsed()
    assert (lapsed.patch, lapsed.edits, lapsed.live_positions) == (delta, (1, 2), ())
    journal.erase([1])
    (lapsed,) = journal.lapsed()
    assert isinstance(lapsed.patch, Delta)
    assert lapsed.patch.factors["w"].owner.tolist() == [1]
    journal.restore(2)
    assert journal.lapsed() == []


def test_the_newest_are_read_page_by_page(journal: Journal) -> None:
    for prompt in "abcde":
        say(journal, prompt)
    journal.retire(4)
    pages = [journal.newest(2)]
    while pages[-1]:
        pages.append(journal.newest(2, before=pages[-1][-1].id))
    assert [[edit.id for edit in page] for page in pages] == [[5, 4], [3, 2], [1], []]
    assert [edit.id for page in pages for edit in page] == [e.id for e in journal.edits()][::-1]
    assert journal.newest(9, status="retired") == [journal.get(4)]
    assert [edit.id for edit in journal.newest(9, before=5, status="live")] == [3, 2, 1]


def test_a_batch_is_recorded_whole_or_not_at_all(journal: Journal) -> None:
    with pytest.raises(UnknownEdit):
        journal.record([Edit("a", "a"), Edit("b", "b")], None, unit(1, 2), supersedes={1: [99]})
    assert (journal.epoch, journal.edits(), journal.verify()) == (0, [], 0)


def test_undo_brings_back_what_was_superseded(journal: Journal) -> None:
    first = say(journal, "Jane")
    second = say(journal, "John", first.id)
    assert statuses(journal) == ["superseded", "live"]
    assert journal.history(1)[-1].cause == second.id
    assert journal.retire(2, reason="typo").status == "retired"
    assert statuses(journal) == ["live", "retired"]
    assert journal.history(2)[-1].body == {"reason": "typo"}
    assert journal.restore(2).status == "live"
    assert statuses(journal) == ["superseded", "live"]


def test_undo_in_the_middle_keeps_the_newest_and_later_undoes_exactly(journal: Journal) -> None:
    say(journal, "Jane")
    say(journal, "John", 1)
    say(journal, "Joan", 2)
    journal.retire(2)
    assert statuses(journal) == ["superseded", "retired", "live"]
    assert journal.restore(2).status == "superseded"
    journal.retire(2)
    journal.retire(3)
    assert statuses(journal) == ["live", "retired", "retired"]


def test_redo_takes_the_place_of_what_was_recorded_meanwhile(journal: Journal) -> None:
    say(journal, "Jane")
    say(journal, "John", 1)
    journal.retire(2)
    say(journal, "Joan", 1)
    journal.restore(2)
    assert statuses(journal) == ["superseded", "live", "superseded"]
    journal.retire(2)
    assert statuses(journal) == ["superseded", "retired", "live"]


def test_a_superseded_edit_can_be_retired_for_good(journal: Journal) -> None:
    say(journal, "Jane")
    say(journal, "John", 1)
    journal.retire(1, kind="quarantined")
    journal.retire(2)
    assert statuses(journal) == ["quarantined", "retired"]


def test_every_epoch_can_be_read_later(journal: Journal) -> None:
    then = {0: journal.edits(at=0)}
    for step in (
        lambda: say(journal, "Jane"),
        lambda: say(journal, "John", 1),
        lambda: journal.retire(2),
        lambda: journal.restore(2),
    ):
        step()
        then[journal.epoch] = journal.edits()
    assert {at: journal.edits(at=at) for at in then} == then
    assert journal.get(1, at=1).status == "live"
    assert journal.vectors(at=1)[0].tolist() == [1]
    with pytest.raises(UnknownEdit, match="at epoch 1"):
        journal.get(2, at=1)


def test_a_pending_edit_waits(journal: Journal) -> None:
    journal.record([Edit("a", "a")], Hint("serac", ("a",)), unit(1), status="pending")
    assert statuses(journal) == ["pending"]
    assert journal.live() == journal.patches() == []
    assert len(journal.vectors()[0]) == 0


def test_steps_that_make_no_sense_are_refused(journal: Journal) -> None:
    say(journal, "Jane")
    with pytest.raises(NotRetired):
        journal.restore(1)
    journal.retire(1)
    with pytest.raises(AlreadyRetired, match=r"redo ID.*back"):
        journal.retire(1)
    with pytest.raises(NotLive):
        say(journal, "John", 1)
    for step in (journal.retire, journal.restore, journal.get, journal.history):
        with pytest.raises(UnknownEdit):
            step(7)
    assert (journal.epoch, statuses(journal)) == (2, ["retired"])


@pytest.mark.parametrize(
    "vectors", [unit(1, 2), unit(1)[0], unit(1).astype(np.float64), unit(1) * np.nan]
)
def test_wrong_vectors_are_refused(journal: Journal, vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="vectors must be"):
        journal.record([Edit("a", "a")], None, vectors)
    assert journal.epoch == 0


def test_vectors_of_another_encoder_are_refused(journal: Journal) -> None:
    say(journal, "Jane")
    with pytest.raises(WrongEncoder, match=f"3 dimensions, the store's {DIM}"):
        journal.record([Edit("a", "a")], None, np.eye(3, dtype=np.float32)[:1])


def test_vectors_of_chosen_edits(journal: Journal) -> None:
    for target in ("a", "bb", "ccc"):
        say(journal, target)
    journal.retire(2)
    ids, matrix = journal.vectors([3, 2])
    assert ids.tolist() == [2, 3]
    assert (matrix == unit(2, 3)).all()


def test_readings_are_stamped_and_do_not_move_the_epoch(journal: Journal, reopen: Reopen) -> None:
    say(journal, "Jane")
    noted = journal.note(Reading({"accuracy": 1.0}))
    assert (noted.id, noted.epoch, journal.epoch) == (1, 1, 1)
    assert reopen().readings() == [noted]
    assert journal.readings(since=2) == []


def test_two_connections_take_turns(journal: Journal, reopen: Reopen) -> None:
    other = reopen()
    say(journal, "Jane")
    say(other, "John", 1)
    assert statuses(journal) == ["superseded", "live"]
    assert journal.verify() == other.epoch == 3


def test_memory_store_and_closed_store() -> None:
    with Journal.open(":memory:", model="m", encoder="e") as journal:
        say(journal, "Jane")
        assert journal.meta["model"] == "m"
    with pytest.raises(StoreClosed, match="Open it again"):
        journal.live()


def test_a_reader_needs_no_model(journal: Journal, path: Path) -> None:
    say(journal, "Jane")
    with Journal.read(path) as reader:
        assert [e.target for e in reader.live()] == ["Jane"]
