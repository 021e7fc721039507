"""Low-rank adapters of a language model, on for as long as a reply is made.

    y = W x + up (down x)       for the linear maps that the file names

`lifelong train counterfactual` makes one: the model obeys what it reads. Whoever asks meanwhile in
another thread gets the model without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional as F

from lifelong.errors import ModelDamaged
from lifelong.hooks import After, tracing
from lifelong.lm import LM

SHIPPED = Path(__file__).parent / "trained/counterfactual.safetensors"


def adapter_for(lm: LM, file: Path | None = None) -> Path | None:
    """`file`, or the adapter that is shipped, where it was trained for this model; else None.

    Raises ModelDamaged.
    """
    if file is None and not SHIPPED.exists():
        return None
    file = file or SHIPPED
    with _opened(file) as adapter:
        return file if adapter.metadata()["model"] == lm.fingerprint else None


@contextmanager
def adapted(lm: LM, file: Path) -> Iterator[None]:
    """Inside the block, in this thread, the model has that adapter. Raises ModelDamaged."""
    with _opened(file) as adapter:
        read = {key: adapter.get_tensor(key).to(lm.device, lm.dtype) for key in adapter.keys()}
    names = sorted({key.rpartition(".weight.")[0] for key in read})
    after: dict[torch.nn.Module, After] = {
        lm.model.get_submodule(name): partial(
            _add, read[f"{name}.weight.down"], read[f"{name}.weight.up"]
        )
        for name in names
    }
    with tracing(after=after):
        yield


def _add(
    down: torch.Tensor, up: torch.Tensor, states: torch.Tensor, output: torch.Tensor
) -> torch.Tensor:
    return output + F.linear(F.linear(states, down), up)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as adapter:
            yield adapter
    except (OSError, SafetensorError) as exc:
        raise ModelDamaged(f"No adapter can be read from {file}: {exc}", "Train it again.") from exc
