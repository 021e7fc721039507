"""Every way in which a file can be wrong has its own error, and nothing is half-written."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlite_utils.utils import sqlite3

import store.file
from store import (
    DamagedDatabase,
    Edit,
    ForeignDatabase,
    Journal,
    SchemaTooNew,
    StoreFull,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    StoreUnavailable,
    WrongBase,
    WrongEncoder,
    open_index,
)
from store.file import safe_journal_mode
from tests.store.samples import DIM, say

Reopen = Callable[[], Journal]


def vandalise(path: Path, sql: str, value: str | bytes) -> None:
    """Change rows behind the store's back."""
    with sqlite3.connect(path) as vandal:
        for (trigger,) in vandal.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            vandal.execute(f"DROP TRIGGER {trigger}")
        vandal.execute(sql, (value,))
    vandal.close()


@pytest.mark.parametrize("garbage", [b"hello", bytes(5000), random.Random(1).randbytes(9000)])
def test_garbage_is_foreign_and_left_alone(path: Path, reopen: Reopen, garbage: bytes) -> None:
    path.write_bytes(garbage)
    with pytest.raises(ForeignDatabase, match="Name another file"):
        reopen()
    assert path.read_bytes() == garbage


def test_another_programs_database_is_foreign(path: Path, reopen: Reopen) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE invoice (id)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ForeignDatabase, match="not a lifelong store"):
        reopen()
    with pytest.raises(ForeignDatabase):
        Journal.read(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(path: Path, reopen: Reopen) -> None:
    path.touch()
    assert reopen().epoch == 0


def test_a_truncated_file_is_damaged(path: Path, journal: Journal, reopen: Reopen) -> None:
    for i in range(40):
        say(journal, "x" * i)
    journal.close()
    whole = path.read_bytes()
    for keep in (5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(DamagedDatabase, match="Restore a backup"):
            reopen()


def test_a_garbled_page_is_found(path: Path, journal: Journal, reopen: Reopen) -> None:
    for i in range(40):
        say(journal, "x" * 100 + str(i))
    journal.close()
    whole = bytearray(path.read_bytes())
    at = whole.index(b"x" * 100)
    whole[at] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DamagedDatabase, match=r"not match (its|their) hash"):
        reopen().verify()


@pytest.mark.parametrize("table", ["content", "payload"])
def test_damage_that_changes_a_type_is_found(
    path: Path, journal: Journal, reopen: Reopen, table: str
) -> None:
    say(journal, "Jane")
    ((salt,),) = journal._file.rows(f"SELECT salt FROM {table}")
    journal.close()
    whole = bytearray(path.read_bytes())
    whole[whole.index(salt) - 1] ^= 1  # the last type in the row's header: text for blob
    path.write_bytes(whole)
    with pytest.raises(DamagedDatabase, match=r"not match (its|their) hash"):
        reopen().verify()


def test_a_changed_row_is_named(path: Path, journal: Journal, reopen: Reopen) -> None:
    for name in ("Jane", "John", "Joan"):
        say(journal, name)
    time = journal.history(2)[0].time
    journal.close()
    with sqlite3.connect(path) as vandal:
        vandal.execute("DROP TRIGGER event_no_update")
        vandal.execute("UPDATE event SET kind = 'retired' WHERE seq = 2")
    vandal.close()
    with pytest.raises(DamagedDatabase, match=f"event 2 .edit 2, {time[:10]}.*to epoch 1 holds"):
        reopen().verify()


@pytest.mark.parametrize("damage", [b"", b"\x01", bytes(32), np.full(8, 9, "<f4").tobytes()])
def test_a_damaged_vector_is_named(
    path: Path, journal: Journal, reopen: Reopen, damage: bytes
) -> None:
    for name in ("Jane", "John", "Joan"):
        say(journal, name)
    vandalise(path, "UPDATE content SET vector = ? WHERE edit = 2", damage)
    for look in (Journal.vectors, lambda journal: open_index(journal, DIM)):
        with pytest.raises(DamagedDatabase, match=r"vector of edit 2 .*Restore a backup"):
            look(reopen())
    assert reopen().vectors([1, 3])[0].tolist() == [1, 3]


def test_no_vector_is_recorded_that_would_be_taken_for_damaged(journal: Journal) -> None:
    for vectors in (np.zeros((1, DIM), np.float32), np.full((1, DIM), np.nan, np.float32)):
        with pytest.raises(ValueError, match="of length 1"):
            journal.record([Edit("p", "t")], None, vectors)
    assert journal.epoch == 0


def test_a_damaged_text_is_named(path: Path, journal: Journal, reopen: Reopen) -> None:
    say(journal, "Jane")
    body = say(journal, "John").to_json().encode()
    journal.close()
    spoilt = body.replace(b'"target"', b'"tarGet"')
    path.write_bytes(path.read_bytes().replace(body, spoilt))
    with pytest.raises(DamagedDatabase, match=r"text of edit 2 .*Restore a backup"):
        reopen().live()
    assert reopen().get(1).target == "Jane"


def test_a_damaged_event_is_named(path: Path, journal: Journal, reopen: Reopen) -> None:
    say(journal, "Jane")
    vandalise(path, "UPDATE event SET body = ? WHERE seq = 1", "{")
    with pytest.raises(DamagedDatabase, match=r"Event 1 of edit 1 .*Restore a backup"):
        reopen().history()


def test_another_base_model_or_encoder(path: Path, journal: Journal) -> None:
    with pytest.raises(WrongBase, match=r"model tiny \(m1\), not for big \(m2\).*rebase"):
        Journal.open(path, model="m2", encoder="e1", model_name="big")
    with pytest.raises(WrongEncoder):
        Journal.open(path, model="m1", encoder="e2")


def test_a_newer_schema(path: Path, journal: Journal, reopen: Reopen) -> None:
    with sqlite3.connect(path) as newer:
        newer.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('lifelong', 'm999_future', '')"
        )
    newer.close()
    with pytest.raises(SchemaTooNew, match=r"m999_future.*Upgrade"):
        reopen()


