"""Questions from the shell: an answer, and why it is what it is."""

from dataclasses import asdict
from typing import Annotated, Any

from rich.console import Group, RenderableType
from rich.text import Text
from typer import Argument, Option

import lifelong
from lifelong.cli.setup import Setup, stderr, table

Question = Annotated[str, Argument(help="What is asked.")]


def ask(
    setup: Setup,
    question: Question,
    complete: Annotated[
        bool, Option("--complete", help="Continue the text, without a chat template.")
    ] = False,
    at: Annotated[int | None, Option(metavar="EPOCH", help="Answer as of this epoch.")] = None,
    max_new_tokens: Annotated[int, Option(min=1, help="The longest answer, in tokens.")] = 64,
) -> None:
    """Ask one question."""
    with setup.open() as model:
        view: Any = model if at is None else model.at(at, **setup.asker)
        asker = setup.asker if at is None else {}
        answer = view.complete if complete else view.chat
        reply = answer(question, max_new_tokens=max_new_tokens, **asker)
    edits = [{"id": hit.id, "score": hit.score} for hit in reply.edits]
    setup.show({"text": reply.text, "epoch": reply.epoch, "edits": edits}, reply.text)
    for hit in reply.edits:
        stderr().print(Text(f"by {described(hit)}", "dim"), soft_wrap=True)


def why(setup: Setup, question: Question) -> None:
    """Which edits shape the answer to QUESTION, and which nearly would."""
    with setup.open() as model:
        route = model.explain(question, **setup.asker)
    data = {
        "epoch": route.epoch,
        "hits": [_row(hit) for hit in route.hits],
        "near": [_row(hit) for hit in route.near],
        "chain": [asdict(hop) for hop in route.chain],
    }
    setup.show(data, reasons(route))


def diff(
    setup: Setup,
    before: Annotated[int, Argument(metavar="EPOCH", help="The earlier one.", min=0)],
    after: Annotated[int, Argument(metavar="EPOCH", help="The later one.", min=0)],
    question: Annotated[str | None, Argument(help="Asked at both.")] = None,
) -> None:
    """The edits that are not the same at two epochs; with a QUESTION, both answers."""
    with setup.read() as journal:
        then, now = (
            {edit.id: edit for edit in journal.edits(at=epoch, audience=setup.audience)}
            for epoch in (before, after)
        )
    changed = [
        {
            "id": id,
            "before": then[id].status if id in then else None,
            "after": now[id].status if id in now else None,
            "prompt": (now.get(id) or then[id]).prompt,
            "target": (now.get(id) or then[id]).target,
        }
        for id in sorted(then.keys() | now.keys())
        if then.get(id) != now.get(id)
    ]
    data: dict[str, Any] = {"edits": changed}
    shown: list[RenderableType] = [
        table(("id", "before", "after", "prompt", "target"), (row.values() for row in changed))
    ]
    if question is not None:
        with setup.open() as model:
            texts = [
                model.at(epoch, **setup.asker).chat(question).text for epoch in (before, after)
            ]
        data["answers"] = texts
        shown += [Text(f"at {e}: {t}") for e, t in zip((before, after), texts, strict=True)]
    setup.show(data, Group(*shown))


def described(hit: "lifelong.Hit") -> str:
    """An edit in one line."""
    return f"edit {hit.id} (score {hit.score:.2f}): {hit.edit.prompt} -> {hit.edit.target}"


def reasons(route: "lifelong.Route") -> str:
    """A route in words, a line an edit."""
    fired = [f"shaped by {described(hit)}" for hit in route.hits]
    fired += [f"along {_way(route)}"] if route.chain else []
    nearly = [f"nearly by {described(hit)}" for hit in route.near]
    return "\n".join([*(fired or ["no edit: this is the base model's own answer"]), *nearly])


def _way(route: "lifelong.Route") -> str:
    """The chain in one line: "Ann -boss-> Bo (edit 1) -wife-> Cy (base model)"."""
    steps = [str(hop).removeprefix(f"{hop.subject} ") for hop in route.chain]
    return " ".join([route.chain[0].subject, *steps])


def _row(hit: "lifelong.Hit") -> dict[str, Any]:
    return {
        "id": hit.id,
        "score": hit.score,
        "prompt": hit.edit.prompt,
        "target": hit.edit.target,
    }
