"""The only file that touches modules: look at what goes through them, or replace what comes out.

Everything here but `Branch` ends with its `with` block, whatever is raised in it, and acts only in
the thread that opened it: others may run the same model meanwhile.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from threading import get_ident
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

Before = Callable[[tuple[Any, ...], dict[str, Any]], None]  # what a module is called with
After = Callable[[torch.Tensor, torch.Tensor], torch.Tensor | None]  # (input, output) -> output

_ROOM = 16  # neurons that a branch has room for at least

_NONE: Mapping[nn.Module, Any] = MappingProxyType({})


@contextmanager
def tracing(
    *,
    before: Mapping[nn.Module, Before] = _NONE,
    after: Mapping[nn.Module, After] = _NONE,
    stop: nn.Module | None = None,
) -> Iterator[None]:
    """Show each module's call to `before` and its result to `after`, which may replace it.

    A result that is a tuple is shown and replaced in its first place. Once `stop` is done, the rest
    of the block is skipped.
    """
    with ExitStack() as undo:
        for module, look in before.items():
            handle = module.register_forward_pre_hook(_pre_hook(look), with_kwargs=True)
            undo.callback(handle.remove)
        for module, act in after.items():
            undo.callback(module.register_forward_hook(_hook(act)).remove)
        if stop is not None:
            undo.callback(stop.register_forward_hook(_hook(_stop)).remove)
        with suppress(_Stopped):
            yield


@contextmanager
def placing(
    model: nn.Module, values: Mapping[nn.Module, Mapping[int, torch.Tensor]], columns: Sequence[int]
) -> Iterator[None]:
    """While `generate` runs on a batch, modules give `values[module][row]` at one place of a row.

    `columns` says where, for each row of the batch that `generate` was given. It may run the row
    in pieces, several times, or in several copies (beams) next to each other: what counts is how
    many tokens the cache holds when `model`, the decoder without its head, is called.
    """
    begin = 0

    def look(_args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal begin
        cache = kwargs.get("past_key_values")
        begin = 0 if cache is None else int(cache.get_seq_length())

    def put(mine: Mapping[int, torch.Tensor]) -> After:
        def act(_input: torch.Tensor, out: torch.Tensor) -> torch.Tensor | None:
            copies = out.shape[0] // len(columns)
            here = {row: columns[row] - begin for row in mine}
            here = {row: at for row, at in here.items() if 0 <= at < out.shape[1]}
            if not here:
                return None
            out = out.clone()
            for row, at in here.items():
                out[row * copies : (row + 1) * copies, at] = mine[row].to(out)
            return out

        return act

    after = {module: put(mine) for module, mine in values.items()}
    with tracing(before={model: look}, after=after):
        yield


@dataclass(frozen=True, eq=False)
class Neurons:
    """What `Branch` adds: keys (r, in), bias (r,), values (r, out), float32."""

    keys: torch.Tensor
    bias: torch.Tensor
    values: torch.Tensor

    def act(self, entered: torch.Tensor) -> torch.Tensor:
        """relu(x K^T + b) V for x (..., in)."""
        return torch.relu(entered @ self.keys.T + self.bias) @ self.values

    def and_(self, more: "Neurons") -> "Neurons":
        """These, and `more` behind them."""
        return Neurons(
            torch.cat([self.keys, more.keys]),
            torch.cat([self.bias, more.bias]),
            torch.cat([self.values, more.values]),
        )


class Branch:
    """Neurons beside a module, for every thread: it gives out + relu(x K^T + b) V.

    Placed once; new neurons are copied into the same tensors while they have room, so that a
    compiled model sees them. The room is a power of two, and so a function of their number.
    """

    def __init__(self, module: nn.Module, like: torch.Tensor) -> None:
        """Beside `module`, with the dtype and on the device of `like`."""
        self._like = like
        self._room = Neurons(*(like.new_zeros(0),) * 3)
        self._handle = module.register_forward_hook(_beside(self))

    def fill(self, neurons: Neurons) -> None:
        """From now on these."""
        room = max(_ROOM, 1 << (len(neurons.bias) - 1).bit_length())
        if len(self._room.bias) != room:
            parts = (neurons.keys, neurons.bias, neurons.values)
            self._room = Neurons(*(self._like.new_zeros(room, *p.shape[1:]) for p in parts))
        for name in ("keys", "bias", "values"):
            place, new = getattr(self._room, name), getattr(neurons, name)
            place.zero_()
            place[: len(new)].copy_(new)

    def act(self, entered: torch.Tensor) -> torch.Tensor:
        """What is added."""
        return self._room.act(entered)

    def remove(self) -> None:
        """The module is alone again."""
        self._handle.remove()


def _beside(branch: Branch) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + branch.act(args[0]), *output[1:])
        return output + branch.act(args[0])

    return hook


class _Stopped(Exception):
    pass


def _stop(_input: torch.Tensor, _output: torch.Tensor) -> None:
    raise _Stopped


def _pre_hook(look: Before) -> Callable[..., None]:
    mine = get_ident()

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if get_ident() == mine:
            look(args, kwargs)

    return hook


def _hook(act: After) -> Callable[..., Any]:
    mine = get_ident()

    def hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if get_ident() != mine:
            return None
        shown = output[0] if isinstance(output, tuple) else output
        given = act(args[0] if args else shown, shown)
        if given is None:
            return None
        return (given, *output[1:]) if isinstance(output, tuple) else given

    return hook
