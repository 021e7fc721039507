"""How many contradicting edits are found before the write, and how many false alarms there are.

    python tests/benchmarks/conflicts.py [DATA]

The first edits of a set are live, each second edit is looked at: the share found at odds with its
own first edit, by kind, and the share found at odds with any other. ConflictEdit: with the
relation named, and with prompts only, where the subject is told. zsRE: rephrasings with another
target (to be found), probes of another relation of the same subject (false alarms). CounterFact:
each edit against all that are live.

The table of relations was written with these ConflictEdit relations in view (one of them spelt
"creater" there), and the cosine of a near-duplicate was chosen on the zsRE rows of KnowEdit: those
figures are of the data they were made with. zsRE of MEND and the Wikidata counterfacts were not
looked at.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lifelong import conflicts
from lifelong.encoder import Encoder, load_encoder
from lifelong.router import Router
from lifelong.scope import scope_for
from store import Edit, Journal

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data"

Pair = tuple[Edit, Edit]


def main(data: Path = DATA) -> None:
    """Print one JSON line a set."""
    encoder = load_encoder("minilm")
    for name in ("coverage", "reverse", "composite"):
        cases = list(lines(data / f"conflicts/{name}-edit-dev.jsonl"))
        for named in (True, False):
            pairs = [triples(case, named) for case in cases]
            show(f"{name}, {'relation named' if named else 'prompts only'}", encoder, pairs)
    records = list(lines(data / "zsre/knowedit-dev.jsonl"))
    show("zsRE, rephrased", encoder, list(rephrased(records)))
    show("zsRE, another relation of the subject", encoder, list(specific(records)))
    show(
        "Wikidata counterfacts, another relation of the subject",
        encoder,
        list(specific(list(lines(data / "knowedit/wiki-counterfact-dev.jsonl")))),
    )
    show(
        "zsRE (MEND), rephrased",
        encoder,
        [
            (Edit(r["src"], r["alt"], r["subject"]), Edit(r["rephrase"], "other", r["subject"]))
            for r in lines(data / "zsre/mend-eval-portability-dev.jsonl")
        ],
    )
    facts = [
        Edit(r["prompt"], r["target_new"], r["subject"])
        for r in lines(data / "counterfact/edit-dev.jsonl")
    ][:2_000]
    show("CounterFact", encoder, [(edit, edit) for edit in facts])


def show(name: str, encoder: Encoder, pairs: Sequence[Pair]) -> None:
    """Print which second edits are found at odds, with their own first and with others'."""
    journal = Journal.open(":memory:", model="", encoder=encoder.fingerprint)
    router = Router(journal, encoder, scope_for(encoder))
    journal.record([first for first, _ in pairs], None, router.encode([a for a, _ in pairs]))
    router.sync(journal)
    own, others = Counter[str](), Counter[str]()
    vectors = router.encode([second for _, second in pairs])
    for id, (_, edit) in enumerate(pairs, 1):
        found = conflicts.find(router, edit, vectors[id - 1])
        own.update(c.kind for c in found if c.edit.id == id)
        others.update({c.kind for c in found if c.edit.id != id})
    shown = {"set": name, "pairs": len(pairs), "own": share(own, pairs)}
    print(json.dumps(shown | {"others": share(others, pairs)}))


def share(kinds: Counter[str], pairs: Sequence[Pair]) -> dict[str, float]:
    """Of the pairs, by kind."""
    return {kind: round(count / len(pairs), 4) for kind, count in sorted(kinds.items())}


def triples(case: dict[str, Any], named: bool) -> Pair:
    """The two edits of a ConflictEdit case."""
    first, second = (
        Edit(
            edit["relation"]["query"].format(edit["subject"]["label"]),
            edit["new_object"]["label"],
            edit["subject"]["label"],
            edit["relation"]["label"] if named else None,
        )
        for edit in case["edits"]
    )
    return first, second


def rephrased(records: Sequence[dict[str, Any]]) -> Iterator[Pair]:
    """An edit and its rephrasing."""
    for record in records:
        subject, target = record["subject"], record["target_new"]
        if "rephrase_prompt" in record:
            other = Edit(record["rephrase_prompt"], "something else", subject)
            yield Edit(record["prompt"], target, subject), other


def specific(records: Sequence[dict[str, Any]]) -> Iterator[Pair]:
    """An edit and another relation of its subject."""
    for record in records:
        subject, target = record["subject"], record["target_new"]
        for probe in record["locality"].get("Relation_Specificity", [])[:1]:
            other = Edit(probe["prompt"], "something else", subject)
            yield Edit(record["prompt"], target, subject), other


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSONL file."""
    yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
