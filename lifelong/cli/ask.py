"""Questions from the shell: an answer, and why it is what it is."""

from typing import Annotated, Any

from rich.text import Text
from typer import Argument, Option

import lifelong
from lifelong.cli.setup import Setup, stderr

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
        view = model if at is None else model.at(at)
        reply = (view.complete if complete else view.chat)(question, max_new_tokens=max_new_tokens)
    edits = [{"id": hit.id, "score": hit.score} for hit in reply.edits]
    setup.show({"text": reply.text, "epoch": reply.epoch, "edits": edits}, reply.text)
    for hit in reply.edits:
        stderr().print(Text(f"by {described(hit)}", "dim"), soft_wrap=True)


def why(setup: Setup, question: Question) -> None:
    """Which edits shape the answer to QUESTION, and which nearly would."""
    with setup.open() as model:
        route = model.explain(question)
    data = {
        "epoch": route.epoch,
        "hits": [_row(hit) for hit in route.hits],
        "near": [_row(hit) for hit in route.near],
    }
    setup.show(data, reasons(route))


def described(hit: "lifelong.Hit") -> str:
    """An edit in one line."""
    return f"edit {hit.id} (score {hit.score:.2f}): {hit.edit.prompt} -> {hit.edit.target}"


def reasons(route: "lifelong.Route") -> str:
    """A route in words, a line an edit."""
    fired = [f"shaped by {described(hit)}" for hit in route.hits]
    nearly = [f"nearly by {described(hit)}" for hit in route.near]
    return "\n".join([*(fired or ["no edit: this is the base model's own answer"]), *nearly])


def _row(hit: "lifelong.Hit") -> dict[str, Any]:
    return {
        "id": hit.id,
        "score": hit.score,
        "prompt": hit.edit.prompt,
        "target": hit.edit.target,
    }
