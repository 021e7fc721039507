"""What the scope classifier lets through (less contraries), where it fires and along the curve.

    python tests/benchmarks/scope_curve.py [DATA]

Pairs of (edit's prompt, other prompt) with the edit's subject in both, subject masked; `same` asks
for the same relation in other words, `other` for another relation of the same subject. No subject
of these files is in the training data. Prints, per set: AUROC, the share of `same` that fires, the
share of `other` that fires, and the share of `same` at 1, 3 and 5 % of `other`. At the end, over
all sets, `same` and `other` weighing alike: how often pairs of a score are `same`, in tenths, and
the expected calibration error.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from lifelong.contrary import contrary
from lifelong.encoder import load_encoder
from lifelong.router import FIRES
from lifelong.scope import scope_for
from lifelong.subject import masked, normalise
from lifelong.train.data import overlapping, relation_names

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data"

Pair = tuple[str, str, str]  # edit's clause, other clause, edit's target


def main(data: Path = DATA) -> None:
    """Print one JSON line a set, and one about all."""
    encoder = load_encoder("minilm")
    scope = scope_for(encoder)
    scored = []
    for name, (same, other) in sets(data).items():
        texts = sorted({text for pair in same + other for text in pair[:2]})
        vectors = dict(zip(texts, encoder.encode(texts), strict=True))
        same_scores, other_scores = (
            np.array(
                [
                    0.0
                    if contrary(a, b)
                    else scope.score(vectors[b], vectors[a][None], [t], masked=True)[0]
                    for a, b, t in some
                ]
            )
            for some in (same, other)
        )
        scored.append((same_scores, other_scores))
        print(json.dumps({"set": name, **figures(same_scores, other_scores)}), flush=True)
    print(json.dumps(reliability(*map(np.concatenate, zip(*scored, strict=True)))))


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


def reliability(same: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """In tenths of the score: the share that is `same`; and how far score and share differ."""
    scores = np.r_[same, other]
    weights = np.r_[np.full(len(same), 0.5 / len(same)), np.full(len(other), 0.5 / len(other))]
    truth = np.r_[np.ones(len(same)), np.zeros(len(other))]
    tenth = np.minimum((scores * 10).astype(int), 9)
    total = [
        np.bincount(tenth, weights * part, 10) for part in (np.ones_like(scores), truth, scores)
    ]
    weight, true, said = total
    return {
        "share that is same, by tenth": np.round(true / np.maximum(weight, 1e-12), 2).tolist(),
        "expected calibration error": round(float(np.abs(true - said).sum()), 4),
    }


def sets(data: Path) -> dict[str, tuple[list[Pair], list[Pair]]]:
    """Pairs per set: (same relation, other relation)."""
    return {
        "zsRE (KnowEdit)": knowedit(data / "zsre/knowedit-dev.jsonl"),
        "zsRE (MEND)": (mend(data / "zsre/mend-eval-portability-dev.jsonl"), []),
        "CounterFact": counterfact(data / "counterfact/full-fields-dev.jsonl"),
        "Wikidata recent": knowedit(data / "knowedit/wiki-recent-dev.jsonl"),
        "Wikidata counterfacts": knowedit(data / "knowedit/wiki-counterfact-dev.jsonl"),
        "our corrections": corrections(ROOT / "examples/corrections.jsonl"),
    }


def knowedit(path: Path) -> tuple[list[Pair], list[Pair]]:
    """Rephrasings; probes about the subject that the edit does not entail."""
    same, other = [], []
    for record in lines(path):
        subject, target = record["subject"], record["target_new"]
        if "rephrase_prompt" in record:
            same += pair(record["prompt"], record["rephrase_prompt"], subject, target)
        old = {normalise(answer) for answer in flat(record.get("ground_truth", []))}
        for probe in record["locality"].get("Relation_Specificity", []):
            if old.isdisjoint(normalise(answer) for answer in flat(probe["ground_truth"])):
                other += pair(record["prompt"], probe["prompt"], subject, target)
    return same, other


def mend(path: Path) -> list[Pair]:
    """Rephrasings."""
    return [p for r in lines(path) for p in pair(r["src"], r["rephrase"], r["subject"], r["alt"])]


def counterfact(path: Path) -> tuple[list[Pair], list[Pair]]:
    """Paraphrases; prompts of other relations that share no answers with the edit's."""
    rng, names = random.Random(0), relation_names()
    rewrites = [(r["requested_rewrite"], r["paraphrase_prompts"]) for r in lines(path)]
    prompts = sorted({(rewrite["relation_id"], rewrite["prompt"]) for rewrite, _ in rewrites})
    same, other = [], []
    for rewrite, paraphrases in rewrites:
        subject, target = rewrite["subject"], rewrite["target_new"]["str"]
        prompt = rewrite["prompt"].format(subject)
        same += [p for text in paraphrases for p in pair(prompt, text, subject, target)]
        settled = overlapping(names.get(rewrite["relation_id"], rewrite["relation_id"]))
        for relation, template in rng.sample(prompts, 3):
            if names.get(relation, relation) not in settled and template != rewrite["prompt"]:
                other += pair(prompt, template.format(subject), subject, target)
    return same, other


def corrections(path: Path) -> tuple[list[Pair], list[Pair]]:
    """Paraphrases; the probe about the same subject."""
    same, other = [], []
    for record in lines(path):
        prompt, subject, target = (record[key] for key in ("prompt", "subject", "target"))
        same += [p for text in record["paraphrases"] for p in pair(prompt, text, subject, target)]
        other += pair(prompt, record["locality"][0], subject, target)
    return same, other


def pair(prompt: str, text: str, subject: str, target: str) -> list[Pair]:
    """Both clauses with the subject masked; nothing where one does not name it."""
    a, b = masked(prompt, subject), masked(text, subject)
    return [(a, b, target)] if a and b else []


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
