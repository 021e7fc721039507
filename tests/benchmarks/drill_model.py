"""The part of the crash drill that kills a tiny model which takes corrections.

A forked child edits, undoes and redoes through `EditableModel` and acknowledges what it returned
from. It is killed at a random instant, or just before or after a stage of the runtime. Then the
store must be whole, and a model opened on it must route every acknowledged correction as it stands.
"""

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from lifelong import EditableModel, policy
from lifelong.cli.feed import verdicts
from lifelong.methods.serac import Serac
from lifelong.router import Router
from store import Edit, Journal, backup, schema
from tests.benchmarks import children
from tests.benchmarks.children import Acks
from tests.conftest import HashEncoder, tiny_lm
from tests.store.samples import later_release

# Stages of an edit, in order. A child dies just before the Nth call, or just after it.
# Whoever adds a stage adds it here.
STAGES: list[tuple[Any, str]] = [
    (backup, "save"),  # once, before a migration
    (policy, "admit"),
    (Router, "sync"),
    (Router, "visible"),
    (Serac, "propose"),
    (Router, "encode"),
    (Journal, "record"),
    (Journal, "retire"),
    (Journal, "restore"),
    (Journal, "note"),
]
ANY_TIME = "at a random instant"
MIGRATING = "store.backup.save"
WHEN = ("before", "after")
STEPS = 40  # a child that is not killed stops by itself
SUBJECTS = ("Acme", "Bolt", "Cog")


def drill(folder: Path, chance: random.Random, kills: int) -> dict[str, Any]:
    """Kill so many children; what became of them. Models live in children only, see `run`."""
    path = folder / "model.db"
    points = [ANY_TIME, *(f"{when} {name(stage)}" for stage in STAGES for when in WHEN)]
    acks: Acks = {}
    outcomes: Counter[str] = Counter()
    release = 0
    for turn in range(kills):
        point = points[turn % len(points)]
        release += MIGRATING in point
        schema.migrations = later_release(release)
        killed, said = run_child(path, point, chance)
        acks |= said
        outcomes[f"killed {point}" if killed else "not reached"] += 1
        killed, _ = children.run(partial(check, path, acks, chance.random()))
        assert not killed
    return {"acknowledged": len(acks), "lost": 0, "outcomes": dict(sorted(outcomes.items()))}


def opened(path: Path) -> EditableModel:
    lm = tiny_lm()
    return EditableModel(lm.model, lm.tokenizer, store=path, encoder=HashEncoder())


def run_child(path: Path, point: str, chance: random.Random) -> tuple[bool, Acks]:
    """A model that is corrected and killed at `point`: was it, and what had it acknowledged?"""
    seed, nth = chance.random(), 1 if MIGRATING in point else chance.randint(1, 8)

    def body(outlet: int) -> None:
        arm(point, nth)
        with opened(path) as model:
            work(model, path, random.Random(seed), outlet)

    return children.run(body, kill_after=chance.uniform(0, 0.6) if point == ANY_TIME else None)


def arm(point: str, nth: int) -> None:
    """From here on this process dies just before, or after, the Nth call of a stage."""
    for owner, stage in STAGES:
        if point.endswith(name((owner, stage))):
            setattr(owner, stage, deadly(getattr(owner, stage), nth, point.startswith("after")))


def name(stage: tuple[Any, str]) -> str:
    return f"{stage[0].__name__}.{stage[1]}"


def deadly(stage: Callable[..., Any], nth: int, after: bool) -> Callable[..., Any]:
    calls = count(1)

    def called(*args: Any, **options: Any) -> Any:
        last = next(calls) == nth
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = stage(*args, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return called


def work(model: EditableModel, path: Path, chance: random.Random, outlet: int) -> None:
    """Steps of every kind, each acknowledged once it has returned."""
    with Journal.read(path) as journal:
        for _ in range(STEPS):
            chance.choice(WORK)(model, chance)
            epoch = journal.epoch
            children.acknowledge(outlet, epoch, journal.chain_hash(epoch))


def edit(model: EditableModel, chance: random.Random) -> None:
    model.edit(f"Who runs {chance.choice(SUBJECTS)}?", f"Jane {chance.randrange(10**6)}")


def import_(model: EditableModel, chance: random.Random) -> None:
    target = f"Rome {chance.randrange(10**6)}"
    lines = [json.dumps({"prompt": f"Where is {s}?", "target": target}) for s in SUBJECTS]
    assert all(line.id for _, line in verdicts(model, [x.encode() for x in lines], "serac", 3))


def undo(model: EditableModel, chance: random.Random) -> None:
    for one in one_of(model.list("live"), chance):
        model.undo(one.id)


def redo(model: EditableModel, chance: random.Random) -> None:
    for one in one_of(model.list("retired"), chance):
        model.redo(one.id)


def take_reading(model: EditableModel, chance: random.Random) -> None:
    model.check(1)


def one_of(edits: list[Edit], chance: random.Random) -> list[Edit]:
    """At most one of them, as a list."""
    return chance.sample(edits, min(1, len(edits)))


WORK: list[Callable[[EditableModel, random.Random], None]] = [
    edit,
    edit,
    import_,
    undo,
    redo,
    take_reading,
]


def check(path: Path, acks: Acks, seed: float, outlet: int) -> None:
    """Nothing acknowledged is lost, and a model opened here does what the journal says."""
    with opened(path) as model, Journal.read(path) as journal:
        epoch = journal.verify()
        assert all(at <= epoch for at in acks), f"{max(acks)} was acknowledged, {epoch} is there"
        assert all(journal.chain_hash(at) == sha for at, sha in acks.items())
        live = model.list("live")
        for one in live:
            assert [hit.id for hit in model.explain(one.prompt).hits] == [one.id], one
        for fallen in model.list("retired"):
            assert fallen.id not in [hit.id for hit in model.explain(fallen.prompt).hits], fallen
        for one in one_of(live, random.Random(seed)):
            assert one.target in model.chat(one.prompt).text, one
