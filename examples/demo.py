"""The main job, end to end: a chat model takes 72 corrections, is killed, goes on, is measured.

    python examples/demo.py [--out DIR]

A process corrects SmolLM2 from `corrections.jsonl`, as users would, until SIGKILL ends it half-way.
Another one opens the database, finds all that was acknowledged, corrects the rest, undoes two. Then
free generation shows what held after 1, 6 ... 72 corrections: `model.at(epoch)` answers as it did
then, and what one edit answers at several epochs is asked once. A probe that no edit covers is not
asked: its answer is the base model's own, bit for bit, as the tests prove.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import typer
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from lifelong import EditableModel, View
from lifelong.match import same, says
from lifelong.monitor import ask
from store import Edit, Journal

MODEL = "smollm2-135m"
CORRECTIONS = Path(__file__).with_name("corrections.jsonl").read_text(encoding="utf-8")
RECORDS = [json.loads(line) for line in CORRECTIONS.splitlines()]
KILLED_AFTER = 30  # acknowledged corrections
SHOWN = (31, 41, 56, 71)  # lines of the file that are shown before and after
UNDONE = (65, 25)  # a second correction of one fact, and an only one
CHECKPOINTS = (1, 6, 12, 24, 36, 48, 60, 72)  # corrections after which we look
OLDEST = 10  # live edits that count as old
NEW_TOKENS = 32  # of a reply that is measured
CURVES = {
    "accuracy": ("accuracy: asked as corrected", "#0072b2", "o"),
    "generality": ("generality: asked in other words", "#e69f00", "s"),
    "locality": ("locality: other questions, answer unchanged", "#009e73", "^"),
    "retention": (f"retention: the {OLDEST} oldest corrections", "#cc79a7", "D"),
    "no edits": ("no edits: asked as corrected", "#888888", "x"),
}

Key = tuple[str, int | None]  # a question, and the edit that shapes its answer
Replies = dict[Key, str]

console = Console(highlight=False, soft_wrap=True)


def main(
    out: Path = Path("demo-output"), feed: Annotated[Path | None, typer.Option(hidden=True)] = None
) -> None:
    """Correct, kill, go on, undo, measure."""
    if feed:
        return correct_and_say_so(feed)
    out.mkdir(parents=True, exist_ok=True)
    store = out / "demo.db"
    store.unlink(missing_ok=True)
    acknowledged = correct_until_killed(store)
    with EditableModel.from_pretrained(MODEL, store=store) as model, Journal.read(store) as journal:
        found = {edit.id for edit in model.list()}
        console.print(f"reopened: {len(found)} corrections, intact up to epoch {journal.verify()}")
        assert found.issuperset(acknowledged), "an acknowledged correction is lost"
        correct_the_rest(model)
        for id in UNDONE:
            show("undone", model, model.undo(id).prompt)
        points = measure(model, journal, out / "replies.jsonl")
    console.print(table(points))
    plot(points, out / "demo.png")
    console.print(f"The plot, every reply and the database are in {out}.")


def correct_and_say_so(store: Path) -> None:
    """The child: a line for each correction, once it is on disk."""
    with EditableModel.from_pretrained(MODEL, store=store) as model:
        for record in RECORDS:
            print(model.edit_many([record])[0].id, flush=True)


def correct_until_killed(store: Path) -> list[int]:
    """The ids that a child acknowledged before SIGKILL met it at work."""
    command = [sys.executable, __file__, "--feed", str(store)]
    acknowledged = []
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with Progress(console=console) as progress, child:
        task = progress.add_task("correcting", total=len(RECORDS))
        for line in child.stdout or ():
            acknowledged.append(int(line))
            progress.advance(task)
            if len(acknowledged) == KILLED_AFTER:
                child.kill()
    console.print(f"killed after {len(acknowledged)} acknowledged corrections")
    return acknowledged


def correct_the_rest(model: EditableModel) -> None:
    done = len(model.list())
    with Progress(console=console) as progress:
        task = progress.add_task("correcting", total=len(RECORDS), completed=done)
        for number, record in enumerate(RECORDS[done:], done + 1):
            if number in SHOWN:
                show("before", model, record["prompt"])
            model.edit_many([record])
            progress.advance(task)
            if number in SHOWN:
                show("after", model, record["paraphrases"][0])


def show(when: str, model: EditableModel, question: str) -> None:
    answer = model.chat(question)
    by = f"edit {answer.edits[0].id}" if answer.edits else "no edit"
    console.print(f"{question}\n  [b]{when}[/b]: {escape(answer.text)} [dim]({by})[/dim]")


def measure(model: EditableModel, journal: Journal, out: Path) -> list[dict[str, float]]:
    """What held after each number of corrections; every reply is written to `out`."""
    views = {n: model.at(model.get(n).epoch) for n in CHECKPOINTS}  # correction n is edit n
    live = {n: journal.live(at=model.get(n).epoch) for n in CHECKPOINTS}
    keys = {n: dict(routed(views[n], live[n])) for n in CHECKPOINTS}
    routes = {k: views[n] for n in CHECKPOINTS for k in keys[n].values()}
    covered = {question for question, edit in routes if edit is not None}
    probes = {question for edit in model.list() for question in edit.locality}
    asked = {k: view for k, view in routes.items() if k[0] in covered or k[0] not in probes}
    unedited = {edit.prompt for edit in model.list()} | (probes & covered)
    replies = ask_once(asked | dict.fromkeys(((q, None) for q in sorted(unedited)), model.at(0)))
    out.write_text("".join(f"{json.dumps([*k, text])}\n" for k, text in replies.items()))
    return [score(n, live[n], keys[n], replies) for n in CHECKPOINTS]


def routed(view: View, edits: Sequence[Edit]) -> Iterator[tuple[str, Key]]:
    for question in (q for e in edits for q in (e.prompt, e.paraphrases[0], *e.locality)):
        hits = view.explain(question).hits
        yield question, (question, hits[0].id if hits else None)


def ask_once(asked: dict[Key, View]) -> Replies:
    by_view: dict[View, dict[str, Key]] = defaultdict(dict)
    for k, view in asked.items():
        by_view[view][k[0]] = k
    replies = {}
    with Progress(console=console) as progress:
        task = progress.add_task("asking", total=len(asked))
        for view, wanted in by_view.items():
            for question, reply in ask(view, wanted, max_new_tokens=NEW_TOKENS):
                replies[wanted[question]] = reply
                progress.advance(task)
    return replies


def score(
    n: int, edits: Sequence[Edit], keys: dict[str, Key], replies: Replies
) -> dict[str, float]:
    def said(edit: Edit, *prompts: str) -> float:
        return fmean(says(replies[keys[p]], edit.target, edit.old) for p in prompts)

    return {
        "corrections": n,
        "live": len(edits),
        "accuracy": fmean(said(edit, edit.prompt) for edit in edits),
        "generality": fmean(said(edit, edit.paraphrases[0]) for edit in edits),
        "locality": fmean(
            keys[q] == (q, None) or same(replies[keys[q]], replies[q, None])
            for e in edits
            for q in e.locality
        ),
        "retention": fmean(said(edit, edit.prompt) for edit in edits[:OLDEST]),
        "no edits": fmean(says(replies[e.prompt, None], e.target, e.old) for e in edits),
    }


def table(points: Sequence[dict[str, float]]) -> Table:
    shown = Table(*points[0], title="What held, by free generation", title_justify="left")
    for point in points:
        shown.add_row(*(f"{v:.0%}" if name in CURVES else str(v) for name, v in point.items()))
    return shown


def plot(points: Sequence[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    steps = [point["corrections"] for point in points]
    for width, (name, (label, colour, marker)) in zip(range(6, 1, -1), CURVES.items(), strict=True):
        shares = [point[name] for point in points]  # drawn thinner and thinner: curves may coincide
        style = {"marker": marker, "linewidth": width, "markersize": width + 3}
        axes.plot(steps, shares, label=label, color=colour, **style)
    axes.set(title=f"{MODEL}, corrected {steps[-1]} times", ylim=(0, 1.04), xticks=steps)
    axes.set(xlabel="corrections taken, one after the other", ylabel="share of questions")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.08), frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    typer.run(main)
