"""What hops change for edits of single facts: portability questions, and all others.

    python -m tests.benchmarks.portability FILE --kept DIR [--asked N]

All edits of FILE are live at once. The portability questions (of the kinds `multihop`, `reversed`
and `alias`) of `--asked` records are answered with and without hops: how many replies hold an
accepted answer. Of all other probes of all records: how many are routed as they are without hops.
All that is said is kept: a run that was cut off goes on from there.
"""

import json
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Annotated, Any

from typer import Argument, Option, run

from lifelong.evaluate.datasets import load
from lifelong.evaluate.records import Probe
from lifelong.match import contains
from lifelong.runtime import EditableModel
from tests.benchmarks.multihop import Keep, taught

PORTABLE = ("multihop", "reversed", "alias")


def main(
    data: Annotated[Path, Argument(help="mend-eval-portability-dev.jsonl, or another file.")],
    kept: Annotated[Path, Option(help="The folder for what is kept; made if need be.")],
    asked: Annotated[int, Option(help="Records whose portability is asked.")] = 500,
) -> None:
    """Print the figures as JSON."""
    cases = load(data).cases
    sample = Random(0).sample(cases, min(asked, len(cases)))
    portable = [p for case in sample for p in case.probes if p.kind in PORTABLE and p.answers]
    others = {p.prompt: p for c in cases for p in c.probes if p.kind not in PORTABLE}
    kept.mkdir(parents=True, exist_ok=True)
    keep, store = Keep(kept / "said.jsonl"), kept / "lifelong.db"
    ways, replies = dict[str, dict[str, Any]](), dict[str, dict[str, str]]()
    texts = [*others, *(probe.prompt for probe in portable)]
    for name, multihop in ("without", False), ("with", True):
        with taught(cases, store, multihop=multihop) as model:
            ways[name] = {text: keep.said(f"route {name}", text, way(model)) for text in texts}
            chained = {text for text, (hops, _) in ways[name].items() if hops}
            replies[name] = {
                text: keep.said(name if text in chained else "without", text, reply(model))
                for text in (probe.prompt for probe in portable)
            }
    print(json.dumps(figures(portable, others, ways, replies) | {"ms": keep.ms()}, indent=1))


def figures(
    portable: list[Probe],
    others: dict[str, Probe],
    ways: dict[str, dict[str, Any]],
    replies: dict[str, dict[str, str]],
) -> dict[str, Any]:
    """Right of so many, by kind; routed alike of so many, by kind."""
    right, alike = defaultdict[str, list[bool]](list), defaultdict[str, list[bool]](list)
    for probe in portable:
        for name, said in replies.items():
            found = any(contains(said[probe.prompt], answer) for answer in probe.answers)
            right[f"{probe.kind} {name}"].append(found)
        right[f"{probe.kind} along a chain"].append(bool(ways["with"][probe.prompt][0]))
    for text, probe in others.items():
        alike[probe.kind].append(ways["with"][text] == ways["without"][text])
    shown = [
        {name: f"{sum(found)} of {len(found)}" for name, found in sorted(of.items())}
        for of in (right, alike)
    ]
    return dict(zip(("portability", "routed alike"), shown, strict=True))


def way(model: EditableModel) -> Any:
    """`way(model)(text)`: the hops, and the edits, that shape the answer."""

    def find(text: str) -> list[list[Any]]:
        route = model.explain(text)
        return [[str(hop) for hop in route.chain], [hit.id for hit in route.hits]]

    return find


def reply(model: EditableModel) -> Any:
    """`reply(model)(text)`: 48 tokens at most, greedy."""
    return lambda text: model.chat(text, max_new_tokens=48, do_sample=False).text


if __name__ == "__main__":
    run(main)
