"""kill -9 in the middle of commits: everything acknowledged is there, nothing is half-made."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from store import Journal

CHILD = """
import sys
import numpy as np
from store import Edit, Hint, Journal

journal = Journal.open(sys.argv[1], model="m1", encoder="e1")
vector = np.eye(8, dtype=np.float32)[:2]
while True:
    over = [e.id for e in journal.live()][-1:]
    edits = journal.record(
        [Edit("p", "t"), Edit("q", "u")], Hint("serac", ("t", "u")), vector, supersedes={0: over}
    )
    print("recorded", edits[0].id, flush=True)
    journal.retire(edits[1].id)
    print("retired", edits[1].id, flush=True)
"""


def acknowledged_before_kill(path: Path, seconds: float) -> list[tuple[str, int]]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    first = child.stdout.readline()  # imports are over
    time.sleep(seconds)
    child.kill()
    lines = (first + child.communicate()[0]).splitlines(keepends=True)
    return [(line.split()[0], int(line.split()[1])) for line in lines if line.endswith("\n")]


def test_ten_kills_lose_nothing(path: Path, reopen: Callable[[], Journal]) -> None:
    chance = random.Random(7)
    acknowledged: list[tuple[str, int]] = []
    for _ in range(10):
        acknowledged += acknowledged_before_kill(path, chance.uniform(0, 0.1))
        journal = reopen()
        status = {edit.id: edit.status for edit in journal.edits()}
        assert len(status) % 2 == 0, "half of a transaction is visible"
        for step, id in acknowledged:
            assert status[id] == "retired" if step == "retired" else id + 1 in status
        assert journal.verify() == journal.epoch
        journal.close()
    assert len(acknowledged) >= 10
