"""Edits go into the weights batch after batch: what is left of the first when the last is in?

    python -m tests.benchmarks.consolidations DATA DIR [--edits 1000] [--batch 100]
        [--methods idle-neurons,alphaedit,memit] [--undo 5]

DATA holds `counterfact/edit-dev.jsonl` and `wikitext-2/test.txt`. For every method a store in DIR
takes the edits into memory, then consolidates them, the oldest first, without a gate: what the
gate would say is what is measured here. Scored after all of them, from the weights alone
(completion, free greedy generation): every batch's own prompts, the first token behind the
records' locality prompts, perplexity. Then the batch `--undo` is undone, and the weights must be
those of a freshly loaded model on the same store, to the last bit; and after its redo those from
before. The store is the progress: started again, it goes on where it was. Prints JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lifelong import EditableModel, Policy
from lifelong.match import says
from store import Edit
from tests.benchmarks.memit import first_tokens, perplexity, replies, share

MODEL = "smollm2-135m"


def main() -> None:
    """Teach, consolidate, ask, undo, print."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("data", type=Path)
    asked.add_argument("dir", type=Path)
    asked.add_argument("--edits", type=int, default=1000)
    asked.add_argument("--batch", type=int, default=100)
    asked.add_argument("--methods", default="idle-neurons,alphaedit,memit")
    asked.add_argument("--undo", type=int, default=5, help="which batch, counted from 1")
    asked.add_argument("--windows", type=int, default=20, help="of running text, for perplexity")
    args = asked.parse_args()
    args.dir.mkdir(parents=True, exist_ok=True)
    rows = records(args.data / "counterfact/edit-dev.jsonl", args.edits)
    text = (args.data / "wikitext-2/test.txt").read_text()
    found = {name: kept(args.dir / f"{name}.json", name, rows, text, args) for name in _names(args)}
    print(json.dumps(found, indent=2))


def _names(args: Any) -> list[str]:
    return str(args.methods).split(",")


def records(path: Path, most: int) -> list[dict[str, Any]]:
    """The first records, one a subject, whose prompt holds it."""
    seen: dict[str, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row["subject"] in row["prompt"]:
            seen.setdefault(row["subject"], row)
    return list(seen.values())[:most]


def kept(path: Path, method: str, rows: Sequence[dict[str, Any]], text: str, args: Any) -> Any:
    """The figures of a method, from the file or measured into it."""
    if not path.exists():
        store = path.with_suffix(".db")
        with EditableModel.from_pretrained(MODEL, store=store) as model:
            seconds = consolidated(model, method, rows, args.batch)
            found = figures(model, rows, text, args) | seconds
            found |= undone(model, store, args)
        path.write_text(json.dumps(found))
    return json.loads(path.read_text())


def consolidated(
    model: EditableModel, method: str, rows: Sequence[dict[str, Any]], batch: int
) -> dict[str, Any]:
    """Bring all edits into the weights; seconds for those that this run brought."""
    if not model.list():
        model.edit_many([Edit(r["prompt"], r["target_new"], subject=r["subject"]) for r in rows])
    brought, began = 0, time.perf_counter()
    while done := model.consolidate(Policy(most=batch), method=method, gate=None).edits:
        brought += len(done)
        inside = len(model._session.router.in_weights)
        pace = (time.perf_counter() - began) / brought
        tell(f"{method}: {inside}/{len(rows)}, {pace:.2f} s an edit, ETA", pace, len(rows) - inside)
    return (
        {"seconds_per_edit": round((time.perf_counter() - began) / brought, 2)} if brought else {}
    )


def tell(what: str, pace: float, left: int) -> None:
    """Progress, on stderr."""
    print(f"{what} {pace * left / 60:.0f} min", file=sys.stderr, flush=True)


def figures(
    model: EditableModel, rows: Sequence[dict[str, Any]], text: str, args: Any
) -> dict[str, Any]:
    """What the weights say after all edits."""
    lm = model._session.lm
    near = [row["locality_prompt"] for row in rows]
    said = replies(lm, [row["prompt"] for row in rows])
    right = [
        says(reply, row["target_new"], row["ground_truth"])
        for reply, row in zip(said, rows, strict=True)
    ]
    after = [token for batch in first_tokens(lm, near) for token in batch]
    surprised = perplexity(lm, text, args.windows)
    with model.disable_edits():
        before = [token for batch in first_tokens(lm, near) for token in batch]
        usual = perplexity(lm, text, args.windows)
    batches = [right[i : i + args.batch] for i in range(0, len(right), args.batch)]
    return {
        "edits": len(rows),
        "batch": args.batch,
        "threads": torch.get_num_threads(),
        "efficacy": share(right),
        "by_batch_oldest_first": [share(batch) for batch in batches],
        "locality_first_token": share(a == b for a, b in zip(after, before, strict=True)),
        "perplexity_ratio": round(surprised / usual, 4),
    }


def undone(model: EditableModel, store: Path, args: Any) -> dict[str, bool]:
    """Undo one batch and redo it: are the weights what a fresh build has?"""
    whole = bits(model)
    ids = [edit.id for edit in model.list()][(args.undo - 1) * args.batch : args.undo * args.batch]
    for id in ids:
        model.undo(id)
    with EditableModel.from_pretrained(MODEL, store=store) as fresh:
        without = same(bits(fresh), bits(model))
    moved = not same(whole, bits(model))
    for id in ids:
        model.redo(id)
    return {
        "undo_changes_the_weights": moved,
        "undo_is_a_fresh_build_without_it": without,
        "redo_is_as_before": same(whole, bits(model)),
    }


def bits(model: EditableModel) -> dict[str, torch.Tensor]:
    """Every tensor."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """To the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


if __name__ == "__main__":
    main()
