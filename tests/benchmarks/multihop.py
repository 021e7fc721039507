"""Composed questions of MQuAKE, with all edits of all cases live at once, and with those of few.

    python tests/benchmarks/multihop.py mquake-2002-dev.jsonl --kept DIR [--asked N] [--generate N]

`route` says where the hops of a sample of cases lead; no text is generated but a hop's name where
the base model is asked for one. `reply` is the same of the first of them, their replies generated.
`mello` are replies by the published loop, of so many of the first, and `beside_mello` ours to the
same. `few` are the first `--few` cases with all edits live, with about a hundred (those of cases
next to each other), and with their own only. `single` are the questions of single hops. `ms` are
milliseconds of processor time a question (one thread): to decide where it leads, `plain` without
hops, and to reply. Once a wording of a question is right no other gets a reply. All that is said is
kept, and the store of edits: a run that was cut off goes on from there.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from time import process_time
from typing import Annotated, Any

import numpy as np
from typer import Argument, Option, run

from lifelong.evaluate.datasets import load
from lifelong.evaluate.multihop import (
    Table,
    Told,
    by_hops,
    composed,
    fact_base,
    is_right,
    tables,
    wordings,
)
from lifelong.evaluate.records import Case
from lifelong.match import contains
from lifelong.runtime import EditableModel
from store import Edit, Reference

BATCH = 200  # edits of one transaction
FEW = (100, 1)  # edits of a store

Rates = dict[str, dict[str, str]]


def main(
    data: Annotated[Path, Argument(help="mquake-2002-dev.jsonl, or another file of its form.")],
    kept: Annotated[Path, Option(help="The folder for what is kept; made if need be.")],
    first: Annotated[int | None, Option(help="Cases of the file; else all.")] = None,
    asked: Annotated[int, Option(help="Cases whose hops are followed.")] = 100,
    generate: Annotated[int, Option(help="Of these, cases whose replies are generated.")] = 30,
    mello: Annotated[int, Option(help="Of these, cases that are asked by MeLLo, too.")] = 0,
    few: Annotated[int, Option(help="Of these, cases asked with fewer edits live, too.")] = 30,
) -> None:
    """Print the figures as JSON."""
    cases = composed(load(data, limit=first).cases)
    facts, sample = fact_base(cases), Random(0).sample(cases, min(asked, len(cases)))
    kept.mkdir(parents=True, exist_ok=True)
    keep, store = Keep(kept / "said.jsonl"), kept / "lifelong.db"
    figures: dict[str, Any] = {"cases": len(cases), "facts": len(facts)}
    with taught(cases, store) as model:
        figures["edits"] = len(model.list())
        alone = routed(sample, keep, "route", model)
        said = replied(sample[:generate], keep, "reply", model)
        figures["single"] = single(sample, keep, "single", model)
        model.add_facts(facts)
        more = routed(sample, keep, "route with facts", model)
        more_said = replied(sample[:generate], keep, "reply with facts", model)
        figures["single_with_facts"] = single(sample, keep, "single with facts", model)
    figures["route"] = rates(sample, alone, more)
    figures["reply"] = rates(sample[:generate], Told(said, alone.ways), Told(more_said, more.ways))
    with taught(cases, store, multihop=False) as model:
        figures["single_plain"] = single(sample, keep, "single plain", model)
        routed(sample, keep, "route plain", model)
    with taught(cases, store, multihop="mello") as model:
        by_loop = replied(sample[:mello], keep, "mello", model)
    for name, replies in ("mello", by_loop), ("beside_mello", said):
        figures[name] = shown(by_hops(sample[:mello], partial(is_right, replies=replies)))
    figures["few"] = {"all": rates(sample[:few], alone, more)}
    for edits in FEW:
        figures["few"][str(edits)] = apart(sample[:few], edits, facts, keep)
    print(json.dumps(figures | {"ms": keep.ms()}, indent=1))


class Keep:
    """What was said to a text at a stage, and how long it took: a line each in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._rows = {(row["stage"], row["text"]): row for row in map(json.loads, lines)}

    def said(self, stage: str, text: str, say: Callable[[str], Any]) -> Any:
        """What `say` says, or said in an earlier run."""
        if (stage, text) not in self._rows:
            began = process_time()
            row = {"stage": stage, "text": text, "said": say(text)}
            row["ms"] = 1000 * (process_time() - began)
            self._rows[stage, text] = row
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return self._rows[stage, text]["said"]

    def ms(self) -> dict[str, dict[str, float]]:
        """Questions, median and 95th percentile of each stage."""
        taken: dict[str, list[float]] = {}
        for row in self._rows.values():
            taken.setdefault(row["stage"], []).append(row["ms"])
        return {
            stage: {
                "n": len(ms),
                "median": round(float(np.median(ms)), 1),
                "p95": round(float(np.quantile(ms, 0.95)), 1),
            }
            for stage, ms in taken.items()
        }


