"""Low-rank adapters (LoRA, Hu et al. 2021) on linear maps of a model's blocks."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RANK = 16

_SCALE = 2.0  # of an adapter's output while it is trained; folded into `up` afterwards


class LowRank(nn.Module):
    """A linear map (out, in) plus `up @ down`: down (rank, in), up (out, rank), zero at first."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, states: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        change = F.linear(F.linear(states, self.down), self.up)
        return torch.add(self.base(states), change, alpha=_SCALE)


def low_rank(
    model: nn.Module,
    start: Mapping[str, Tensor] | None = None,
    *,
    within: str = r"(.*\.)?layer\..*",
    rank: int = RANK,
) -> dict[str, LowRank]:
    """Freeze `model`; put a LowRank on the linear maps whose name `within` matches; by parameter.

    `start` are the `factors` of earlier adapters to go on from.
    """
    model.requires_grad_(False)
    adapters = {}
    for name, module in [*model.named_modules()]:
        if isinstance(module, nn.Linear) and re.fullmatch(within, name):
            adapter = adapters[f"{name}.weight"] = LowRank(module, rank)
            if start is not None:
                adapter.down.data.copy_(start[f"{name}.weight.down"])
                adapter.up.data.copy_(start[f"{name}.weight.up"] / _SCALE)
            model.set_submodule(name, adapter)
    return adapters


def factors(adapters: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """What `encoder.adapt` adds: `.up` (out, rank) and `.down` (rank, in) a parameter."""
    return {
        f"{name}.{part}": factor.detach().contiguous()
        for name, adapter in adapters.items()
        for part, factor in (("down", adapter.down), ("up", _SCALE * adapter.up))
    }
