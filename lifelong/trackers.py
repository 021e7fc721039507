"""Where readings are sent besides the journal: one small writer a tracker, imported when asked for.

A writer takes a reading's figures by name; `edits`, the number of the last edit, is the step.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from lifelong.errors import PackageMissing
from store import Reading

Numbers = Mapping[str, float]
Writer = Callable[[Numbers], object]

_PROJECT = "lifelong"


def numbers(reading: Reading) -> Numbers:
    """The figures of a reading that can be drawn over time."""
    body = reading.body
    plain = {k: float(v) for k, v in body.items() if isinstance(v, (int, float))}
    listed = {k: float(len(v)) for k, v in body.items() if isinstance(v, list)}
    return plain | {f"n_{name}": length for name, length in listed.items()}


def _trackio() -> Writer:
    trackio = _package("trackio", "trackio")
    trackio.init(project=_PROJECT)
    return lambda found: trackio.log(dict(found), step=int(found["edits"]))


def _mlflow() -> Writer:
    mlflow = _package("mlflow", "mlflow")
    mlflow.set_experiment(_PROJECT)
    return lambda found: mlflow.log_metrics(dict(found), step=int(found["edits"]))


def _tensorboard() -> Writer:
    board = _package("torch.utils.tensorboard", "tensorboard").SummaryWriter(comment=_PROJECT)

    def write(found: Numbers) -> None:
        for name, value in found.items():
            board.add_scalar(name, value, int(found["edits"]))
        board.flush()

    return write


TRACKERS: Mapping[str, Callable[[], Writer]] = {
    "trackio": _trackio,
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
}


def _package(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as exc:
        raise PackageMissing(
            f"Readings cannot be sent to {package}: {exc}.", f"`pip install {package}`."
        ) from exc
