"""Random histories of edits on tiny models: are the weights always those of a fresh build?

    python -m tests.benchmarks.histories [--runs 300] [--seed 0]

A history is two edits and up to ten steps: edit, consolidate, release, undo, redo, reopen. After
every step a model that is opened anew on the same store must have the same weights, to the last
bit; at the end, with all edits back in memory, the base model's. Prints how many did.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

from lifelong import METHODS, EditableModel
from tests.conftest import HashEncoder, tiny_lm
from tests.test_consolidate import KINDS, follow
from tests.test_weights import Scribble


def main() -> None:
    """Follow the histories, print the result."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--runs", type=int, default=300)
    asked.add_argument("--seed", type=int, default=0)
    args = asked.parse_args()
    rng, began, equal, steps = random.Random(args.seed), perf_counter(), 0, Counter[str]()
    with patch.dict(METHODS, {"scribble": Scribble()}), tempfile.TemporaryDirectory() as folder:
        for run in range(args.runs):
            chosen = [(rng.choice(KINDS), rng.randrange(10)) for _ in range(rng.randint(2, 10))]
            steps.update(kind for kind, _ in chosen)
            equal += follow(chosen, partial(opened, Path(folder) / f"{run}.db"))
            left = (perf_counter() - began) / (run + 1) * (args.runs - run - 1)
            print(f"\r{run + 1}/{args.runs}, {left:.0f} s left ", end="", file=sys.stderr)
    print(f"\n{equal} of {args.runs} histories equal a fresh build after every step", dict(steps))


def opened(store: Path) -> EditableModel:
    """A tiny model on a store."""
    lm = tiny_lm("llama")
    return EditableModel(lm.model, lm.tokenizer, store=store, encoder=HashEncoder())


if __name__ == "__main__":
    main()
