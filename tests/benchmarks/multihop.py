"""Composed questions of MQuAKE, with all edits of all cases live at once, and with few.

    python tests/benchmarks/multihop.py mquake-2002-dev.jsonl [--generate N] [--cases N]

Where a chain leads is asked of every case (`route`: no text is generated but a hop's name where the
base model is asked for one); of the first N of a seeded shuffle the reply is generated, too
(`reply`). `one` and `hundred` are the same cases with one, or a hundred, edited cases in the store.
`single` are the questions of single hops, asked with and without the facts.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Annotated, Any

import numpy as np
from typer import Argument, Option, run

from lifelong.evaluate.datasets import load
from lifelong.evaluate.multihop import by_hops, composed, fact_base, tables, wordings
from lifelong.evaluate.records import Case
from lifelong.match import contains
from lifelong.runtime import EditableModel
from store import Edit, Reference

BATCH = 200  # edits of one transaction

Reply = Callable[[str], str]
Rates = dict[str, dict[str, float]]


def main(
    data: Annotated[Path, Argument(help="mquake-2002-dev.jsonl, or another file of its form.")],
    generate: Annotated[int, Option(help="Cases whose replies are generated.")] = 100,
    cases: Annotated[int | None, Option(help="The first so many cases only.")] = None,
    few: Annotated[int, Option(help="Cases asked with one edited case in the store.")] = 100,
) -> None:
    """Print the figures as JSON."""
    asked = composed(load(data, limit=cases).cases)
    shuffled = Random(0).sample(asked, len(asked))
    facts = fact_base(asked)
    figures: dict[str, Any] = {"cases": len(asked), "facts": len(facts)}
    with taught(asked) as model:
        figures["edits"] = len(model.list())
        alone, figures["ms"] = timed(asked, led(model))
        figures["single"] = single(asked, led(model))
        said = replies(shuffled[:generate], spoken(model))
        model.add_facts(facts)
        informed, figures["ms_with_facts"] = timed(asked, led(model))
        figures["single_with_facts"] = single(asked, led(model))
        informed_said = replies(shuffled[:generate], spoken(model))
    figures["route"] = rates(tables(asked, alone, informed))
    figures["reply"] = rates(tables(shuffled[:generate], said, informed_said))
    figures["one"] = apart([[case] for case in shuffled[:few]], facts)
    hundreds = [shuffled[at : at + 100] for at in range(0, len(shuffled), 100)]
    figures["hundred"] = apart(hundreds, facts)
    print(json.dumps(figures, indent=1))


def taught(cases: Iterable[Case], facts: Sequence[Reference] = ()) -> EditableModel:
    """A model with the edits of these cases, each once."""
    model = EditableModel.from_pretrained(
        "smollm2-135m", store=":memory:", multihop=True, progress=False
    )
    edits: Sequence[Edit] = list({e.prompt: e for case in cases for e in case.edits}.values())
    for at in range(0, len(edits), BATCH):
        model.edit_many(edits[at : at + BATCH])
    model.add_facts(facts)
    return model


def led(model: EditableModel) -> Reply:
    """Where a question leads, without a reply."""

    def lead(question: str) -> str:
        route = model.explain(question)
        if route.chain:
            return route.chain[-1].target
        return route.hits[0].edit.target if route.hits else ""

    return lead


def spoken(model: EditableModel) -> Reply:
    return lambda question: model.chat(question, max_new_tokens=48, do_sample=False).text


def replies(cases: Iterable[Case], reply: Reply) -> dict[str, str]:
    return {text: reply(text) for case in cases for text in wordings(case)}


def timed(cases: Iterable[Case], reply: Reply) -> tuple[dict[str, str], dict[str, float]]:
    """Replies, and how long they took."""
    found, took = {}, []
    for text in (text for case in cases for text in wordings(case)):
        start = perf_counter()
        found[text] = reply(text)
        took.append(1000 * (perf_counter() - start))
    return found, {"median": float(np.median(took)), "p95": float(np.quantile(took, 0.95))}


def single(cases: Iterable[Case], reply: Reply) -> float:
    """The share of single-hop questions about an edit that get its target."""
    asked = {p.prompt: p.answers for c in cases for p in c.probes if p.kind == "paraphrase"}
    right = [any(contains(reply(q), a) for a in answers) for q, answers in asked.items()]
    return sum(right) / len(right)


def apart(groups: Iterable[Sequence[Case]], facts: Sequence[Reference]) -> Rates:
    """The figures of routes, each group of cases in a store of its own."""
    whole: list[Case] = []
    alone: dict[str, str] = {}
    informed: dict[str, str] = {}
    for group in groups:
        with taught(group) as model:
            alone |= replies([case for case in group if case.all_edited], led(model))
            model.add_facts(facts)
            informed |= replies(group, led(model))
        whole += group
    return {
        "multihop_all_edited": shares(by_hops([c for c in whole if c.all_edited], alone)),
        "multihop_with_facts": shares(by_hops(whole, informed)),
    }


def rates(named: Iterable[tuple[str, Any]]) -> Rates:
    return {name: shares(table) for name, table in named}


def shares(table: dict[str, Any]) -> dict[str, float]:
    return {group: round(share.rate, 4) for group, share in table.items()}


if __name__ == "__main__":
    run(main)