def taught(
    cases: Iterable[Case], store: Path | str = ":memory:", multihop: Any = True
) -> EditableModel:
    """A model with the edits of these cases, each once, and no facts."""
    model = EditableModel.from_pretrained(
        "smollm2-135m", store=store, multihop=multihop, progress=False
    )
    model.drop_facts()
    teach(model, cases)
    return model


def teach(model: EditableModel, cases: Iterable[Case]) -> list[Edit]:
    """The edits of these cases, made, each once and none that is live."""
    known = {edit.prompt for edit in model.list(status="live")}
    edits = {e.prompt: e for case in cases for e in case.edits if e.prompt not in known}
    rest = list(edits.values())
    batches = [rest[at : at + BATCH] for at in range(0, len(rest), BATCH)]
    return [edit for batch in batches for edit in model.edit_many(batch)]


def routed(cases: Sequence[Case], keep: Keep, stage: str, model: EditableModel) -> Told:
    """Where every wording leads, taken for its reply."""

    def way(text: str) -> list[str]:
        route = model.explain(text)
        return [hop.target for hop in route.chain] or [hit.edit.target for hit in route.hits[:1]]

    ways = {text: keep.said(stage, text, way) for case in cases for text in wordings(case)}
    return Told({text: way[-1] if way else "" for text, way in ways.items()}, ways)


def replied(cases: Sequence[Case], keep: Keep, stage: str, model: EditableModel) -> dict[str, str]:
    """The replies to the wordings of each case, up to one that is right; "" for the rest."""

    def reply(text: str) -> str:
        return model.chat(text, max_new_tokens=48, do_sample=False).text

    replies = dict.fromkeys((text for case in cases for text in wordings(case)), "")
    for case in cases:
        for text in wordings(case):
            if not is_right(case, replies):
                replies[text] = keep.said(stage, text, reply)
    return replies


def single(cases: Iterable[Case], keep: Keep, stage: str, model: EditableModel) -> str:
    """How many single-hop questions about an edit lead to its target."""
    asked = {p.prompt: p.answers for c in cases for p in c.probes if p.kind == "paraphrase"}

    def end(text: str) -> str:
        route = model.explain(text)
        if route.chain:
            return route.chain[-1].target
        return route.hits[0].edit.target if route.hits else ""

    right = [
        any(contains(keep.said(stage, q, end), a) for a in found) for q, found in asked.items()
    ]
    return f"{sum(right)} of {len(right)}"


def apart(cases: Sequence[Case], edits: int, facts: Sequence[Reference], keep: Keep) -> Rates:
    """Where hops lead with so many edits live, or with those of one case; then they are undone."""
    found = list[tuple[Told, Told]]()
    with taught([]) as model:
        for group in groups(cases, edits):
            made = teach(model, group)
            alone = routed(group, keep, f"{edits} edits", model)
            model.add_facts(facts)
            found.append((alone, routed(group, keep, f"{edits} edits with facts", model)))
            model.drop_facts()
            for edit in made:
                model.undo(edit.id)
    return rates(cases, together(t for t, _ in found), together(t for _, t in found))


def groups(cases: Iterable[Case], edits: int) -> Iterator[list[Case]]:
    """Cases next to each other with so many edits in all, or one case each."""
    group = list[Case]()
    for case in cases:
        if group and sum(len(c.edits) for c in (*group, case)) > edits:
            yield group
            group = []
        group.append(case)
    yield group


def together(told: Iterable[Told]) -> Told:
    replies, ways = dict[str, str](), dict[str, Sequence[str]]()
    for one in told:
        replies |= one.replies
        ways |= one.ways
    return Told(replies, ways)


def rates(cases: Sequence[Case], alone: Told, with_facts: Told) -> Rates:
    """Right of all, and of those with so many hops."""
    return {name: shown(table) for name, table in tables(cases, alone, with_facts)}


def shown(table: Table) -> dict[str, str]:
    """Right of so many, by hops."""
    return {group: f"{share.right} of {share.of}" for group, share in table.items()}


if __name__ == "__main__":
    run(main)
