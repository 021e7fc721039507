"""What other tenants cost one tenant's lookups, and how soon another process's edit is heard.

    python tests/benchmarks/audiences.py [EDITS]

A tenant has 100 edits, alone or beside EDITS (100,000) of 1,000 others about the same subjects;
lookups are asked in turn, without the encoder's time. Then a second process records edits one
after the other, and the time from its commit to the first route that knows it is measured.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lifelong.encoder import Vectors
from lifelong.router import Router
from lifelong.scope import CosineScope
from store import Audience, Edit, Hint, Journal

DIM, TENANTS, OWN, ASKED, HEARD = 384, 1_000, 100, 1_000, 20
MADE_FOR = {"model": "benchmark", "encoder": "benchmark"}
WRITER = """
import sys, time
from store import Edit, Hint, Journal
with Journal.open(sys.argv[1], model="benchmark", encoder="benchmark") as journal:
    for line in sys.stdin:
        journal.record([Edit(line.strip(), "Dana")], Hint("serac", ("text",)))
        print(time.time(), flush=True)
"""


class Drawn:
    """Vectors drawn from the text: no time is spent on encoding."""

    dim = DIM
    fingerprint = "benchmark"

    def encode(self, texts: Any) -> Vectors:
        """(n, 384) float32, unit rows."""
        rows = np.stack([np.random.default_rng(len(text)).normal(size=DIM) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def main(edits: int = 100_000) -> None:
    """Print one JSON line a measurement."""
    with TemporaryDirectory() as folder:
        with Journal.open(Path(folder) / "edits.db", **MADE_FOR) as journal:
            fill(journal, list(of_tenant(0, OWN)))
            print(json.dumps({"others": 0} | lookups(built(journal))))
            for tenant in range(1, TENANTS + 1):
                fill(journal, list(of_tenant(tenant, edits // TENANTS)))
            start = time.perf_counter()
            router = built(journal)
            opened = time.perf_counter() - start
            print(json.dumps({"others": edits} | lookups(router) | {"open s": round(opened, 2)}))
        print(json.dumps(heard(Path(folder) / "heard.db")))


def of_tenant(tenant: int, n: int) -> Iterator[Edit]:
    """Every tenant corrects the same facts."""
    for i in range(n):
        prompt = f"Who runs the company Zork{i}?"
        yield Edit(prompt, f"T{tenant}", f"Zork{i}", tenant=f"tenant {tenant}")


def fill(journal: Journal, edits: list[Edit]) -> None:
    """Record them in one transaction."""
    drawn = np.random.default_rng(journal.epoch).normal(size=(len(edits), DIM))
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    journal.record(edits, Hint("serac", tuple("text" for _ in edits)), vectors)


def built(journal: Journal) -> Router:
    """As a model opens it."""
    return Router.build(journal, Drawn(), CosineScope())


def lookups(router: Router) -> dict[str, float]:
    """Milliseconds a route of the first tenant."""
    asker, times = Audience(tenant="tenant 0"), []
    for i in range(ASKED):
        start = time.perf_counter()
        (route,) = router.route([f"And who runs Zork{i % OWN} now?"], asker)
        times.append(1000 * (time.perf_counter() - start))
        assert all(hit.edit.tenant == "tenant 0" for hit in (*route.hits, *route.near))
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50 ms": round(float(p50), 3), "p99 ms": round(float(p99), 3)}


def heard(path: Path) -> dict[str, float]:
    """Milliseconds from another process's commit to the route that knows it, asking every 1 ms."""
    with Journal.open(path, **MADE_FOR) as journal:
        router, times, version = built(journal), [], journal.data_version()
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdin
            assert writer.stdout
            for i in range(HEARD):
                writer.stdin.write(f"question {i}\n")
                writer.stdin.flush()
                while not router.route([f"question {i}"])[0].hits:
                    if version != (version := journal.data_version()):
                        router.sync(journal)
                    time.sleep(0.001)
                times.append(1000 * (time.time() - float(writer.stdout.readline())))
            writer.stdin.close()
        start = time.perf_counter()
        for _ in range(1000):
            journal.data_version()
        look = time.perf_counter() - start
    worst = round(max(times), 1)
    return {"heard, median ms": round(float(np.median(times)), 1), "worst ms": worst} | {
        "a look at data_version, us": round(1000 * look, 1)
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
