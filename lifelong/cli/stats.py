"""What the weights already answer to, measured before they are written into."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from lifelong.cli.setup import Setup, fields, stderr


def stats(
    setup: Setup,
    file: Annotated[Path, Argument(help="Any text.", exists=True, dir_okay=False)],
    tokens: Annotated[int, Option(help="So many of its tokens are read.", min=1)] = 40_000,
) -> None:
    """Measure on FILE what edits of the weights must preserve; from now on they use it."""
    # They take seconds to import, and no other command needs them.
    from lifelong import moments
    from lifelong.lm import LM
    from lifelong.methods.keys_values import early
    from lifelong.methods.rome import Rome
    from lifelong.models import load_model

    lm = LM.of(*load_model(setup.model))
    layers = sorted({*early(lm), Rome().layer(lm)})
    with stderr().status("Reading") as status:
        found = moments.measure(
            lm,
            layers,
            file,
            tokens=tokens,
            progress=lambda text, done: status.update(f"{text} ({done:.0%})"),
        )
    data = {"layers": layers, "tokens": found[0].tokens, "text": found[0].text}
    setup.show(data, fields(data))
