"""What the scope classifier lets through, at the threshold in use and along the curve.

    python tests/benchmarks/scope_curve.py [DATA]

Pairs of (edit's prompt, other prompt) with the edit's subject in both, subject masked; `same` asks
for the same relation in other words, `other` for another relation of the same subject. No subject
of these files is in the adapter's training data. Prints, per set: AUROC, the share of `same` that
fires, the share of `other` that fires, and the share of `same` at 1, 3 and 5 % of `other`.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from lifelong.encoder import load_encoder
from lifelong.router import FIRES
from lifelong.scope import scope_for
from lifelong.subject import masked, normalise

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data"

Pair = tuple[str, str]


def main(data: Path = DATA) -> None:
    """Print one JSON line a set."""
    encoder = load_encoder("minilm")
    scope = scope_for(encoder)
    for name, (same, other) in sets(data).items():
        texts = sorted({text for pair in same + other for text in pair})
        vectors = dict(zip(texts, encoder.encode(texts), strict=True))
        same_scores, other_scores = (
            np.array([scope.score(vectors[b], vectors[a][None], masked=True)[0] for a, b in pairs])
            for pairs in (same, other)
        )
        print(json.dumps({"set": name, **figures(same_scores, other_scores)}))


def figures(same: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Shares and areas from the scores of both kinds of pair."""
    found: dict[str, Any] = {"same": len(same), "other": len(other)}
    if len(same):
        found["same that fires"] = round(float((same >= FIRES).mean()), 3)
    if len(other):
        found["other that fires"] = round(float((other >= FIRES).mean()), 3)
    if len(same) and len(other):
        truth = np.r_[np.ones(len(same)), np.zeros(len(other))]
        found["AUROC"] = round(float(roc_auc_score(truth, np.r_[same, other])), 4)
        for percent in (1, 3, 5):
            bar = np.quantile(other, 1 - percent / 100)
            found[f"same at {percent} %"] = round(float((same > bar).mean()), 3)
    return found


def sets(data: Path) -> dict[str, tuple[list[Pair], list[Pair]]]:
    """Pairs per set: (same relation, other relation)."""
    return {
        "zsRE (KnowEdit)": knowedit(data / "zsre/knowedit-dev.jsonl"),
        "zsRE (MEND)": (mend(data / "zsre/mend-eval-portability-dev.jsonl"), []),
        "CounterFact": counterfact(data / "counterfact/full-fields-dev.jsonl"),
        "Wikidata counterfacts": knowedit(data / "knowedit/wiki-counterfact-dev.jsonl"),
        "our corrections": corrections(ROOT / "examples/corrections.jsonl"),
    }


def knowedit(path: Path) -> tuple[list[Pair], list[Pair]]:
    """Rephrasings; probes about the subject that the edit does not entail."""
    same, other = [], []
    for record in lines(path):
        subject = record["subject"]
        if "rephrase_prompt" in record:
            same += pair(record["prompt"], record["rephrase_prompt"], subject)
        old = {normalise(answer) for answer in flat(record["ground_truth"])}
        for probe in record["locality"].get("Relation_Specificity", []):
            if old.isdisjoint(normalise(answer) for answer in flat(probe["ground_truth"])):
                other += pair(record["prompt"], probe["prompt"], subject)
    return same, other


def mend(path: Path) -> list[Pair]:
    """Rephrasings."""
    return [p for r in lines(path) for p in pair(r["src"], r["rephrase"], r["subject"])]


def counterfact(path: Path) -> tuple[list[Pair], list[Pair]]:
    """Paraphrases; prompts of other relations, one relation in three drawn per edit."""
    rng = random.Random(0)
    rewrites = [(r["requested_rewrite"], r["paraphrase_prompts"]) for r in lines(path)]
    prompts = sorted({(rewrite["relation_id"], rewrite["prompt"]) for rewrite, _ in rewrites})
    same, other = [], []
    for rewrite, paraphrases in rewrites:
        subject = rewrite["subject"]
        prompt = rewrite["prompt"].format(subject)
        same += [p for text in paraphrases for p in pair(prompt, text, subject)]
        for relation, template in rng.sample(prompts, 3):
            if relation != rewrite["relation_id"] and template != rewrite["prompt"]:
                other += pair(prompt, template.format(subject), subject)
    return same, other


def corrections(path: Path) -> tuple[list[Pair], list[Pair]]:
    """Paraphrases; the probe about the same subject."""
    same, other = [], []
    for record in lines(path):
        prompt, subject = record["prompt"], record["subject"]
        same += [p for text in record["paraphrases"] for p in pair(prompt, text, subject)]
        other += pair(prompt, record["locality"][0], subject)
    return same, other


def pair(prompt: str, text: str, subject: str) -> list[Pair]:
    """Both clauses with the subject masked; nothing where one does not name it."""
    a, b = masked(prompt, subject), masked(text, subject)
    return [(a, b)] if a and b else []


def flat(answers: str | Sequence[Any]) -> Iterator[str]:
    """Answers however deep they are listed."""
    if isinstance(answers, str):
        yield answers
    else:
        for answer in answers:
            yield from flat(answer)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSONL file."""
    yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
