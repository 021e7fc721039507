"""Tiny vectors, one-line edits, a later release."""

import numpy as np
from sqlite_utils.migrations import Migrations

from store import Edit, Hint, Journal, schema

DIM = 8


def unit(*seeds: int) -> np.ndarray:
    """One unit vector per seed, (n, DIM) float32."""
    rows = np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def say(journal: Journal, target: str, *over: int, prompt: str = "Who runs Acme?") -> Edit:
    """Record one live edit that supersedes the edits `over`."""
    (edit,) = journal.record(
        [Edit(prompt, target, subject="Acme")],
        Hint("serac", (f"{prompt} {target}",)),
        unit(len(target)),
        supersedes={0: over},
    )
    return edit


def next_release() -> Migrations:
    """The schema of a version of this package that has one more step."""
    steps = Migrations("lifelong")
    steps._migrations = [*schema.migrations._migrations]
    steps(name="m999_next")(lambda db: db.execute("CREATE TABLE extra (id INTEGER) STRICT"))
    return steps
