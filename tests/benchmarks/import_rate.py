"""What an edit costs beside its encoding: bulk import, one durable edit, one undo; one run, ratios.

    python tests/benchmarks/import_rate.py [--edits 2000] [--data ../shared/data/counterfact]

The same prompts go through the bare encoder and, in rounds that alternate, through `edit_many` in
batches as `lifelong import` makes them. Then single edits are made on the real model, each next to
a bare encoding of a text as long. Milliseconds are medians.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from lifelong import EditableModel
from lifelong.cli.feed import BATCH
from lifelong.encoder import load_encoder
from lifelong.router import scope_text
from store import Edit

DATA = Path(__file__).parents[2] / "../shared/data/counterfact"
ROUNDS = 5
SINGLES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=2_000)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    said = list(edits(options.data / "train.jsonl"))
    bulk, singles = said[: options.edits], said[options.edits : options.edits + SINGLES]
    with (
        tempfile.TemporaryDirectory() as folder,
        EditableModel.from_pretrained("smollm2-135m", store=Path(folder) / "edits.db") as model,
    ):
        bare = load_encoder("minilm", progress=False)
        share = len(bulk) // ROUNDS
        rounds = [bulk[start : start + share] for start in range(0, len(bulk), share)]
        encoded = imported = 0.0
        for some in rounds:
            encoded += seconds(lambda some=some: each(some, lambda b: encode(bare, b)))
            imported += seconds(lambda some=some: each(some, model.edit_many))
        alone = [seconds(lambda one=one: encode(bare, [one])) for one in singles]
        whole = [seconds(lambda one=one: model.edit_many([one])) for one in singles]
        ids = [edit.id for edit in model.list("live")[-SINGLES:]]
        undone = [seconds(lambda id=id: model.undo(id)) for id in ids]
    figures = {
        "edits": len(bulk),
        "encoder texts per s": round(len(bulk) / encoded),
        "import edits per s": round(len(bulk) / imported),
        "import / encoder": round(encoded / imported, 2),
        "one encoding ms": round(1e3 * median(alone), 1),
        "one edit ms": round(1e3 * median(whole), 1),
        "an edit adds to encoding ms": round(1e3 * (median(whole) - median(alone)), 1),
        "one undo ms": round(1e3 * median(undone), 1),
    }
    print(json.dumps(figures, indent=2))


def edits(path: Path) -> Iterator[Edit]:
    """One edit a prompt, each prompt once."""
    seen = set[str]()
    with open(path, encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["prompt"] not in seen:
                seen.add(record["prompt"])
                yield Edit(record["prompt"], record["target_new"], subject=record["subject"])


def encode(encoder: Any, some: Sequence[Edit]) -> None:
    encoder.encode([scope_text(edit) for edit in some])


def each(some: Sequence[Edit], step: Callable[[Sequence[Edit]], object]) -> None:
    for start in range(0, len(some), BATCH):
        step(some[start : start + BATCH])


def seconds(step: Callable[[], object]) -> float:
    start = perf_counter()
    step()
    return perf_counter() - start


if __name__ == "__main__":
    main()
