"""Where a fact is recalled, as a table, as JSON, as a picture."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from lifelong.cli.setup import Setup, fields, stderr
from lifelong.errors import BadSetting


def locate(
    setup: Setup,
    prompt: Annotated[str, Argument(help="A text that the model completes with a fact it knows.")],
    subject: Annotated[str, Option(help="Whom or what it is about, as it stands there.")],
    by: Annotated[str, Option(help="tracing (corrupt, restore) or neurons.")] = "tracing",
    plot: Annotated[
        Path | None, Option(metavar="FILE", help="A heat map, layers by tokens.")
    ] = None,
) -> None:
    """Where in the model is the answer to PROMPT recalled: which layers, at which tokens?"""
    # They take seconds to import, and no other command needs them.
    from lifelong.lm import LM
    from lifelong.locate import BY, draw
    from lifelong.models import load_model

    if by not in BY:
        raise BadSetting(f"There is no way {by!r}.", f"Take one of: {', '.join(BY)}.")
    with stderr().status("Looking"):
        found = BY[by](LM.of(*load_model(setup.model)), prompt, subject)
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
