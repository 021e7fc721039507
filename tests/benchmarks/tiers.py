"""Memory, weights, or both: the same few edits in every way there is, in one table.

    python -m tests.benchmarks.tiers DATA DIR [--edits 20] [--rows serac,memit,...]

DATA holds `counterfact/full-fields-dev.jsonl` and `wikitext-2/test.txt`. A row is a method that
took all edits in one batch, or `both`: taken by `serac`, the older half consolidated without a
gate, by the method that does unless another is named. Completion, free greedy generation, through
memory and weights as a user gets them: own prompts, paraphrases, the first token behind the
neighbourhood prompts against the base model's; perplexity is that of `forward`, which memory does
not touch. Costs are processor seconds: of an edit, and of an answer to an edit's own prompt (12 new
tokens; median of ten). A row that was measured is kept in DIR. Prints the table.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from lifelong import LM, EditableModel, Policy
from lifelong.match import says
from lifelong.prompt import Prompt, pad_left
from tests.benchmarks.memit import (
    NEW_TOKENS,
    batches,
    cost,
    edit_of,
    perplexity,
    records,
    replies,
    share,
)  # fmt: skip

ROWS = (
    *("serac", "memit", "both", "rome", "pmet", "alphaedit", "memit-csk", "ultraedit"),
    *("ft-constrained", "knowledge-neurons", "idle-neurons"),
)
COLUMNS = ("accuracy", "generality", "first_token", "perplexity", "edit_s", "answer_s")
TIMED = 10  # answers


def main() -> None:
    """Measure what is missing, print all."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("data", type=Path)
    asked.add_argument("dir", type=Path)
    asked.add_argument("--edits", type=int, default=20)
    asked.add_argument("--rows", default=",".join(ROWS))
    asked.add_argument("--near", type=int, default=3, help="neighbourhood prompts of an edit")
    asked.add_argument("--windows", type=int, default=4, help="of running text, for perplexity")
    args = asked.parse_args()
    args.dir.mkdir(parents=True, exist_ok=True)
    rows = records(args.data / "counterfact/full-fields-dev.jsonl")[: args.edits]
    text = (args.data / "wikitext-2/test.txt").read_text()
    print(f"{'':18}", *(f"{column:>11}" for column in COLUMNS))
    for name in str(args.rows).split(","):
        path = args.dir / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(measured(name, rows, text, args)))
        found = json.loads(path.read_text())
        print(f"{name:18}", *(f"{found[column]:>11}" for column in COLUMNS), flush=True)


def measured(name: str, rows: Sequence[dict[str, Any]], text: str, args: Any) -> dict[str, float]:
    """One row of the table."""
    edits, method = [edit_of(row) for row in rows], "serac" if name == "both" else name
    near = [prompt for row in rows for prompt in row["neighborhood_prompts"][: args.near]]
    with EditableModel.from_pretrained("smollm2-135m", store=":memory:") as model:
        lm = model._session.lm
        before, usual = begins(lm, near), perplexity(lm, text, args.windows)
        _, taken = cost(partial(model.edit_many, edits, method=method))
        if name == "both":
            settle = partial(model.consolidate, Policy(most=len(edits) // 2), gate=None)
            taken += cost(settle)[1]
        kept = share(a == b for a, b in zip(begins(lm, near), before, strict=True))
        answer = partial(model.complete, max_new_tokens=NEW_TOKENS)
        answers = [cost(partial(answer, edit.prompt))[1] for edit in edits[:TIMED]]
        own = [(edit.prompt, row) for edit, row in zip(edits, rows, strict=True)]
        return {
            "accuracy": right(lm, own),
            "generality": right(lm, [(p, row) for row in rows for p in row["paraphrase_prompts"]]),
            "first_token": kept,
            "perplexity": round(perplexity(lm, text, args.windows) / usual, 4),
            "edit_s": round(taken / len(edits), 3),
            "answer_s": round(median(answers), 3),
        }


def right(lm: LM, asked: Sequence[tuple[str, dict[str, Any]]]) -> float:
    """Per cent of the prompts at which the new answer is said and the old one is not."""
    answers = [row["requested_rewrite"] for _, row in asked]
    said = replies(lm, [prompt for prompt, _ in asked])
    return share(
        says(reply, answer["target_new"]["str"], answer["target_true"]["str"])
        for reply, answer in zip(said, answers, strict=True)
    )


def begins(lm: LM, prompts: Sequence[str]) -> list[int]:
    """The first token of the reply to each prompt."""
    first = []
    for batch in batches(prompts):
        ids, mask = pad_left(lm, [Prompt(p) for p in batch])
        out = lm.model.generate(ids, attention_mask=mask, max_new_tokens=1, do_sample=False)
        first += out[:, -1].tolist()
    return first


if __name__ == "__main__":
    main()
