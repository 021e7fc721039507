"""What an edit costs beside its encoding: bulk import, one durable edit, one undo; one run, ratios.

    python tests/benchmarks/import_rate.py [--edits 1000] [--data ../shared/data]

No two prompts read alike to the encoder, so that it remembers none. The same ones go through the
bare encoder and, in rounds that alternate, through `edit_many` in batches as `lifelong import`
makes them. Then single edits are made, each text encoded bare as well. Milliseconds are medians.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from lifelong import EditableModel
from lifelong.cli.feed import BATCH
from lifelong.encoder import load_encoder
from lifelong.router import scope_text
from lifelong.subject import extract
from store import Edit

DATA = Path(__file__).parents[2] / "../shared/data"
PROMPTS = {
    "zsre/mend-train-1k.jsonl": "src",
    "zsre/knowedit-dev.jsonl": "prompt",
    "fever/symmetric-dev.jsonl": "claim",
}
ROUNDS = 5
SINGLES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=1_000)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    said = edits(options.data)
    singles, bulk = said[:SINGLES], said[SINGLES:][: options.edits]
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


def edits(data: Path) -> list[Edit]:
    """One edit for each text that the encoder may read."""
    found: dict[str, Edit] = {}
    for name, field in PROMPTS.items():
        for line in (data / name).read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            prompt = record[field]
            edit = Edit(prompt, "Jane Roe", subject=record.get("subject") or extract(prompt))
            found.setdefault(scope_text(edit), edit)
    return list(found.values())


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
