"""How many contradicting edits are found before the write, and how many false alarms there are.

    python tests/benchmarks/conflicts.py [DATA]

Per set of ConflictEdit: the share of pairs whose second edit is found at odds with the first, by
kind; with the relation named, and with prompts only. False alarms, by kind: over pairs of the same
sets that do not contradict each other (the second edits of different cases against each other's
first), over pairs of one subject and two relations, and over edits of CounterFact, each against all
before it that name other subjects or other prompts.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lifelong import conflicts
from lifelong.encoder import Encoder, Vectors, load_encoder
from lifelong.fact import facts
from lifelong.router import Router
from lifelong.scope import scope_for
from lifelong.subject import extract
from store import Edit, Journal

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data"

Pair = tuple[Edit, Edit]


def main(data: Path = DATA) -> None:
    """Print one JSON line a set."""
    encoder = load_encoder("minilm")
    for name in ("coverage", "reverse", "composite"):
        cases = list(read(data / f"conflicts/{name}-edit-dev.jsonl"))
        for named in (True, False):
            pairs = [(edit_of(a, named), edit_of(b, named)) for a, b in cases]
            apart = [(a, b) for (a, _), (_, b) in zip(pairs, pairs[1:], strict=False)]
            show(f"{name}, {'relation named' if named else 'prompts only'}", encoder, pairs)
            show(f"{name}, {'relation named' if named else 'prompts only'}, apart", encoder, apart)
    siblings = list(of_one_subject(read(data / "conflicts/reverse-edit-dev.jsonl")))
    show("one subject, two relations, prompts only", encoder, siblings)
    show("counterfact, two subjects", encoder, list(of_counterfact(data)))
    show("pararel, same fact in other words", encoder, list(of_pararel(data, same=True)))
    show("pararel, one subject, another relation", encoder, list(of_pararel(data, same=False)))


def show(name: str, encoder: Encoder, pairs: Sequence[Pair]) -> None:
    """The share of pairs whose second edit is found at odds with the first, by kind."""
    kinds = Counter(kind for pair in pairs for kind in found(encoder, *pair))
    shares = {kind: round(count / len(pairs), 3) for kind, count in kinds.items()}
    print(
        json.dumps({"set": name, "pairs": len(pairs), "found": shares, "all": sum(shares.values())})
    )
