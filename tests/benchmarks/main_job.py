"""The figures of the main job: 200 corrections in sequence on a real chat model.

    python tests/benchmarks/main_job.py [../shared/data/zsre/knowedit-dev.jsonl]

Feeds the first 200 records one at a time, then asks by free generation through the chat template:
the edits' own prompts, their rephrasings, other questions about the same subjects (less those that
an edit entails: a labelled answer is one of the edit's old answers), and the prompts of the next
200 records (less those about an edited subject, which an edit may rightly cover). Prints shares,
times as medians, ratios against the bare model in the same run, and what became of an acknowledged
edit after kill -9 and of every bit after undo.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch

from lifelong import EditableModel
from lifelong.errors import EditRefused
from lifelong.match import same, says
from lifelong.monitor import ask
from lifelong.subject import normalise, subject_key
from store import Journal

MODEL = "smollm2-135m"
DATA = Path(__file__).parents[2] / "../shared/data/zsre/knowedit-dev.jsonl"
EDITS = 200
KILLED_AFTER = 100
PROOFS = 50  # prompts whose logits are compared, and unchanged answers that are asked again
TURNS = 12  # pairs of chat turns that are timed


def main(path: Path = DATA) -> None:
    """Print every figure as one JSON object."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    edited, others = records[:EDITS], records[EDITS : 2 * EDITS]
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"kill -9": drill(path, Path(folder) / "killed.db")}))
        with EditableModel.from_pretrained(MODEL, store=Path(folder) / "edits.db") as model:
            seconds = list(feed(model, edited))
            print(json.dumps({"acknowledged, median ms": round(1000 * median(seconds))}))
            print(json.dumps(quality(model, edited, others), indent=1))
            print(json.dumps({"untouched turn / bare turn": overhead(model, others)}))
            print(json.dumps({"after undo of all": undone(model, edited)}))


def feed(model: EditableModel, records: Sequence[dict[str, Any]]) -> Iterator[float]:
    """Seconds until each correction is acknowledged."""
    for record in records:
        began = perf_counter()
        try:
            model.edit(record["prompt"], record["target_new"], subject=record["subject"])
        except EditRefused as exc:
            print(f"refused: {exc}", file=sys.stderr)
        yield perf_counter() - began


