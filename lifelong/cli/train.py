"""`lifelong train`: make again what is trained once and shipped."""

from pathlib import Path
from typing import Annotated

from typer import Option, Typer, echo

from lifelong.train import scope as training

train = Typer(help="Train again what is shipped.", no_args_is_help=True)


@train.command()
def scope(
    data: Annotated[Path, Option(help="Folder of public benchmark data.", exists=True)],
    out: Annotated[Path, Option(help="The safetensors file to write.")],
    seed: Annotated[int, Option(help="Of every draw.")] = 0,
) -> None:
    """Train the scope classifier: the encoder's adapter, then its head."""
    training.write(data, out, seed=seed)
    echo(f"Wrote {out}.")
