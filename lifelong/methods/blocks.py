"""Some blocks of a model over fixed rows of tokens: what lies below and before is computed once."""

from collections.abc import Callable, Sequence
from copy import copy
from itertools import takewhile
from typing import Any

import torch

from lifelong.hooks import tracing
from lifelong.lm import LM


class Blocks:
    """Some blocks of the model over fixed rows of tokens; what lies below is computed once.

    `start` (B, S, H) is what enters the first of them.
    """

    def __init__(
        self, lm: LM, layers: range, heads: Sequence[Sequence[int]], tails: Sequence[Sequence[int]]
    ) -> None:
        """Rows are `heads` (padded on the left) then `tails` (on the right), of which S tokens run
        again and again; the heads' keys and values are kept."""
        self._modules = {layer: lm.module("block", layer) for layer in layers}
        ids, ahead = padded(tails)
        with torch.no_grad():
            cache, seen = _read(lm, heads)
            mask = torch.cat([seen, ahead], dim=1).to(lm.device)
            past = _Past(cache, layers)
            self._calls: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
            looks = {m: self._keeper(n, cache, past) for n, m in self._modules.items()}
            with tracing(before=looks, stop=self._modules[layers[-1]]):
                lm.model.base_model(
                    input_ids=ids.to(lm.device),
                    attention_mask=mask,
                    position_ids=_places(mask)[:, seen.shape[1] :],
                    past_key_values=cache,
                    use_cache=True,
                )

    def _keeper(self, layer: int, cache: object, past: "_Past") -> Callable[..., None]:
        def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            named = {k: past if v is cache else v for k, v in kwargs.items()}
            if "hidden_states" in named:
                args = (named.pop("hidden_states"), *args)
            if layer == min(self._modules):
                self.start: torch.Tensor = args[0]
            self._calls[layer] = (tuple(past if a is cache else a for a in args[1:]), named)

        return keep

    def run(self, hidden: torch.Tensor, first: int | None = None) -> torch.Tensor:
        """What leaves the last block when `hidden` (B, S, H) enters the first, or block `first`."""
        for layer in sorted(self._modules):
            if first is None or layer >= first:
                hidden = self.step(hidden, layer)
        return hidden

    def only(self, rows: torch.Tensor) -> "Blocks":
        """The same for some of the rows, (n,) indices."""
        few, batch = copy(self), len(self.start)

        def cut(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return tuple(cut(part) for part in value)
            if isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) == batch:
                return value[rows]
            return value.only(rows) if isinstance(value, _Past) else value

        few.start = self.start[rows]
        few._calls = {
            layer: (cut(args), {name: cut(value) for name, value in kwargs.items()})
            for layer, (args, kwargs) in self._calls.items()
        }
        return few

    def step(self, hidden: torch.Tensor, layer: int) -> torch.Tensor:
        """What leaves block `layer`."""
        args, kwargs = self._calls[layer]
        out = self._modules[layer](hidden, *args, **kwargs)
        left: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return left


def _read(lm: LM, heads: Sequence[Sequence[int]]) -> tuple[Any, torch.Tensor]:
    """The cache of heads and their mask (B, P): what all begin with, then the rest of each, padded
    on its left.

    What all begin with (a chat's opening, for one) is run once; rests that are much shorter than
    the longest are run apart: padding costs as much as text.
    """
    alike = takewhile(lambda ids: len(set(ids)) == 1, zip(*heads, strict=False))
    shared = [ids[0] for ids in alike]
    rests = [head[len(shared) :] for head in heads]
    _, seen = padded(rests, left=True, least=not shared)
    short = 2 * seen.sum(1) < seen.shape[1]
    parts = [rows for kind in (~short, short) if len(rows := kind.nonzero()[:, 0])]
    caches = [_continued(lm, shared, [rests[row] for row in rows.tolist()]) for rows in parts]
    for whole, *others in zip(*(cache.layers for cache in caches), strict=True):
        for name in ("keys", "values") if others else ():
            long = getattr(whole, name)
            both = long.new_zeros(len(heads), *long.shape[1:])
            for rows, layer in zip(parts, (whole, *others), strict=True):
                found = getattr(layer, name)
                rest = found.shape[2] - len(shared)
                both[rows, :, : len(shared)] = found[:, :, : len(shared)]
                both[rows, :, long.shape[2] - rest :] = found[:, :, len(shared) :]
            setattr(whole, name, both)
    return caches[0], _behind(shared, seen)


def _continued(lm: LM, shared: Sequence[int], rests: Sequence[Sequence[int]]) -> Any:
    """The cache of texts that all begin with the same."""
    cache, run = None, lm.model.base_model
    ids, mask = padded(rests, left=True, least=not shared)
    if shared:
        once = torch.tensor([shared], device=lm.device)
        cache = run(input_ids=once, use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(rests))
    if ids.shape[1]:
        mask = _behind(shared, mask).to(lm.device)
        cache = run(
            input_ids=ids.to(lm.device),
            attention_mask=mask,
            position_ids=_places(mask)[:, len(shared) :],
            past_key_values=cache,
            use_cache=True,
        ).past_key_values
    return cache


def _behind(shared: Sequence[int], mask: torch.Tensor) -> torch.Tensor:
    """The mask of rows that stand behind what they share."""
    return torch.cat([mask.new_ones(len(mask), len(shared)), mask], dim=1)


def _places(mask: torch.Tensor) -> torch.Tensor:
    """The position of every token."""
    return (mask.cumsum(1) - 1).clamp(min=0)


class _Past:
    """The keys and values of the heads, as attention asks a cache for them; it never grows."""

    def __init__(self, cache: Any, layers: range) -> None:
        # Rows without a head are all padding there, and attention over nothing may be no number.
        self._kept = {
            n: (cache.layers[n].keys.nan_to_num(), cache.layers[n].values.nan_to_num())
            for n in layers
        }

    def only(self, rows: torch.Tensor) -> "_Past":
        few = copy(self)
        few._kept = {n: (keys[rows], values[rows]) for n, (keys, values) in self._kept.items()}
        return few

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both (B, heads, P + S, d)."""
        old_keys, old_values = self._kept[layer_idx]
        return torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)


def padded(
    rows: Sequence[Sequence[int]], *, left: bool = False, least: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (B, longest row, but at least `least`)."""
    width = max(least, *map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        at = slice(width - len(tokens), width) if left else slice(0, len(tokens))
        ids[row, at] = torch.tensor(list(tokens), dtype=torch.long)
        mask[row, at] = 1
    return ids, mask
