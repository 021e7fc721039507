"""Review, audience, expiry, erasure: the rest of an edit's life."""

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import (
    AlreadyRetired,
    Audience,
    DamagedDatabase,
    Edit,
    Hint,
    Journal,
    NotLive,
    NotRetired,
    NotWaiting,
    Stale,
    TooNarrow,
    UnknownEdit,
    WrongStatus,
)
from tests.store.samples import say, unit

NAMES = st.sampled_from([None, "a", "b"])
AUDIENCES = st.builds(Audience, NAMES, NAMES)


def tell(journal: Journal, target: str, *over: int, user: str | None, tenant: str | None) -> Edit:
    said = Edit("Who runs Acme?", target, user_id=user, tenant=tenant)
    (edit,) = journal.record([said], Hint("serac", (target,)), unit(1), supersedes={0: over})
    return edit


def targets(journal: Journal, user: str | None = None, tenant: str | None = None) -> list[str]:
    return [edit.target for edit in journal.live(audience=Audience(user, tenant))]


def test_a_pending_edit_is_approved_or_rejected(journal: Journal) -> None:
    say(journal, "Jane")
    waiting = [Edit("p", "John"), Edit("p", "Joan")]
    journal.record(waiting, None, unit(1, 2), status="pending")
    hint = Hint("serac", ("John",))
    assert journal.approve(2, hint, supersedes=[1], reason="two agree").status == "live"
    assert journal.get(1).status == "superseded"
    assert journal.patches()[-1].patch == hint
    assert journal.reject(3, reason="wrong").status == "rejected"
    with pytest.raises(NotWaiting, match="Edit 3 is rejected"):
        journal.approve(3)
    with pytest.raises(NotRetired):
        journal.restore(3)
    journal.retire(2)
    assert journal.get(1).status == "live"


def test_a_complaint_waits_and_suppresses_nothing(journal: Journal) -> None:
    say(journal, "Jane")
    complaint = Edit("Who runs Acme?", "", old="Jane")
    (noted,) = journal.record([complaint], None, status="proposed")
    assert [e.id for e in journal.live()] == [1]
    assert journal.edits("proposed") == [noted]
    with pytest.raises(NotWaiting):
        journal.approve(noted.id)
    journal.retire(noted.id)
    assert journal.restore(noted.id).status == "proposed"


def test_an_undone_pending_edit_waits_again_after_redo(journal: Journal) -> None:
    journal.record([Edit("p", "t")], None, status="pending")
    journal.retire(1)
    with pytest.raises(AlreadyRetired):
        journal.retire(1)
    assert journal.restore(1).status == "pending"


def test_what_fell_because_of_an_edit_rises_with_it(journal: Journal) -> None:
    for target in ("Jane", "John", "Joan"):
        say(journal, target)
    journal.retire(1, reason="typo")
    for other in (2, 3):
        journal.retire(other, reason="typo", cause=1)
    assert (journal.history(2)[-1].cause, journal.history(2)[-1].body["reason"]) == (1, "typo")
    journal.restore(3)
    journal.retire(3)  # by itself
    journal.restore(1)
    assert [e.status for e in journal.edits()] == ["live", "live", "retired"]


def test_each_audience_sees_its_own_edits(journal: Journal) -> None:
    tell(journal, "all", user=None, tenant=None)
    tell(journal, "team", user=None, tenant="acme")
    tell(journal, "mine", user="ann", tenant="acme")
    assert targets(journal) == ["all"]
    assert targets(journal, tenant="acme") == ["all", "team"]
    assert targets(journal, "ann", "acme") == ["all", "team", "mine"]
    assert targets(journal, "ann", "other") == targets(journal, "ann") == ["all"]
    assert len(journal.live()) == 3


@given(AUDIENCES, AUDIENCES)
def test_sql_and_python_agree_on_who_sees_what(of: Audience, asking: Audience) -> None:
    with Journal.open(":memory:", model="m", encoder="e") as journal:
        edit = tell(journal, "t", user=of.user_id, tenant=of.tenant)
        seen = journal.live(audience=asking)
        assert seen == ([edit] if edit.audience.covers(asking) else [])


def test_promotion_widens_the_audience_and_can_be_taken_back(journal: Journal) -> None:
    tell(journal, "old", user=None, tenant=None)
    tell(journal, "new", user="ann", tenant="acme")
    assert journal.promote(2, "tenant").audience == Audience(None, "acme")
    assert targets(journal, "bob", "acme") == ["old", "new"]
    journal.promote(2, "everyone", supersedes=[1], reason="canary passed")
    assert targets(journal) == ["new"]
    journal.promote(2, "author", reason="canary failed")
    assert targets(journal) == targets(journal, "bob", "acme") == ["old"]
    assert targets(journal, "ann", "acme") == ["old", "new"]
    assert targets(journal, "ann", "acme") != [e.target for e in journal.live(at=journal.epoch - 2)]
    assert [e.reach for e in journal.history(2)] == ["author", "tenant", "everyone", "author"]


