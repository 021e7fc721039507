"""The part of the crash drill that kills a tiny model while side parameters are learnt.

A forked child makes, undoes and redoes GRACE and T-Patcher edits and acknowledges each epoch with
a hash of the logits it answers with. It is killed at a random instant. Whoever opens the store then
must give the same logits for these epochs, to the last bit.
"""

import hashlib
import os
import random
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lifelong import METHODS, EditableModel
from lifelong.errors import NotLearnt
from lifelong.methods.grace import Grace
from lifelong.methods.t_patcher import TPatcher
from tests.benchmarks import children
from tests.benchmarks.children import Acks
from tests.conftest import HashEncoder, tiny_lm

# A tiny model learns no target: what is asked here is that the same comes again.
LENIENT = {
    "grace": Grace(layer=2, steps=3, most=torch.inf),
    "t-patcher": TPatcher(most=20, memory=0.0, steps=100, rate=0.1),
}
SUBJECTS = ("Acme", "Bolt", "Cog")
STEPS = 12  # a child that is not killed stops by itself
SECONDS = 6.0  # the latest kill


def drill(folder: Path, chance: random.Random, kills: int) -> dict[str, Any]:
    """Kill so many children; how many epochs were asked again. Models live in children only."""
    os.environ["LIFELONG_CACHE"] = str(folder / "cache")
    path, said, outcomes, again = folder / "side.db", Acks(), Counter[str](), 0
    for _ in range(kills):
        teach = partial(work, path, chance.random())
        killed, acks = children.run(teach, kill_after=chance.uniform(0, SECONDS))
        outcomes["killed" if killed else "done before"] += 1
        said |= acks
        asked = sorted({max(said), *chance.sample(sorted(said), min(3, len(said)))} if said else ())
        killed, found = children.run(partial(ask, path, asked))
        assert not killed
        assert found == {epoch: said[epoch] for epoch in asked}, "a restart answers otherwise"
        again += len(asked)
    outcome = dict(sorted(outcomes.items()))
    return {"acknowledged": len(said), "asked again, bitwise the same": again, "outcomes": outcome}


def opened(path: Path) -> EditableModel:
    lm, methods = tiny_lm(), {**METHODS, **LENIENT}
    return EditableModel(lm.model, lm.tokenizer, store=path, encoder=HashEncoder(), methods=methods)


def work(path: Path, seed: float, outlet: int) -> None:
    """Steps, each acknowledged with what is answered then."""
    chance = random.Random(seed)
    with opened(path) as model:
        for _ in range(STEPS):
            step(model, chance)
            children.acknowledge(outlet, model.epoch, logits(model, model.epoch))


def step(model: EditableModel, chance: random.Random) -> None:
    """An edit, mostly; or one is undone, or brought back."""
    for verb, status in ((model.undo, "live"), (model.redo, "retired")):
        if chance.random() < 0.25 and (edits := model.list(status)):
            verb(chance.choice(edits).id)
            return
    subject, target = chance.choice(SUBJECTS), f"J{chance.randrange(10**6)}"
    with suppress(NotLearnt):
        model.edit(
            f"Who runs {subject}?", target, subject=subject, method=chance.choice([*LENIENT])
        )


def ask(path: Path, epochs: list[int], outlet: int) -> None:
    """What is answered as of these epochs by who opens the store now."""
    with opened(path) as model:
        for epoch in epochs:
            children.acknowledge(outlet, epoch, logits(model, epoch))


def logits(model: EditableModel, epoch: int) -> str:
    """A hash of those of four greedy tokens behind a question about each subject."""
    found = hashlib.sha256()
    how: dict[str, Any] = {"return_dict_in_generate": True, "output_logits": True}
    for subject in SUBJECTS:
        inputs = model.tokenizer(f"Who runs {subject}?", return_tensors="pt")
        out = model.at(epoch).generate(**inputs, max_new_tokens=4, do_sample=False, **how)
        for one in out.logits:
            found.update(one.numpy().tobytes())
    return found.hexdigest()
