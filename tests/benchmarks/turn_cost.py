"""What a turn that no edit is about costs with many edits live, against the bare model.

    python tests/benchmarks/turn_cost.py FILE.db --edits 1000000 [--pairs 12]

Makes FILE.db if it is not there (minutes for a million; time it alone afterwards). Questions and
their pairs take turns: 32 new tokens from the edited model, and from the same weights loaded apart.
`nobody` names no edited subject: the gate rules every edit out. `other relation` names one, so its
question is encoded and scored. Prints one JSON object.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from store_scale import BATCH, batch, random_vectors

from lifelong import EditableModel
from lifelong.encoder import load_encoder
from lifelong.lm import LM
from lifelong.models import load_model
from lifelong.prompt import chat_prompt, pad_left
from store import Journal

QUESTIONS = {
    "nobody": "Why is the sky blue during the day?",
    "other relation": "What colour are the walls of company {}?",
}
TOKENS = 32


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--edits", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=12)
    options = parser.parse_args()
    lm = LM.of(*load_model("smollm2-135m", progress=False))
    if not options.file.exists():
        fill(options.file, options.edits, lm)
    with Journal.read(options.file) as journal:
        live = len(journal.live_ids())
    began = time.perf_counter()
    with EditableModel.from_pretrained("smollm2-135m", store=options.file) as model:
        found: dict[str, Any] = {"edits": live, "open s": round(time.perf_counter() - began, 1)}
        for name, question in QUESTIONS.items():
            asked = [question.format(7 * pair + 3) for pair in range(options.pairs + 1)]
            assert not any(model.explain(text).hits for text in asked[-2:])
            pairs = [
                (seconds(model.generate, lm, text), seconds(lm.model.generate, lm, text))
                for text in asked
            ][1:]  # caches fill in the first
            ratios = [edited / bare for edited, bare in pairs]
            found[name] = {
                "ratio, median": round(median(ratios), 4),
                "quartiles": [round(q, 4) for q in np.quantile(ratios, [0.25, 0.75]).tolist()],
                "bare ms": round(1000 * median(bare for _, bare in pairs)),
                "pairs": len(pairs),
            }
    print(json.dumps(found | {"threads": torch.get_num_threads(), "cores": os.cpu_count()}))


def fill(path: Path, edits: int, lm: LM) -> None:
    """A store of `edits` facts about as many subjects; their vectors are random."""
    source = random_vectors()
    encoder = load_encoder("minilm").fingerprint
    with Journal.open(path, model=lm.fingerprint, encoder=encoder) as journal:
        for first in range(0, edits, BATCH):
            journal.record(*batch(first), source[np.arange(first, first + BATCH) % len(source)])


def seconds(generate: Callable[..., object], lm: LM, question: str) -> float:
    """Of one reply."""
    ids, mask = pad_left(lm, [chat_prompt(lm, [{"role": "user", "content": question}])])
    began = time.perf_counter()
    generate(
        ids,
        attention_mask=mask,
        max_new_tokens=TOKENS,
        min_new_tokens=TOKENS,
        do_sample=False,
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