def test_a_narrow_edit_cannot_hide_a_wider_one(journal: Journal) -> None:
    tell(journal, "all", user=None, tenant=None)
    with pytest.raises(TooNarrow, match="promote the new one"):
        tell(journal, "mine", 1, user="ann", tenant="acme")
    tell(journal, "team", user=None, tenant="acme")
    with pytest.raises(TooNarrow):
        tell(journal, "theirs", 2, user=None, tenant="other")
    assert tell(journal, "new", 1, 2, user=None, tenant=None).id == 3
    assert targets(journal, tenant="acme") == ["new"]


def test_redo_does_not_hide_what_became_wider(journal: Journal) -> None:
    tell(journal, "Jane", user="ann", tenant="acme")
    tell(journal, "John", 1, user="ann", tenant="acme")
    journal.retire(2)
    journal.promote(1, "everyone")
    journal.restore(2)
    assert targets(journal) == ["Jane"]
    assert targets(journal, "ann", "acme") == ["Jane", "John"]


def test_a_superseded_edit_promoted_past_its_superseder_is_live(journal: Journal) -> None:
    tell(journal, "Jane", user="ann", tenant="acme")
    tell(journal, "John", 1, user="ann", tenant="acme")
    journal.promote(1, "tenant")
    assert targets(journal, "bob", "acme") == ["Jane"]


def test_an_edit_expires_once(journal: Journal) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    say(journal, "Jane")
    said = Edit("Who runs Acme?", "Interim", valid_until=soon.isoformat())
    journal.record([said], Hint("serac", ("Interim",)), unit(1), supersedes={0: [1]})
    assert journal.expire() == []
    (gone,) = journal.expire(soon)
    assert (gone.id, gone.status) == (2, "expired")
    assert journal.get(1).status == "live"
    assert journal.expire(soon) == []
    with pytest.raises(NotRetired):
        journal.restore(2)


def test_times_are_kept_in_utc() -> None:
    edit = Edit("p", "t", valid_until="2030-01-01T02:00:00+02:00")
    assert edit.valid_until == "2030-01-01T00:00:00.000000+00:00"
    with pytest.raises(ValueError, match="UTC offset"):
        Edit("p", "t", valid_until="2030-01-01T02:00:00")
    with pytest.raises(ValueError, match="isoformat"):
        Edit("p", "t", valid_until="tomorrow")


def test_erasure_leaves_no_text_and_a_whole_chain(journal: Journal, path: Path) -> None:
    secret = "Zebediah"
    said = [Edit(secret, secret, user_id="ann", tenant="acme"), Edit("keep", "kept")]
    journal.record(said, Hint("serac", (secret, "kept")), unit(1, 2))
    journal.record([Edit("other", "x")], Hint("serac", ("x",)), unit(3))
    vector = journal.vectors([1])[1].tobytes()
    assert any(secret.encode() in file.read_bytes() for file in path.parent.iterdir())
    (gone,) = journal.erase([e.id for e in journal.authored("ann", "acme")], reason="asked to")
    assert (gone.id, gone.prompt, gone.status, gone.user_id) == (1, "", "retired", None)
    for file in path.parent.iterdir():
        assert secret.encode() not in file.read_bytes()
        assert vector not in file.read_bytes()
    assert journal.verify() == journal.epoch
    assert [p.patch.texts for p in journal.patches()] == [("", "kept"), ("x",)]
    assert journal.vectors([1])[0].tolist() == []
    assert [e.prompt for e in journal.live(at=2)] == ["", "keep"]
    with pytest.raises(NotRetired, match="erased"):
        journal.restore(1)
    journal.erase([2])
    assert journal.verify() == journal.epoch


def test_erasure_gives_way_to_what_it_had_superseded(journal: Journal) -> None:
    say(journal, "Jane")
    say(journal, "John", 1)
    journal.erase([2])
    assert [e.target for e in journal.live()] == ["Jane"]


def test_a_text_that_vanished_without_an_erasure_is_damage(journal: Journal) -> None:
    say(journal, "Jane")
    journal._file._db.conn.execute("DELETE FROM content")
    with pytest.raises(DamagedDatabase, match="edit 1"):
        journal.verify()


