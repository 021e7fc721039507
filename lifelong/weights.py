"""The weights of the model as the journal has them: base + the live deltas, neurons beside them.

    installed = cast(float32(base) + delta_1 + delta_2 + ...)      in journal order, never `w -= d`
    neurons   = those of the live hooks, in journal order          see `lifelong.hooks.Branch`

So the weights depend on what is live, not on how it came to be, to the last bit: after an undo, a
redo or a reopening they are what a fresh build gives. Base copies keep the model's own dtype.

The weights belong to the whole model, so whoever computes holds them: `held(state)` lets everybody
in who wants the same state and makes the others wait until the last has left; nobody sees half a
change. Left alone, the model rests in the live state. Never wait here while holding another lock.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, local
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lifelong.errors import StaleCache, UpdateRejected, WeightsUnfit
from lifelong.hooks import Branch, Neurons
from lifelong.lm import LM
from store import Delta, Extension, StoredPatch

LARGEST = 4.0  # norm of one patch's change, as a share of the weight's own

Key = tuple[tuple[int, tuple[int, ...]], ...]  # (patch id, its live positions), in journal order

_STAMP = "_lifelong_weights"  # the attribute of a cache that says under which weights it was made


@dataclass(frozen=True, eq=False)
class State:
    """The touched weights, summed in float32, and the neurons, under the patches `key` names."""

    key: Key
    sums: Mapping[str, torch.Tensor]
    neurons: Mapping[str, Neurons] = field(default_factory=dict)  # by the module they are beside


BASE = State((), {})


class Weights:
    """The base copies of one model, and which state is in it. Safe for threads."""

    def __init__(self, lm: LM) -> None:
        self._lm = lm
        self._base: dict[str, torch.Tensor] = {}
        self._branches: dict[str, Branch] = {}
        self._installed = BASE
        self._resting = BASE
        self._users = 0
        self._free = Condition()
        self._mine = local()

    def state(self, stored: Sequence[StoredPatch], after: State = BASE) -> State:
        """What `stored`, in journal order, make of the base model.

        Where `after` was made of the first of them, the sum goes on from there: the same additions
        in the same order. Raises WeightsUnfit.
        """
        key = tuple((one.id, one.live_positions) for one in stored)
        known = len(after.key) if key[: len(after.key)] == after.key else 0
        sums = dict(after.sums) if known else {}
        neurons = dict(after.neurons) if known else {}
        for one in stored[known:]:
            if isinstance(one.patch, Extension):
                name, more = one.patch.module, _neurons(one.patch.of(one.live_positions))
                neurons[name] = neurons[name].and_(more) if name in neurons else more
                continue
            assert isinstance(one.patch, Delta)
            for name, change in self._changes(one.patch, one.live_positions).items():
                sums[name] = sums.get(name, self._copy(name)).float() + change
        return State(key, sums, neurons)

    def check(self, patch: Delta | Extension) -> None:
        """Refuse what would break the model. Raises UpdateRejected, WeightsUnfit."""
        if isinstance(patch, Extension):
            self._check_neurons(patch)
            return
        for name, factors in patch.factors.items():
            change = self._changes(patch, set(factors.owner.tolist()))[name]
            base = self._copy(name)
            whole = (base.float() + change).to(base.dtype)
            size = float(change.norm() / base.float().norm())
            if not torch.isfinite(whole).all() or not size <= LARGEST:
                raise UpdateRejected(
                    f"{patch.method} would change `{name}` by {size:.2g} of its norm.",
                    f"Nothing was installed (the limit is {LARGEST:g}); check subject and target, "
                    "edit fewer facts at once, or use a memory method.",
                )

    def _check_neurons(self, patch: Extension) -> None:
        for name, tensor in patch.tensors.items():
            if not torch.isfinite(torch.from_numpy(tensor).to(self._lm.dtype)).all():
                raise UpdateRejected(
                    f"{patch.method} made neurons whose {name} is no number in {self._lm.dtype}.",
                    "Nothing was installed; use float32 or bfloat16, or a memory method.",
                )

    @contextmanager
    def held(self, state: State | None = None) -> Iterator[None]:
        """Inside the block this thread computes with `state` (None: whatever it holds already,
        or else the live one), and so does everybody else who is let in."""
        before = self._holding
        wanted = state or before or self._resting
        if before is not None and before.key == wanted.key:
            yield
            return
        with self.away():
            self._enter(wanted)
            try:
                yield
            finally:
                self._leave()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Inside the block this thread holds nothing, and may wait for other locks."""
        before = self._holding
        if before is not None:
            self._leave()
        try:
            yield
        finally:
            if before is not None:
                self._enter(before)

    def rest(self, state: State) -> None:
        """From now on the live state is this one; installed at once, or by the last who leaves."""
        with self._free:
            self._resting = state
            if not self._users:
                self._install(state)

    @property
    def holds(self) -> bool:
        """Whether this thread holds a state."""
        return self._holding is not None

    @property
    def resting(self) -> State:
        """The live state."""
        return self._resting

    def check_cache(self, cache: Any) -> None:
        """Refuse a key-value cache that was filled under other weights than this thread holds.

        Who is not stamped comes from outside: the base model's. Raises StaleCache.
        """
        filled = cache is not None and hasattr(cache, "get_seq_length") and cache.get_seq_length()
        if filled and getattr(cache, _STAMP, ()) != self._installed.key:
            raise StaleCache(
                "These past_key_values were made before the weights were edited, or undone.",
                "Start again from the whole text, without them.",
            )

    def stamp(self, cache: Any) -> None:
        """Note on a cache under which weights it was filled."""
        if hasattr(cache, "get_seq_length"):
            setattr(cache, _STAMP, self._installed.key)

    # -- within ----------------------------------------------------------------------------------

    @property
    def _holding(self) -> State | None:
        return getattr(self._mine, "state", None)

    def _enter(self, state: State) -> None:
        with self._free:
            self._free.wait_for(lambda: not self._users or self._installed.key == state.key)
            self._install(state)
            self._users += 1
        self._mine.state = state

    def _leave(self) -> None:
        self._mine.state = None
        with self._free:
            self._users -= 1
            if not self._users:
                self._install(self._resting)
                self._free.notify_all()

    def _install(self, state: State) -> None:
        if state.key == self._installed.key:
            return
        with torch.inference_mode(False), torch.no_grad():
            for name in self._installed.sums.keys() | state.sums.keys():
                weight = self._weight(name)
                weight.copy_(state.sums.get(name, self._base[name]))
            for path in self._branches.keys() - state.neurons.keys():
                self._branches.pop(path).remove()
            for path, neurons in state.neurons.items():
                self._branch(path).fill(neurons)
        self._installed = state

    def _branch(self, path: str) -> Branch:
        if path not in self._branches:
            module = self._lm.model.get_submodule(path)
            self._branches[path] = Branch(module, next(module.parameters()))
        return self._branches[path]

    def _changes(self, patch: Delta, live: Sequence[int] | set[int]) -> dict[str, torch.Tensor]:
        """The change of every weight, the way round that the module keeps it, on its device."""
        changes = {}
        for name, factors in patch.factors.items():
            change = torch.from_numpy(factors.change(live))
            if self._lm.layout and self._lm.layout.transposed:
                change = change.T
            changes[name] = change.to(self._copy(name).device)
        return changes

    def _copy(self, name: str) -> torch.Tensor:
        """The base copy of a weight, taken when it is first asked for: nothing touched it yet."""
        with self._free:
            if name not in self._base:
                self._base[name] = self._weight(name).detach().clone()
            return self._base[name]

    def _weight(self, name: str) -> nn.Parameter:
        return writable(self._lm, name.removesuffix(".weight"))


