"""Soak: processes and threads edit one store at once, each checked against a plain dict.

    python tests/benchmarks/store_soak.py [--operations 10000] [--processes 2] [--threads 4]

Every thread owns some slots and remembers which edit of each is live. It records, undoes and redoes
at random and compares the store with its memory after every step. Prints JSON: the rate, and how
memory and open files grew between the first and the last tenth of the run.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from store import Edit, Hint, Journal

SLOTS = 3  # of one thread
VECTOR = np.eye(8, dtype=np.float32)[:1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--child", nargs=2, metavar=("PATH", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    share = options.operations // options.processes // options.threads
    if options.child:
        print(json.dumps(edit_from_threads(*options.child, options.threads, share)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lifelong.db"
        start = time.perf_counter()
        children = [
            subprocess.Popen(
                [sys.executable, *sys.argv, "--child", str(path), str(name)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in range(options.processes)
        ]
        grown = [json.loads(child.communicate()[0]) for child in children]
        seconds = time.perf_counter() - start
        with Journal.read(path) as journal:
            epoch = journal.verify()
    rate = options.operations / seconds
    print(json.dumps({"operations per s": round(rate), "epoch": epoch, "processes": grown}))


def edit_from_threads(path: str, name: str, threads: int, share: int) -> dict[str, int]:
    usage: list[tuple[int, int]] = []
    failures: list[BaseException] = []
    with Journal.open(path, model="m", encoder="e") as journal:

        def run(number: int) -> None:
            try:
                owner = Owner(journal, f"{name}.{number}")
                for step in range(share):
                    owner.step()
                    if number == 0 and step in (share // 10, share - 1):
                        usage.append((resident_kb(), len(os.listdir("/proc/self/fd"))))
            except BaseException as error:
                failures.append(error)
                raise

        workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    if failures:
        raise SystemExit(1)
    (kb, files), (later_kb, later_files) = usage
    return {
        "MB then": kb >> 10,
        "MB more": (later_kb - kb) >> 10,
        "files more": later_files - files,
    }


class Owner:
    """Some slots of one thread, and which edits of each stand: the last one is live."""

    def __init__(self, journal: Journal, name: str) -> None:
        self.journal = journal
        self.chance = random.Random(name)
        self.slots: dict[str, list[int]] = {f"{name}.{i}": [] for i in range(SLOTS)}
        self.undone: dict[str, int | None] = dict.fromkeys(self.slots)

    def step(self) -> None:
        slot = self.chance.choice(list(self.slots))
        standing, undone = self.slots[slot], self.undone[slot]
        if undone is not None:
            self.journal.restore(undone)
            standing.append(undone)
            self.undone[slot] = None
        elif standing and self.chance.random() < 0.5:
            self.undone[slot] = standing.pop()
            self.journal.retire(self.undone[slot])
        else:
            said, hint = [Edit(slot, "t")], Hint("serac", ("t",))
            (edit,) = self.journal.record(said, hint, VECTOR, supersedes={0: standing[-1:]})
            standing.append(edit.id)
        assert [self.journal.get(id).status for id in standing[-2:]] == (
            ["superseded", "live"][-len(standing[-2:]) :] if standing else []
        )


def resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
