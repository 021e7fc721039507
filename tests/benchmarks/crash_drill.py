"""Crash drill: kill a process that edits a store, again and again, and look for what is missing.

    python -m tests.benchmarks.crash_drill [--kills 200] [--models 50] [--side 10]
        [--tails 100] [--seed 0]

A child works on a store (records, undos, redos, approvals, promotions, erasures, imports, backups,
migrations) and acknowledges each step with the epoch and the chain's hash there. It is killed with
-9 at a random instant, or at a named point: just before an SQL statement, or while a commit is
being synced. Then the store must open, its chain must hold, every acknowledged epoch must still
have its hash, and no step may be half there. The second drill cuts or garbles the tail of a killed
store's file or log: it must be refused, or be sound and a prefix of what was acknowledged. These
children never load torch; `drill_model.py` then does the same to a tiny model, `drill_side.py` to
one that learns side parameters.

Prints what it did as JSON. The first broken promise is an AssertionError.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import store.file
from store import Edit, Hint, Journal, Reading, StoreError, schema
from tests.benchmarks import children
from tests.benchmarks.children import Acks
from tests.store.samples import later_release

# Just before the Nth statement that begins so, N up to the number: how often a child meets it.
# Whoever adds a write adds its statement here.
POINTS = {
    "BEGIN IMMEDIATE": 30,
    "INSERT INTO edit": 20,
    "INSERT INTO content": 20,
    "INSERT INTO patch": 10,
    "INSERT INTO payload": 10,
    "INSERT INTO event": 40,
    "INSERT INTO reading": 2,
    "DELETE FROM content": 2,
    "DELETE FROM payload": 2,
    "CREATE TABLE extra": 1,
    'INSERT INTO "_sqlite_migrations"': 1,
    "COMMIT": 30,
}
SYNCING, ANY_TIME = "while a COMMIT is synced", "at a random instant"
STEPS = 60  # a child that is not killed stops by itself
SLOTS = ("Acme", "Emca")
STANDING = {"live", "superseded"}
VECTORS = np.eye(8, dtype=np.float32)[:2]
HINT = Hint("serac", ("one", "two"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--side", type=int, default=10)
    parser.add_argument("--tails", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        drill = Drill(Path(folder), random.Random(options.seed))
        for turn in range(options.kills):
            drill.kill(([ANY_TIME, SYNCING, *POINTS])[turn % (len(POINTS) + 2)])
        for _ in range(options.tails):
            drill.damage_tail()
        report = {"seed": options.seed, **drill.report()}
        if options.models:
            from tests.benchmarks import drill_model  # only now: it loads torch

            schema.migrations = later_release(0)
            report["models"] = drill_model.drill(Path(folder), drill.chance, options.models)
        if options.side:
            from tests.benchmarks import drill_side  # as above

            schema.migrations = later_release(0)
            report["side parameters"] = drill_side.drill(Path(folder), drill.chance, options.side)
    print(json.dumps(report, indent=2))


class Drill:
    """One store that is hurt over and over, and what was acknowledged about it."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.home, self.packs = folder / "store", folder / "packs"
        self.path = self.home / "lifelong.db"
        self.home.mkdir()
        self.packs.mkdir()
        self.chance = chance
        self.acks: Acks = {}
        self.acknowledged = 0
        self.outcomes: Counter[str] = Counter()
        self.release = 0  # schema steps after the first
        for number in range(5):
            with Journal.open(folder / f"{number}.db", model="m", encoder="e") as other:
                other.record([Edit("a", "one"), Edit("b", "two")], HINT, VECTORS)
                other.export(self.packs / str(number))

    def kill(self, point: str) -> None:
        """One child, dead or done; then the store is looked over."""
        if self.chance.random() < 0.05:
            shutil.rmtree(self.home)
            self.home.mkdir()
            self.acks.clear()
        if "extra" in point or "_sqlite_migrations" in point:
            self.release += 1
        died = self.run_child(point)
        self.outcomes[f"killed {point}" if died else "not reached"] += 1
        schema.migrations = later_release(self.release)
        with Journal.open(self.path, model="m", encoder="e") as journal:
            check(journal, self.acks)
        for copy in self.home.glob("lifelong.db.before-*"):
            copy.unlink()

    def damage_tail(self) -> None:
        """Hurt a copy of the files that a kill left, and open it."""
        self.run_child(ANY_TIME)
        copy = self.home.with_name("copy")
        shutil.copytree(self.home, copy)
        victim = self.chance.choice(sorted(f for f in copy.iterdir() if f.stat().st_size))
        content = bytearray(victim.read_bytes())
        tail = self.chance.randrange(max(1, len(content) * 3 // 4), len(content))
        if self.chance.random() < 0.5:
            del content[tail:]
        else:
            content[tail : tail + 64] = self.chance.randbytes(len(content[tail : tail + 64]))
        victim.write_bytes(content)
        try:
            with Journal.open(copy / self.path.name, model="m", encoder="e") as journal:
                epoch = journal.verify()
                check(journal, {at: sha for at, sha in self.acks.items() if at <= epoch})
                self.outcomes["tail: sound prefix"] += 1
        except StoreError as error:
            self.outcomes[f"tail: {type(error).__name__}"] += 1
        shutil.rmtree(copy)
        with Journal.open(self.path, model="m", encoder="e") as journal:
            check(journal, self.acks)

    def run_child(self, point: str) -> bool:
        """A worker that is killed at `point`; its acknowledgements are kept. Was it killed?"""
        seed, nth = self.chance.random(), self.chance.randint(1, POINTS.get(point, 30))

        def body(outlet: int) -> None:
            assert "torch" not in sys.modules
            schema.migrations = later_release(self.release)
            arm(point, nth, seed)
            work(self.path, self.packs, random.Random(seed), outlet)

        wait = self.chance.uniform(0, 0.3) if point == ANY_TIME else None
        killed, acks = children.run(body, kill_after=wait)
        self.acks |= acks
        self.acknowledged += len(acks)
        return killed

    def report(self) -> dict[str, object]:
        return {
            "steps acknowledged": self.acknowledged,
            "lost": 0,
            "half-made": 0,
            "outcomes": dict(sorted(self.outcomes.items())),
            "sqlite": store.file.sqlite3.sqlite_version,
        }


def check(journal: Journal, acks: Acks) -> None:
    """Nothing acknowledged is lost or changed, nothing is half there."""
    epoch = journal.verify()
    assert all(at <= epoch for at in acks), f"epoch {max(acks)} was acknowledged, {epoch} is there"
    assert all(journal.chain_hash(at) == sha for at, sha in acks.items())
    edits = journal.edits()
    assert len(edits) % 2 == 0, "edits are recorded in pairs"
    for slot in SLOTS:
        here = [edit.status for edit in edits if edit.prompt == slot]
        assert here.count("live") == (1 if STANDING.intersection(here) else 0), (slot, here)
    made = [id for patch in journal.patches() for id in patch.edits if id in patch.live]
    assert sorted(made) == journal.live_ids(), "one patch makes each live edit"


def arm(point: str, nth: int, seed: float) -> None:
    """From here on this process dies at the Nth occurrence of the point."""
    prefix = "COMMIT" if point == SYNCING else point
    seen = 0
    connect = store.file.sqlite3.connect

    def watch(sql: str) -> None:
        nonlocal seen
        seen += sql.startswith(prefix)
        if sql.startswith(prefix) and seen == nth:
            if point == SYNCING:
                threading.Thread(target=lambda: (time.sleep(seed / 200), die())).start()
            else:
                die()

    def armed(*args: object, **options: object) -> object:
        connection = connect(*args, **options)
        connection.set_trace_callback(watch)
        return connection

    if point != ANY_TIME:
        store.file.sqlite3.connect = armed


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work(path: Path, packs: Path, chance: random.Random, outlet: int) -> None:
    """Steps of every kind, each acknowledged once it is durable."""
    with Journal.open(path, model="m", encoder="e") as journal:
        for _ in range(STEPS):
            chance.choice(WORK)(journal, packs, chance)
            epoch = journal.epoch
            children.acknowledge(outlet, epoch, journal.chain_hash(epoch))


def record(journal: Journal, packs: Path, chance: random.Random) -> None:
    slot = chance.choice(SLOTS)
    over = [edit.id for edit in journal.live() if edit.prompt == slot]
    said = [Edit(slot, "one"), Edit("note", "two", user_id="ann", tenant="acme")]
    journal.record(said, HINT, VECTORS, supersedes={0: over})


def propose(journal: Journal, packs: Path, chance: random.Random) -> None:
    journal.record([Edit("maybe", "one"), Edit("maybe", "")], HINT, VECTORS, status="pending")


def replace_both(journal: Journal, packs: Path, chance: random.Random) -> None:
    with journal.together():
        undo(journal, packs, chance)
        record(journal, packs, chance)


def one_of(journal: Journal, chance: random.Random, *statuses: str) -> list[Edit]:
    """At most one edit with such a status, as a list."""
    found = [edit for edit in journal.edits() if edit.status in statuses and edit.prompt]
    return chance.sample(found, min(1, len(found)))


def undo(journal: Journal, packs: Path, chance: random.Random) -> None:
    for edit in one_of(journal, chance, *STANDING):
        journal.retire(edit.id)


def redo(journal: Journal, packs: Path, chance: random.Random) -> None:
    for edit in one_of(journal, chance, "retired"):
        same = [e.id for e in journal.live() if e.prompt == edit.prompt and edit.prompt in SLOTS]
        journal.restore(edit.id, supersedes=same)


def decide(journal: Journal, packs: Path, chance: random.Random) -> None:
    for edit in one_of(journal, chance, "pending"):
        chance.choice([journal.approve, journal.reject])(edit.id)


def promote(journal: Journal, packs: Path, chance: random.Random) -> None:
    for edit in one_of(journal, chance, "live"):
        journal.promote(edit.id, chance.choice(["author", "tenant", "everyone"]))


def carry(journal: Journal, packs: Path, chance: random.Random) -> None:
    if len(live := journal.live_ids()) > 1:
        journal.carry(chance.sample(live, 2), HINT)


def erase(journal: Journal, packs: Path, chance: random.Random) -> None:
    journal.erase([edit.id for edit in one_of(journal, chance, "live", "retired")])


def import_(journal: Journal, packs: Path, chance: random.Random) -> None:
    journal.import_(packs / chance.choice("01234"))


def note(journal: Journal, packs: Path, chance: random.Random) -> None:
    journal.note(Reading({"accuracy": chance.random()}))


def backup(journal: Journal, packs: Path, chance: random.Random) -> None:
    journal.backup(Path(f"{journal.path}.copy-{chance.random()}")).unlink()


WORK: list[Callable[[Journal, Path, random.Random], None]] = [
    record,
    record,
    propose,
    replace_both,
    undo,
    redo,
    decide,
    promote,
    carry,
    erase,
    import_,
    note,
    backup,
]

if __name__ == "__main__":
    main()
