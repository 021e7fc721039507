"""What GRACE costs while a reply is decoded, and what another edit costs behind many.

    python -m tests.benchmarks.side_pace STORE

STORE was made with SmolLM2, by `lifelong eval --method grace --out DIR` (DIR/grace.db), say; it is
copied, not changed. Prints the ratio of the time for each further token, and of that for the first,
between the edited model and the bare one, in turn: for a prompt in scope of the last edit and for
one that is in scope of none. Then seconds of processors for the same edits on the copy and on an
empty store, in turn, by the clock, too.
"""

import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from lifelong import EditableModel
from lifelong.evaluate.pace import pace
from lifelong.lm import LM
from lifelong.prompt import Prompt
from store import Journal

APART = "The tallest mountain of Europe is"
TOWNS = (
    *("Velmora", "Ostrik", "Tannholm", "Quellingen", "Brasova", "Ildeny"),
    *("Marrowgate", "Sunnbruck", "Pellago", "Korvath", "Dunmere", "Zelidar"),
)


def main() -> None:
    """Print the ratios."""
    with TemporaryDirectory() as folder:
        store = Path(folder) / "copy.db"
        with Journal.read(sys.argv[1]) as journal:
            journal.backup(store)
        with (
            EditableModel.from_pretrained("smollm2-135m", store=store) as model,
            EditableModel.from_pretrained("smollm2-135m", store=":memory:") as empty,
        ):
            turns(model)
            edits(model, empty)


def turns(model: EditableModel) -> None:
    """What a reply costs, edited and bare."""
    live, lm = model.list("live"), LM.of(model, model.tokenizer)
    print(f"{len(live)} live edits, {torch.get_num_threads()} threads")
    bare = model.view(edits=False).generate
    for name, text in (("in scope", live[-1].prompt), ("out of scope", APART)):
        assert bool(model.explain(text).hits) == (name == "in scope")
        found = pace(lm, model.generate, bare, Prompt(text))
        each, first = (found[k]["value"] / found[k]["base"] for k in ("token_ms", "prefill_ms"))
        print(f"{name}: a further token {each:.3f}, the first {first:.3f} (medians of 7 pairs)")


def edits(model: EditableModel, empty: EditableModel) -> None:
    """What an edit costs behind many, and as one of the first."""
    pairs = [
        [taken(one, f"The mayor of {town} is", f"{town[:3]}o Castellan") for one in (model, empty)]
        for town in TOWNS
    ][1:]  # in the first, caches fill
    for name, place in (("processors", 0), ("clock", 1)):
        many, few = ([pair[which][place] for pair in pairs] for which in (0, 1))
        ratio = median(a / b for a, b in zip(many, few, strict=True))
        print(
            f"an edit, {name}: {median(many):.2f} s, in an empty store {median(few):.2f} s,",
            end=" ",
        )
        print(f"{ratio:.2f} times (medians of {len(pairs)} pairs)")


def taken(model: EditableModel, prompt: str, target: str) -> tuple[float, float]:
    """Seconds of processors and by the clock for one edit."""
    used, clock = time.process_time(), time.perf_counter()
    model.edit(prompt, target, method="grace")
    return time.process_time() - used, time.perf_counter() - clock


if __name__ == "__main__":
    main()
