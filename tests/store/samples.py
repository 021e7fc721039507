"""Tiny vectors, one-line edits, a later release."""

import numpy as np
from sqlite_utils.migrations import Migrations

from store import Edit, Hint, Journal, schema

DIM = 8
RELEASED = schema.migrations._migrations


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


def later_release(steps: int = 1) -> Migrations:
    """The schema of a version of this package that has so many more steps."""
    later = Migrations("lifelong")
    later._migrations = [*RELEASED]
    for number in range(steps):
        later(name=f"m{900 + number}_extra")(
            lambda db, n=number: db.execute(f"CREATE TABLE extra{n} (id INTEGER) STRICT")
        )
    return later
