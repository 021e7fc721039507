"""Edits between memory and the weights, and what the weights make of it, from the shell."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from lifelong.cli.setup import REFUSED, Setup, fields, stderr


def consolidate(
    setup: Setup,
    ids: Annotated[
        list[int] | None, Argument(metavar="[ID]...", help="These edits; else the oldest.")
    ] = None,
    method: Annotated[str, Option(help="How they are written.")] = "idle-neurons",
    most: Annotated[int, Option(help="So many of the oldest.", min=1)] = 100,
    age: Annotated[int, Option(help="So many newer edits stay in memory.", min=0)] = 0,
    limit: Annotated[
        list[str] | None,
        Option(metavar="NAME=VALUE", help="Another limit of the gate, as accuracy=0.9."),
    ] = None,
) -> None:
    """Write live edits into the weights, if they hold there; exit 1 if they do not."""
    from lifelong.consolidate import Gate, Policy  # takes seconds to import

    gate = Gate.of(limit or ())
    with setup.open() as model, stderr().status("Writing, and asking before and after"):
        which = ids or Policy(age=age, most=most)
        done = model.consolidate(which, method=method, gate=gate)
    data = done.to_json()
    setup.show(data, fields(data))
    if not done.accepted:
        raise Exit(REFUSED)


def release(
    setup: Setup, ids: Annotated[list[int], Argument(metavar="ID...", help="Consolidated edits.")]
) -> None:
    """Answer consolidated edits from memory again; the weights are as without them."""
    with setup.open() as model:
        edits = model.release(ids)
    data = [edit.id for edit in edits]
    setup.show(data, f"{len(data)} edits are answered from memory again.")


def export(
    setup: Setup,
    folder: Annotated[Path, Argument(help="Where to.")],
    format: Annotated[
        str, Option(help="safetensors (a whole checkpoint) or peft-lora (an adapter).")
    ] = "safetensors",
) -> None:
    """Write what is in the weights for use without lifelong."""
    with setup.open() as model:
        ids, live = model.export(folder, format), len(model.list("live", **setup.asker))
    data = {"folder": str(folder), "edits": ids, "left_in_memory": live - len(ids)}
    setup.show(data, fields(data))


def rebase(
    setup: Setup, old: Annotated[Path, Argument(help="A store made for another model or encoder.")]
) -> None:
    """Carry the edits of OLD into --store, for --model and --encoder; OLD is left as it is."""
    with setup.open() as model, stderr().status("Moving"):
        data = model.adopt(old).to_json()
    setup.show(data, fields(data))
