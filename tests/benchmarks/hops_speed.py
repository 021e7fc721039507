"""What hops cost: the time to decide where a question leads, with them less without, in pairs.

    python -m tests.benchmarks.hops_speed mquake-2002-dev.jsonl [--asked N] [--first N]

All edits of all cases are live, without facts and with them. Each question is asked once of a model
with hops and once of one without, in turns, on the same store: composed questions, single hops that
edits answer, and everyday sentences. Milliseconds by the clock; run it on an idle machine.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated

import numpy as np
from typer import Argument, Option, run

from lifelong.evaluate.datasets import load
from lifelong.evaluate.multihop import composed, fact_base, wordings
from lifelong.ordinary import ORDINARY
from lifelong.runtime import EditableModel
from tests.benchmarks.multihop import taught


def main(
    data: Annotated[Path, Argument(help="mquake-2002-dev.jsonl, or another file of its form.")],
    first: Annotated[int | None, Option(help="Cases of the file; else all.")] = None,
    asked: Annotated[int, Option(help="Questions of each sort.")] = 100,
) -> None:
    """Print the figures as JSON."""
    cases = composed(load(data, limit=first).cases)
    some = Random(0)
    sorts = {
        "composed": [text for case in cases for text in wordings(case)],
        "single": [p.prompt for case in cases for p in case.probes if p.kind == "paraphrase"],
        "ordinary": list(ORDINARY),
    }
    found = {}
    with TemporaryDirectory() as folder:
        store = Path(folder) / "lifelong.db"
        with taught(cases, store, multihop=False) as plain, taught(cases, store) as hops:
            for facts in ([], fact_base(cases)):
                hops.add_facts(facts)
                for sort, texts in sorts.items():
                    sample = some.sample(texts, min(asked, len(texts)))
                    found[f"{sort}, {len(facts)} facts"] = compared(sample, plain, hops)
    print(json.dumps(found, indent=1))


def compared(texts: Sequence[str], plain: EditableModel, hops: EditableModel) -> dict[str, float]:
    """Milliseconds a question: without hops, and what comes on top with them."""
    for model in (plain, hops):
        model.explain("Who was here before?")  # whatever is read once
    taken = np.array([[timed(plain, text), timed(hops, text)] for text in texts])
    more = taken[:, 1] - taken[:, 0]
    figures = {
        "without": np.median(taken[:, 0]),
        "more, median": np.median(more),
        "more, mean": more.mean(),
        "more, p95": np.quantile(more, 0.95),
    }
    return {name: round(float(ms), 1) for name, ms in figures.items()}


def timed(model: EditableModel, text: str) -> float:
    began = perf_counter()
    model.explain(text)
    return 1000 * (perf_counter() - began)


if __name__ == "__main__":
    run(main)