def quality(
    model: EditableModel, edited: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Shares of prompts that get the target, and of probes that get the base model's reply."""
    probes, entailed = same_subject(edited)
    taught = {edit.id: edit for edit in model.list("live")}
    mine = {edit.prompt: edit.target for edit in taught.values()}
    subjects = {subject_key(record["subject"]) for record in edited}
    strangers = [r for r in others if subject_key(r["subject"]) not in subjects]
    counted = [record for record in edited if mine.get(record["prompt"]) == record["target_new"]]
    return {
        "edits": len(taught),
        "own prompt": told(model, [(r["prompt"], r) for r in counted]),
        "rephrased": told(model, [(r["rephrase_prompt"], r) for r in counted]),
        "same subject, other relation": unchanged(model, probes),
        "left out as entailed": entailed,
        "other records": unchanged(model, [record["prompt"] for record in strangers]),
        "left out as about an edited subject": len(others) - len(strangers),
    }


def told(model: EditableModel, asked: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The share of (prompt, record) whose reply says the target, and says no old answer besides."""
    replies = dict(ask(model.at(model.epoch), [prompt for prompt, _ in asked]))
    target = [says(replies[prompt], r["target_new"]) for prompt, r in asked]
    alone = [
        all(says(replies[prompt], r["target_new"], old) for old in r["ground_truth"])
        for prompt, r in asked
    ]
    return {"n": len(asked), "target": fmean(target), "target and no old answer": fmean(alone)}


def unchanged(model: EditableModel, prompts: Sequence[str]) -> dict[str, Any]:
    """The share of prompts with the base model's reply. Untouched routes are proved on a sample."""
    now = model.at(model.epoch)
    fired = [prompt for prompt in prompts if now.explain(prompt).hits]
    proof = [prompt for prompt in prompts if prompt not in fired][:PROOFS]
    replies = dict(ask(now, [*fired, *proof]))
    base = dict(ask(model.at(0), [*fired, *proof]))
    kept = [same(replies[prompt], base[prompt]) for prompt in fired]
    proved = [replies[prompt] == base[prompt] for prompt in proof]
    return {
        "n": len(prompts),
        "unchanged": 1 - kept.count(False) / len(prompts),
        "fired": len(fired),
        "proof": f"{sum(proved)} of {len(proved)}",
    }


def same_subject(records: Sequence[dict[str, Any]]) -> tuple[list[str], int]:
    """The probes about the records' subjects, and how many were left out as entailed."""
    found, entailed = [], 0
    for record in records:
        old = {normalise(answer) for answer in record["ground_truth"]}
        for probe in record["locality"].get("Relation_Specificity", []):
            if old.isdisjoint(map(normalise, probe["ground_truth"])):
                found.append(probe["prompt"])
            else:
                entailed += 1
    return found, entailed


def overhead(model: EditableModel, others: Sequence[dict[str, Any]]) -> float:
    """Median ratio of a chat turn that no edit touches to the bare model's, 32 new tokens."""
    view = model.at(model.epoch)
    questions = [r["prompt"] for r in others if not view.explain(r["prompt"]).hits][:TURNS]
    limits = {"min_new_tokens": 32, "max_new_tokens": 32}
    tokenizer = model.tokenizer
    ratios = []
    for question in [questions[0], *questions]:  # the first to warm up
        messages = [{"role": "user", "content": question}]
        began = perf_counter()
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt"
        )
        with model.disable_edits():
            out = model.generate(**inputs, **limits)
        tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        bare = perf_counter() - began
        began = perf_counter()
        model.chat(messages, **limits)
        ratios.append((perf_counter() - began) / bare)
    return round(median(ratios[1:]), 3)


def undone(model: EditableModel, edited: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Undo everything; are answers and logits, bit for bit, what they are without edits?"""
    for edit in model.list("live"):
        model.undo(edit.id)
    while standing := model.list("live"):  # an undone edit brought back what it had replaced
        for edit in standing:
            model.undo(edit.id)
    prompts = [record["prompt"] for record in edited[:PROOFS]]
    equal = [torch.equal(logits(model, p), bare_logits(model, p)) for p in prompts]
    return {"logits equal": f"{sum(equal)} of {len(equal)}", "live": len(model.list("live"))}


def logits(model: EditableModel, prompt: str) -> torch.Tensor:
    """The logits (tokens, vocabulary) of a greedy reply of 8 tokens."""
    inputs = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt"
    )
    out = model.generate(
        **inputs, max_new_tokens=8, return_dict_in_generate=True, output_logits=True
    )
    return torch.cat(out.logits)


def bare_logits(model: EditableModel, prompt: str) -> torch.Tensor:
    """The same from the base model."""
    with model.disable_edits():
        return logits(model, prompt)


def drill(path: Path, store: Path) -> str:
    """SIGKILL a process in the middle of 200 edits; is all that it acknowledged there?"""
    command = [sys.executable, __file__, "--feed", str(path), str(store)]
    acknowledged = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout or ():
            acknowledged.append(int(line))
            if len(acknowledged) == KILLED_AFTER:
                child.kill()
    with Journal.read(store) as journal:
        journal.verify()
        found = {edit.id for edit in journal.edits()}
    return f"{len(found.intersection(acknowledged))} of {len(acknowledged)} acknowledged are there"


def child(path: Path, store: Path) -> None:
    """Feed records and say the id of each edit once it is acknowledged."""
    with EditableModel.from_pretrained(MODEL, store=store) as model:
        for line in path.read_text(encoding="utf-8").splitlines()[:EDITS]:
            record = json.loads(line)
            edit = model.edit(record["prompt"], record["target_new"], subject=record["subject"])
            print(edit.id, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--feed"]:
        child(*map(Path, sys.argv[2:]))
    else:
        main(*map(Path, sys.argv[1:]))
