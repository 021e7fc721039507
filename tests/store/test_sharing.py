"""Threads and processes on one file: nothing is lost, nothing changes order, nothing leaks."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import store.file
from store import Edit, Journal, StoreLocked
from tests.store.samples import say

Reopen = Callable[[], Journal]
EACH = 15

WRITER = """
import sys, threading
from store import Edit, Journal
path, name, each = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Journal.open(path, model="m1", encoder="e1") as journal:
    def write(thread):
        for i in range(each):
            (edit,) = journal.record([Edit(f"{name}{thread}", str(i))], None)
            if i % 3 == 0:
                journal.retire(edit.id)
    threads = [threading.Thread(target=write, args=(t,)) for t in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
"""


def test_writers_neither_lose_nor_reorder(path: Path, reopen: Reopen) -> None:
    """Two processes with two threads each also race to create the store."""
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(EACH)])
        for name in "ab"
    ]
    assert [child.wait() for child in children] == [0, 0]
    edits = reopen().edits()
    for writer in ("a0", "a1", "b0", "b1"):
        mine = [edit for edit in edits if edit.prompt == writer]
        assert [edit.target for edit in mine] == [str(i) for i in range(EACH)]
        assert [edit.status == "retired" for edit in mine] == [i % 3 == 0 for i in range(EACH)]
    assert reopen().verify() == len(reopen().history()) == 4 * (EACH + EACH // 3)


def test_readers_never_see_half_a_transaction(journal: Journal, reopen: Reopen) -> None:
    reader, seen, done = reopen(), set[int](), threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(len(reader.live()) % 2)
            seen.add(len(journal.live()) % 2)

    watcher = threading.Thread(target=look)
    watcher.start()
    for i in range(20):
        journal.record([Edit("a", str(i)), Edit("b", str(i))], None)
    done.set()
    watcher.join()
    assert seen == {0}


def test_several_reads_see_one_state(
    journal: Journal, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.file, "LOCK_SECONDS", 0.05)
    other = reopen()
    say(journal, "Jane")
    with journal.unchanged():
        assert journal.epoch == 1
        with suppress(StoreLocked):  # where readers and writers shut each other out
            say(other, "John")
        assert (journal.epoch, len(journal.edits())) == (1, 1)
    say(other, "Joan")
    assert journal.epoch == other.epoch


def test_opening_and_closing_leaks_no_file(path: Path, journal: Journal) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    def read(times: int) -> None:
        for _ in range(times):
            with Journal.read(path) as reader:
                reader.live()

    say(journal, "Jane")
    read(1)  # SQLite keeps a handle for its next connection to a file that is open
    before = open_files()
    read(20)
    assert open_files() == before