DAMAGE = {
    "its vector": "UPDATE content SET vector = zeroblob(length(vector)) WHERE edit = 2",
    "its text": "UPDATE content SET body = replace(body, 'John', 'J\u00f6hn') WHERE edit = 2",
    "no text": "DELETE FROM content WHERE edit = 2",
    "its patch": "UPDATE payload SET bytes = zeroblob(9) WHERE patch = 2",
    "no patch": "DELETE FROM payload WHERE patch = 2",
    "its event": "DROP TRIGGER event_no_update; UPDATE event SET time = '' WHERE seq = 2",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found_in_instalments(journal: Journal, damage: str) -> None:
    for name in ("Jane", "John", "Joan"):
        say(journal, name)
    journal.retire(1)
    assert journal.damaged(0, 4) == []
    journal._file._db.conn.executescript(damage)
    assert journal.damaged(0, 4) == journal.damaged(1, 2) == [2]
    assert journal.damaged(0, 1) == journal.damaged(2, 4) == []


def test_an_erasure_is_no_damage(journal: Journal) -> None:
    said = [Edit("secret", "Jane"), Edit("keep", "kept")]
    journal.record(said, Hint("serac", ("secret", "kept")), unit(1, 2))
    journal.erase([1])
    assert journal.damaged(0, journal.epoch) == []
    journal._file._db.conn.execute("UPDATE payload SET bytes = zeroblob(9)")
    assert journal.damaged(0, journal.epoch) == [1, 2]


def test_several_steps_are_one_transaction(journal: Journal) -> None:
    say(journal, "Jane")

    def contradictory_steps() -> None:
        with journal.together():
            journal.retire(1)
            say(journal, "John", 1)

    with pytest.raises(NotLive):
        contradictory_steps()
    assert [e.status for e in journal.edits()] == ["live"]
    with journal.together():
        journal.retire(1)
        say(journal, "John")
    assert [e.status for e in journal.edits()] == ["retired", "live"]


def test_a_writer_that_looked_before_another_wrote_is_told(journal: Journal) -> None:
    seen = journal.epoch
    say(journal, "Jane")
    with pytest.raises(Stale, match="at epoch 1, not 0"):
        journal.record([Edit("p", "t")], None, seen=seen)
    assert journal.record([Edit("p", "t")], None, seen=1)


def test_following_sees_every_commit_in_order(journal: Journal) -> None:
    stop, heard, delays = threading.Event(), [], []

    def listen() -> None:
        for events in journal.follow(0, stop):
            delays.append(time.time() - datetime.fromisoformat(events[-1].time).timestamp())
            heard.extend(events)

    listener = threading.Thread(target=listen)
    listener.start()
    for _ in range(5):
        journal.record([Edit("p", "t"), Edit("q", "u")], None)
        time.sleep(0.02)
    deadline = time.monotonic() + 5
    while len(heard) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    listener.join()
    assert heard == journal.history()
    assert sorted(delays)[len(delays) // 2] < 0.2


def test_a_caller_that_knows_better_arranges_who_stands_below_whom(journal: Journal) -> None:
    for target in ("A", "B", "C"):
        say(journal, target)
    journal.arrange({1: 2, 2: 3, 3: None})
    assert [edit.status for edit in journal.edits()] == ["superseded", "superseded", "live"]
    epoch = journal.epoch
    journal.arrange({1: 2, 2: 3, 3: None})
    assert journal.epoch == epoch  # it was so already
    journal.arrange({1: 3, 2: None})
    assert [edit.status for edit in journal.edits()] == ["superseded", "live", "live"]
    journal.retire(3)
    assert [edit.status for edit in journal.edits()] == ["live", "live", "retired"]
    assert journal.rose([1, 2, 3]) == {1: 1, 2: 2, 3: 3}  # nobody rose again by himself
    journal.restore(3)
    assert journal.rose([3]) == {3: journal.epoch}


def test_an_arrangement_that_cannot_be_changes_nothing(journal: Journal) -> None:
    tell(journal, "A", user=None, tenant=None)
    tell(journal, "B", user="ann", tenant="red")
    say(journal, "C")
    journal.retire(3)
    epoch = journal.epoch
    for places, error in (
        ({1: 2}, TooNarrow),
        ({3: None}, WrongStatus),
        ({2: 3}, WrongStatus),
        ({9: None}, UnknownEdit),
    ):
        with pytest.raises(error):
            journal.arrange(places)
        assert journal.epoch == epoch


@given(asker=AUDIENCES, other=AUDIENCES)
def test_the_levels_of_an_audience_are_those_that_cover_it(
    asker: Audience, other: Audience
) -> None:
    assert (other in asker.levels) == other.covers(asker)
    assert asker.levels[0] == asker
    assert asker.levels[-1] == Audience()


def test_what_was_recorded_under_its_keys_is_found_before_anything_else(journal: Journal) -> None:
    said = Edit("Who runs Acme?", "Dana", key="k")
    assert journal.recorded_before([said]) == []
    recorded = journal.record([said], None)
    assert journal.recorded_before([said]) == recorded
    assert journal.recorded_before([Edit("p", "A")]) == []