def test_a_locked_file(
    path: Path, journal: Journal, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.file, "LOCK_SECONDS", 0.05)
    hasty = reopen()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLocked, match="Nothing was written"):
        say(hasty, "Jane")
    assert hasty.live() == []
    holder.close()
    assert say(hasty, "Jane").id == 1


def test_a_full_disk(journal: Journal) -> None:
    say(journal, "Jane")
    (pages,) = journal._file.rows("PRAGMA page_count")[0]
    journal._file.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFull, match="free some disk space"):
        say(journal, "x" * 100_000)
    assert (journal.verify(), len(journal.edits())) == (1, 1)
    journal._file.rows("PRAGMA max_page_count = 100000")
    assert say(journal, "x" * 100_000).id == 2


FILLS_THE_DISK = """
import os, resource, sys
from store import Edit, Journal, StoreError
with Journal.open(sys.argv[1], model="m1", encoder="e1") as journal:
    journal.record([Edit("Who runs Acme?", "Jane")], None)
    room = os.path.getsize(sys.argv[1]) + 20_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        journal.record([Edit("x" * 200_000, "John")], None)
    except StoreError as error:
        print(type(error).__name__, [edit.target for edit in journal.live()], flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    journal.record([Edit("x" * 200_000, "Joan")], None)
"""


def test_no_room_in_the_middle_of_a_commit(path: Path, reopen: Reopen) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILLS_THE_DISK, str(path)], capture_output=True, text=True
    )
    assert done.stdout == "StoreUnavailable ['Jane']\n", done.stderr
    assert [edit.target for edit in reopen().live()] == ["Jane", "Joan"]
    assert reopen().verify() == 2


MIGRATES = """
import sys
from store import Journal, schema
from tests.store.samples import later_release
schema.migrations = later_release(3)
sys.stdin.readline()
with Journal.open(sys.argv[1], model="m1", encoder="e1") as journal:
    print(journal.schema, journal.verify())
"""


def test_two_processes_migrate_at_once(path: Path, journal: Journal) -> None:
    say(journal, "Jane")
    journal.close()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATES, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(2)
    ]
    for child in both:
        assert child.stdin is not None
        child.stdin.write("now\n")
        child.stdin.flush()
    assert [child.communicate()[0] for child in both] == ["m902_extra 1\n"] * 2
    copies = [copy.name for copy in path.parent.glob("*.before-*")]
    assert copies == ["lifelong.db.before-m900_extra"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user to be refused")
def test_a_read_only_file(path: Path, journal: Journal) -> None:
    say(journal, "Jane")
    journal.close()
    folder = path.parent
    for parent in [*folder.parents[:2], folder]:
        parent.chmod(parent.stat().st_mode | 0o055)
    script = (
        "import os, sys; from store import *\n"
        "Journal.open(':memory:', model='', encoder='').close()  # imports what comes late\n"
        "os.setuid(65534)\n"
        "try:\n"
        "    j = Journal.open(sys.argv[1], model='m1', encoder='e1')  # refused in WAL mode\n"
        "    assert [e.target for e in j.live()] == ['Jane']\n"
        "    j.retire(1)\n"
        "except StoreReadOnly as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert "is read-only" in done.stdout, done.stderr


def test_reader_does_not_write(path: Path, journal: Journal) -> None:
    say(journal, "Jane")
    with Journal.read(path) as reader, pytest.raises(StoreReadOnly):
        reader.retire(1)


@pytest.mark.parametrize("where", ["missing/lifelong.db", "."])
def test_no_such_place(tmp_path: Path, where: str) -> None:
    with pytest.raises(StoreUnavailable, match="Check that the folder exists"):
        Journal.open(tmp_path / where, model="m", encoder="e")
    for existing in (Journal.read, Journal.tend):
        with pytest.raises(StoreUnavailable):
            existing(tmp_path / where)


def test_looking_makes_no_file(path: Path) -> None:
    for existing in (Journal.read, Journal.tend):
        with pytest.raises(StoreMissing, match="the first correction makes a new one"):
            existing(path)
    assert not path.exists()


def test_to_undo_needs_no_model(path: Path, journal: Journal) -> None:
    say(journal, "Jane")
    with Journal.tend(path) as other:
        assert other.retire(1).status == "retired"
        assert other.restore(1).status == "live"
    assert journal.epoch == 3


def test_wal_only_where_sqlite_is_fixed() -> None:
    buggy = [(3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 2)]
    fixed = [(3, 44, 6), (3, 50, 7), (3, 51, 3), (3, 52, 0), (4, 0, 0)]
    assert {safe_journal_mode(v) for v in buggy} == {"delete"}
    assert {safe_journal_mode(v) for v in fixed} == {"wal"}
