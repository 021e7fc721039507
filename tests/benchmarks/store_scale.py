"""How the store behaves with many edits: commits, bulk import, open, lookup, memory.

    python tests/benchmarks/store_scale.py --edits 1000000 --router \\
        --prompts ../shared/data/counterfact/train.jsonl

The prompts are encoded by MiniLM, and their vectors perturbed until there are enough. Without them
the vectors are random. A query is a perturbed stored vector (cosine about 0.9). Opening
and looking up run in a fresh process, which reports its peak memory: once building the index, once
from its snapshot. With `--router` another opens the runtime's router, torch and all but no model,
and routes questions whose vectors are given. Prints JSON; milliseconds are p50 / p99.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from store import Edit, Hint, Journal, VectorIndex, open_index

BATCH = 1_000
TENANT = 1_000  # edits of one tenant
Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=100_000)
    parser.add_argument("--prompts", type=Path, metavar="FILE.jsonl")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--router", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure = measure_router if options.router else measure_index
        print(json.dumps(measure(options.child, options.queries)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lifelong.db"
        source = encoded(options.prompts) if options.prompts else random_vectors()
        figures = {"edits": options.edits, **measure_writing(path, options.edits, source)}
        child = [sys.executable, __file__, "--child", str(path), "--queries", str(options.queries)]
        for name in ("index built", "index from snapshot", *["router"] * options.router):
            row = [*child, "--router"] if name == "router" else child
            done = subprocess.run(row, check=True, stdout=subprocess.PIPE, text=True)
            figures[name] = json.loads(done.stdout)
    print(json.dumps(figures, indent=2))


def encoded(prompts: Path) -> np.ndarray:
    """The vector of each prompt, once."""
    from lifelong.encoder import load_encoder  # only here: the measured processes have no torch

    lines = prompts.read_text(encoding="utf-8").splitlines()
    return load_encoder("minilm").encode(sorted({json.loads(line)["prompt"] for line in lines}))


def random_vectors() -> np.ndarray:
    return unit(np.random.default_rng(2).standard_normal((20_000, 384), dtype=np.float32))


def measure_writing(path: Path, n: int, source: np.ndarray) -> Figures:
    rng = np.random.default_rng(0)
    with Journal.open(path, model="m", encoder="e") as journal:
        start = time.perf_counter()
        for first in range(0, n, BATCH):
            rows = perturbed(source[np.arange(first, first + BATCH) % len(source)], 0.7, rng)
            journal.record(*batch(first), rows)
        bulk = time.perf_counter() - start
        vectors = iter(perturbed(source[:200], 0.7, rng)[:, np.newaxis])
        one = Edit("Who runs Acme?", "Jane Roe", subject="Acme")
        hint = Hint("serac", ("Jane Roe",))
        commits = timed(lambda: journal.record([one], hint, next(vectors)), 200)
        ids = iter(journal.live_ids()[-200:])
        bare = timed(lambda: one_sync(path.with_name("sync")), 200)
        undos = timed(lambda: journal.retire(next(ids)), 200)
    return {
        "bulk edits per second": round(n / bulk),
        "one fsync of 4 kB ms": bare,
        "one commit ms": commits,
        "one undo ms": undos,
        "file GB": round(path.stat().st_size / 1e9, 2),
    }


def one_sync(path: Path) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(bytes(4096))
        os.fsync(file)


def batch(first: int) -> tuple[list[Edit], Hint]:
    numbers = range(first, first + BATCH)
    edits = [
        Edit(f"Who runs company {i}?", f"Jane Roe the {i}th", subject=f"company {i}")
        for i in numbers
    ]
    return edits, Hint("serac", tuple(edit.target for edit in edits))


def measure_index(path: Path, queries: int) -> Figures:
    """Open the index, then look up; recall is against an exact scan."""
    rng = np.random.default_rng(1)
    with Journal.read(path) as journal:
        start = time.perf_counter()
        index = open_index(journal, 384)
        seconds = time.perf_counter() - start
        ids = np.array(index.ids())
        asked = perturbed(index.vectors(rng.choice(ids, queries)), 0.5, rng)
        found: list[int] = []
        everyone = timed(each(asked, lambda q: found.append(index.search(q, 8)[0][0])), queries)
        theirs = rng.choice(ids, TENANT, replace=False).tolist()
        tenant = timed(each(asked, lambda q: index.search(q, 8, among=theirs)), queries)
        memory = peak_memory()
    return {
        "open s": round(seconds, 1),
        "lookup ms": everyone,
        "lookup among one tenant's 1,000 ms": tenant,
        "recall@1": float(np.mean(np.array(found) == exact(index, ids, asked))),
        **memory,
    }


class Given:
    """An encoder whose vectors are ready: no time is spent on encoding."""

    dim = 384
    fingerprint = "e"
    vectors: Iterator[np.ndarray]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, 384) float32, unit rows."""
        return np.stack([next(self.vectors) for _ in texts])


def measure_router(path: Path, queries: int) -> Figures:
    """Open the runtime's router and route; the share of questions that their own edit is near."""
    from lifelong.router import Router
    from lifelong.scope import CosineScope

    rng, imported = np.random.default_rng(1), peak_memory()
    with Journal.read(path) as journal:
        given = Given()
        start = time.perf_counter()
        router = Router.build(journal, given, CosineScope())
        seconds, opened = time.perf_counter() - start, peak_memory()
        asked = np.unique(rng.choice(len(router) - TENANT, queries) + 1)
        given.vectors = iter(perturbed(journal.vectors(asked.tolist())[1], 0.5, rng))
        near: list[bool] = []

        def route(id: int) -> None:
            (found,) = router.route([f"So tell me who runs company {id - 1} now."])
            near.append(id in {hit.id for hit in (*found.hits, *found.near)})

        routes = timed(each(asked, route), len(asked))
    return {
        "open s": round(seconds, 1),
        "route ms": routes,
        "its own edit is near": float(np.mean(near)),
        "GB of the imports": imported["heap GB"],
        "GB when opened": opened["heap GB"],
        **peak_memory(),
    }


def exact(index: VectorIndex, ids: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The nearest id to each query, by a scan in chunks."""
    best, score = np.zeros(len(asked), np.int64), np.full(len(asked), -np.inf, np.float32)
    for first in range(0, len(ids), 20_000):
        chunk = ids[first : first + 20_000]
        scores = asked @ index.vectors(chunk).T
        top = scores.max(axis=1)
        best = np.where(top > score, chunk[scores.argmax(axis=1)], best)
        score = np.maximum(top, score)
    return best


def each(values: np.ndarray, step: Callable[[np.ndarray], object]) -> Callable[[], object]:
    rest: Iterator[np.ndarray] = iter(values)
    return lambda: step(next(rest))


def timed(step: Callable[[], object], times: int) -> str:
    """p50 / p99 of `times` calls in milliseconds."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        step()
        took.append(1e3 * (time.perf_counter() - start))
    return f"{np.median(took):.2f} / {np.quantile(took, 0.99):.2f}"


def perturbed(rows: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(rows.shape, dtype=np.float32)
    return unit(rows + np.float32(amount / np.sqrt(rows.shape[1])) * noise)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def peak_memory() -> Figures:
    """Linux: the peak of all resident pages, and the present shares of heap and mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kb = {key: int(rest.split()[0]) for key, rest in (x.split(":", 1) for x in lines if "kB" in x)}
    names = {"peak GB": "VmHWM", "heap GB": "RssAnon", "mapped GB": "RssFile"}
    return {name: round(kb[key] / 1e6, 2) for name, key in names.items()}


if __name__ == "__main__":
    main()
