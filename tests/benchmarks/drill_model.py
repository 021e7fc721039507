"""The part of the crash drill that kills a tiny model which takes corrections.

A forked child edits, undoes and redoes through `EditableModel` and acknowledges what it returned
from. It is killed at a random instant, or just before or after a stage of the runtime. Then the
store must be whole, and a model opened on it must route every acknowledged correction as it stands.
"""

import json
import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from lifelong import EditableModel, policy
from lifelong.cli.feed import verdicts
from lifelong.methods.serac import Serac
from lifelong.router import Router
from store import Edit, Journal, backup, schema
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
Acks = dict[int, str]  # epoch -> hash of the chain there


def drill(folder: Path, chance: random.Random, kills: int) -> dict[str, Any]:
    """Kill so many children; what became of them."""
    path = folder / "model.db"
    lm = tiny_lm()
    points = [ANY_TIME, *(f"{when} {name(stage)}" for stage in STAGES for when in WHEN)]
    acks: Acks = {}
    outcomes: Counter[str] = Counter()

    def opened() -> EditableModel:
        return EditableModel(lm.model, lm.tokenizer, store=path, encoder=HashEncoder())

    with opened() as model:
        model.edit("Who runs Acme?", "Zoe")
        model.check(1)  # what is loaded late is loaded in every child
    release = 0
    for turn in range(kills):
        point = points[turn % len(points)]
        release += MIGRATING in point
        schema.migrations = later_release(release)
        died, said = run_child(opened, path, point, chance)
        acks |= said
        outcomes[f"killed {point}" if died else "not reached"] += 1
        with opened() as model:
            check(model, path, acks, chance)
    return {"acknowledged": len(acks), "lost": 0, "outcomes": dict(sorted(outcomes.items()))}


def run_child(
    opened: Callable[[], EditableModel], path: Path, point: str, chance: random.Random
) -> tuple[bool, Acks]:
    """Fork a model that is corrected, kill it at `point`; was it, and what had it acknowledged?"""
    inlet, outlet = os.pipe()
    seed, nth = chance.random(), 1 if MIGRATING in point else chance.randint(1, 8)
    child = os.fork()
    if child == 0:
        try:
            arm(point, nth)
            with opened() as model:
                work(model, path, random.Random(seed), outlet)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(outlet)
    if point == ANY_TIME:
        time.sleep(chance.uniform(0, 0.4))
        os.kill(child, signal.SIGKILL)
    with open(inlet, encoding="ascii") as told:
        lines = [line.split() for line in told if line.endswith("\n")]
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0, "a child failed, see above"
    return os.WIFSIGNALED(status), {int(epoch): sha for epoch, sha in lines}


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
            os.write(outlet, f"{epoch} {journal.chain_hash(epoch)}\n".encode())


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


def check(model: EditableModel, path: Path, acks: Acks, chance: random.Random) -> None:
    """Nothing acknowledged is lost, and the model does what the journal says."""
    with Journal.read(path) as journal:
        epoch = journal.verify()
        assert all(at <= epoch for at in acks), f"{max(acks)} was acknowledged, {epoch} is there"
        assert all(journal.chain_hash(at) == sha for at, sha in acks.items())
    live = model.list("live")
    for one in live:
        assert [hit.id for hit in model.explain(one.prompt).hits] == [one.id], one
    for fallen in model.list("retired"):
        assert fallen.id not in [hit.id for hit in model.explain(fallen.prompt).hits], fallen
    for one in one_of(live, chance):
        assert one.target in model.chat(one.prompt).text, one
