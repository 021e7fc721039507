"""Where a fact is recalled, and where values do best, as a table, as JSON, as a picture."""

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Group
from typer import Argument, Option

from lifelong.cli.setup import Setup, fields, stderr, table
from lifelong.errors import BadSetting

if TYPE_CHECKING:
    from lifelong.lm import LM


def locate(
    setup: Setup,
    prompt: Annotated[
        str | None, Argument(help="A text that the model completes with a fact it knows.")
    ] = None,
    subject: Annotated[
        str | None, Option(help="Whom or what it is about, as it stands there.")
    ] = None,
    by: Annotated[
        str,
        Option(
            help="tracing (corrupt, restore) or neurons, of PROMPT; sweep: the layer for grace,"
            " tried on facts that are made up. t-patcher and calinet stay in the last block."
        ),
    ] = "tracing",
    plot: Annotated[
        Path | None,
        Option(metavar="FILE", help="A heat map, layers by tokens; of a sweep, curves by layer."),
    ] = None,
    again: Annotated[
        bool, Option("--again", help="Sweep this model anew, though it was swept before.")
    ] = False,
) -> None:
    """Where in the model is the answer to PROMPT recalled? Or: which layer suits `grace`?"""
    # They take seconds to import, and no other command needs them.
    from lifelong.lm import LM
    from lifelong.locate import BY
    from lifelong.models import load_model

    if by not in (*BY, "sweep"):
        raise BadSetting(f"There is no way {by!r}.", f"Take one of: {', '.join(BY)}, sweep.")
    if by == "sweep":
        if prompt or subject:
            raise BadSetting("A sweep has facts of its own.", "Leave PROMPT and --subject out.")
        _sweep(setup, LM.of(*load_model(setup.model)), plot, again)
    elif prompt and subject:
        _trace(setup, LM.of(*load_model(setup.model)), (prompt, subject), by, plot)
    else:
        raise BadSetting(
            f"{by} looks for one fact.", "Give PROMPT and --subject, or take --by sweep."
        )


def _trace(setup: Setup, lm: "LM", asked: tuple[str, str], by: str, plot: Path | None) -> None:
    from lifelong.locate import BY, draw

    with stderr().status("Looking"):
        found = BY[by](lm, *asked)
    if plot:
        draw(found, plot)
    best = divmod(int(found.effects.argmax()), len(found.tokens))
    data = {
        "by": by,
        "answer": found.answer,
        "probability": round(found.probability, 4),
        "tokens": list(found.tokens),
        "subject": list(found.subject),
        "highest": {"layer": best[0], "token": found.tokens[best[1]]},
        "layers": found.layers,
        "effects": found.effects.tolist(),
        "plot": str(plot) if plot else None,
    }
    setup.show(data, fields({**data, "effects": None, "subject": None}))


def _sweep(setup: Setup, lm: "LM", plot: Path | None, again: bool) -> None:
    from lifelong.locate import draw_sweep
    from lifelong.methods.sweep import best, sweep

    with stderr().status("Looking") as status:
        readings = sweep(
            lm,
            again=again,
            progress=lambda text, done: status.update(f"{text} ({done:.0%})"),
        )
    layer = best(lm, readings)
    if plot:
        draw_sweep(readings, layer, plot)
    rows = [asdict(reading) for reading in readings]
    data = {
        "by": "sweep",
        "layer": layer,
        "readings": [{name: _plain(value) for name, value in row.items()} for row in rows],
        "plot": str(plot) if plot else None,
    }
    shown = table(rows[0], ([f"{value:.3g}" for value in row.values()] for row in rows))
    setup.show(data, Group(shown, fields({"layer": layer, "plot": data["plot"]})))


def _plain(value: float) -> float | None:
    """JSON has no word for what is no number."""
    return value if isfinite(value) else None
