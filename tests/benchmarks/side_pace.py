"""What GRACE costs while a reply is decoded: the edited model and the bare one, in turn.

    python tests/benchmarks/side_pace.py STORE

STORE was made with SmolLM2, by `lifelong eval --method grace --out DIR` (DIR/grace.db), say. Prints
the ratio of the time for each further token, and of that for the first, for a prompt in scope of
its last edit and for one that is in scope of none.
"""

import sys

import torch

from lifelong import EditableModel
from lifelong.evaluate.pace import pace
from lifelong.lm import LM
from lifelong.prompt import Prompt

APART = "The tallest mountain of Europe is"


def main() -> None:
    """Print the ratios."""
    with EditableModel.from_pretrained("smollm2-135m", store=sys.argv[1]) as model:
        live, lm = model.list("live"), LM.of(model, model.tokenizer)
        print(f"{len(live)} live edits, {torch.get_num_threads()} threads")
        bare = model.view(edits=False).generate
        for name, text in (("in scope", live[-1].prompt), ("out of scope", APART)):
            assert bool(model.explain(text).hits) == (name == "in scope")
            found = pace(lm, model.generate, bare, Prompt(text))
            each, first = (found[k]["value"] / found[k]["base"] for k in ("token_ms", "prefill_ms"))
            print(f"{name}: a further token {each:.3f}, the first {first:.3f} (medians of 7 pairs)")


if __name__ == "__main__":
    main()
