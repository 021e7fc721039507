"""The twelve promises of the journal, each with a test that carries its number."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlite_utils.utils import sqlite3

from store import (
    Edit,
    Hint,
    Journal,
    KeyReused,
    SchemaTooOld,
    StoreFull,
    VectorIndex,
    WrongBase,
    schema,
)
from tests.store.samples import later_release, say, unit

Reopen = Callable[[], Journal]

DIES = """
import os, signal, sys
from store import Edit, Journal
journal = Journal.open(sys.argv[1], model="m1", encoder="e1")
def killer(sql):
    if sql.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
for i in range(3):
    journal.record([Edit("p", "t")], None)
    print(journal.epoch, flush=True)
journal._file._db.conn.set_trace_callback(killer)
journal.record([Edit("p", "t"), Edit("q", "u")], None, supersedes={0: [1], 1: [2]})
print(journal.epoch, flush=True)
journal.live()
os.kill(os.getpid(), signal.SIGKILL)
"""


def dies_at(path: Path, statement: str) -> int:
    """The epoch that a child acknowledged before it died just before this SQL statement."""
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(path), statement], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return int(done.stdout.split()[-1])


def test_01_acknowledged_means_durable(path: Path, reopen: Reopen) -> None:
    assert dies_at(path, "no such statement") == 7
    assert reopen().epoch == 7


@pytest.mark.parametrize("statement", ["INSERT INTO edit", "INSERT INTO content", "COMMIT"])
def test_02_a_crash_leaves_a_prefix(path: Path, reopen: Reopen, statement: str) -> None:
    assert dies_at(path, statement) == 3
    journal = reopen()
    assert [event.seq for event in journal.history()] == [1, 2, 3]
    assert journal.verify() == 3


def test_03_an_edit_is_written_whole(journal: Journal) -> None:
    steps = ["INSERT INTO edit", "INSERT INTO content", "INSERT INTO patch", "INSERT INTO event"]
    for step in steps:
        journal._file._db.conn.set_authorizer(
            lambda action, table, *_, step=step: (
                sqlite3.SQLITE_DENY
                if action == sqlite3.SQLITE_INSERT and table == step.split()[-1]
                else sqlite3.SQLITE_OK
            )
        )
        with pytest.raises(Exception, match=r"prohibited|not authorized"):
            say(journal, "Jane")
        journal._file._db.conn.set_authorizer(None)
        assert (journal.epoch, journal.edits(), journal.verify()) == (0, [], 0)
    assert say(journal, "Jane").id == 1


def test_04_the_same_key_gives_the_same_edit(journal: Journal, reopen: Reopen) -> None:
    request = [Edit("Who runs Acme?", "Jane", key="k1", tenant="acme")]
    first = journal.record(request, Hint("serac", ("Jane",)), unit(1))
    assert reopen().record(request, Hint("serac", ("Jane",)), unit(1)) == first
    assert (journal.epoch, len(journal.edits())) == (1, 1)
    with pytest.raises(KeyReused, match="says something else"):
        journal.record([Edit("Who runs Acme?", "John", key="k1", tenant="acme")], None)
    with pytest.raises(KeyReused, match="the others not"):
        journal.record([*request, Edit("a", "b", key="k2")], None)
    (other,) = journal.record([Edit("Who runs Acme?", "John", key="k1", tenant="emca")], None)
    assert other.id == 2


@pytest.mark.parametrize("table", ["edit", "patch", "event", "reading"])
def test_05_rows_are_never_changed(path: Path, journal: Journal, table: str) -> None:
    say(journal, "Jane")
    key = "seq" if table == "event" else "id"
    with sqlite3.connect(path) as other:
        if table == "reading":
            other.execute("INSERT INTO reading VALUES (1, 1, '', '{}')")
        for change in (
            f"UPDATE {table} SET {key} = 7",
            f"DELETE FROM {table}",
            f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
        ):
            with pytest.raises(sqlite3.IntegrityError, match=r"append-only|one row at a time"):
                other.execute(change)
    other.close()
    assert journal.verify() == 1


def test_06_the_sequence_is_gapless_and_is_the_epoch(journal: Journal) -> None:
    say(journal, "Jane")
    say(journal, "John", 1)
    journal.retire(2)
    assert [e.seq for e in journal.history()] == list(range(1, journal.epoch + 1))
    assert journal.get(2).epoch == 3


def test_07_state_is_a_function_of_the_events(journal: Journal) -> None:
    say(journal, "Jane")
    say(journal, "John", 1)
    journal.retire(2)
    journal.restore(2)
    for epoch in range(journal.epoch + 1):
        replayed = {e.edit_id: e.kind for e in journal.history() if e.seq <= epoch}
        assert {e.id: e.status for e in journal.edits(at=epoch)} == replayed


def test_08_the_chain_names_the_first_broken_row(journal: Journal) -> None:
    for name in ("Jane", "John", "Joan"):
        say(journal, name)
    execute = journal._file._db.conn.execute
    execute("DROP TRIGGER event_no_update")
    execute("UPDATE event SET time = '1999-12-31' WHERE seq = 2")
    with pytest.raises(Exception, match=r"event 2 \(edit 2, 1999-12-31\); .* epoch 1 holds"):
        journal.verify()


def test_08_a_missing_row_is_noticed(journal: Journal) -> None:
    for name in ("Jane", "John", "Joan"):
        say(journal, name)
    execute = journal._file._db.conn.execute
    execute("DROP TRIGGER event_no_delete")
    execute("DELETE FROM event WHERE seq = 2")
    with pytest.raises(Exception, match=r"breaks at event 2"):
        journal.verify()


def test_09_the_index_is_disposable(journal: Journal, reopen: Reopen) -> None:
    index = VectorIndex(unit(1).shape[1])
    for target in ("a", "bb", "ccc"):
        edit = say(journal, target)
        index.add([edit.id], journal.vectors([edit.id])[1])
    journal.retire(2)
    index.remove([2])
    query = unit(9)[0]
    assert VectorIndex.of(*reopen().vectors()).search(query, 3) == index.search(query, 3)


def test_10_without_room_it_fails_closed_and_reads_on(journal: Journal) -> None:
    say(journal, "Jane")
    journal._file.rows(f"PRAGMA max_page_count = {journal._file.rows('PRAGMA page_count')[0][0]}")
    with pytest.raises(StoreFull):
        say(journal, "x" * 100_000)
    assert [e.target for e in journal.live()] == ["Jane"]


def test_11_a_migration_keeps_a_backup(
    path: Path, journal: Journal, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(journal, "Jane")
    backup = Path(f"{path}.before-m900_extra")
    backup.write_text("left by a migration that died")
    monkeypatch.setattr(schema, "migrations", later_release())
    with pytest.raises(SchemaTooOld, match="lifelong store migrate"):
        Journal.read(path)
    assert [e.target for e in reopen().live()] == ["Jane"]
    assert reopen().verify() == 1
    with sqlite3.connect(backup) as old:
        assert old.execute("SELECT count(*) FROM event").fetchone() == (1,)
        assert not old.execute("SELECT 1 FROM sqlite_master WHERE name = 'extra0'").fetchall()
    old.close()


def test_12_another_base_model_is_refused(path: Path, journal: Journal) -> None:
    with pytest.raises(WrongBase, match="lifelong rebase OLD --store NEW"):
        Journal.open(path, model="m2", encoder="e1")
