"""`lifelong train`: make again what is trained once and shipped."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

from typer import Option, Typer, echo

app = Typer(help="Train again what is shipped.", no_args_is_help=True)


@app.command()
def scope(
    data: Annotated[Path, Option(help="Folder of public benchmark data.", exists=True)],
    out: Annotated[Path, Option(help="The safetensors file to write.")],
    seed: Annotated[int, Option(help="Of every draw.")] = 0,
) -> None:
    """Train the scope classifier: the encoder's adapter, then its head."""
    out.parent.mkdir(parents=True, exist_ok=True)  # now, not after minutes of training
    import_module("lifelong.train.scope").write(data, out, seed=seed)  # torch takes seconds
    echo(f"Wrote {out}.")


@app.command()
def counterfactual(
    data: Annotated[Path, Option(help="Folder of public benchmark data.", exists=True)],
    out: Annotated[Path, Option(help="The safetensors file to write.")],
    model: Annotated[str, Option(help="Name, hub id or folder.")] = "smollm2-135m",
    seed: Annotated[int, Option(help="Of every draw.")] = 0,
) -> None:
    """Train the adapter of `kaft`, with which a model says what it reads."""
    out.parent.mkdir(parents=True, exist_ok=True)
    import_module("lifelong.train.counterfactual").write(data, out, name=model, seed=seed)
    echo(f"Wrote {out}.")