def _neurons(hook: Extension) -> Neurons:
    keys, bias, values = (torch.from_numpy(hook.tensors[n]) for n in ("key", "bias", "value"))
    return Neurons(keys, bias, values)


def writable(lm: LM, path: str) -> nn.Parameter:
    """The weight of a linear module, if it can take an edit. Raises WeightsUnfit."""
    module = lm.model.get_submodule(path)
    weight = getattr(module, "weight", None)
    plain = type(module) in (nn.Linear, Conv1D) and type(weight) is nn.Parameter
    if not isinstance(weight, nn.Parameter) or not plain or not _numbers(weight):
        raise WeightsUnfit(
            f"`{path}` is no plain matrix of numbers ({type(module).__name__}, quantised?).",
            "Load the model in float32 or bfloat16, or use a memory method.",
        )
    if sum(p is weight for _, p in lm.model.named_parameters(remove_duplicate=False)) > 1:
        raise WeightsUnfit(
            f"`{path}` shares its weight with another module.",
            "Edit another layer, or use a memory method.",
        )
    return weight


def matrix(lm: LM, path: str) -> torch.Tensor:
    """A weight as (out, in), float32, whichever way round the module keeps it. WeightsUnfit."""
    weight = writable(lm, path).detach().float()
    return weight.T if lm.layout and lm.layout.transposed else weight


def _numbers(weight: torch.Tensor) -> bool:
    return weight.is_floating_point() and not weight.is_meta
