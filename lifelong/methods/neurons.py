"""What the methods share that put neurons beside the last MLP: what they shall say, training.

MLP(x) + relu(x K^T + b) V        x: the MLP's own input, so a gated MLP stays as it is
"""

from collections.abc import Callable, Sequence

import torch

from lifelong.hooks import Neurons, tracing
from lifelong.lm import LM, Role
from lifelong.methods.blocks import Blocks
from lifelong.methods.keys_values import normed
from lifelong.methods.wording import Wording
from store import Extension, StoredPatch

_TOP = 40  # of the largest that are averaged: T-Patcher's 1,000 of 40,000
_DECAY = 0.01
_LONGEST = 5.0  # gradient


def site(lm: LM) -> Role:
    """What neurons stand beside: the MLP, or the norm behind it, which would bound them."""
    return "mlp_norm" if normed(lm) else "mlp"


def beside(lm: LM) -> str:
    """The path of the module that they stand beside: in the last block."""
    return lm.path(site(lm), lm.layers - 1)


class Said:
    """Some wordings of targets, at the tokens from which these are to be said.

    Behind the MLP of the last block no token looks at another, so all below is computed once.
    """

    def __init__(self, lm: LM, texts: Sequence[Wording]) -> None:
        self._lm = lm
        spots = [
            (row, place, label, t.edit, t.kind == "bare")
            for row, t in enumerate(texts)
            for place, label in t.spots
        ]
        columns = torch.tensor(spots, device=lm.device).unbind(1)
        self.labels, self.edit, bare = columns[2:]  # (n,): of every token that is to be said
        self.bare = bare.bool()
        self.wordings = len(texts)
        last = range(lm.layers - 1, lm.layers)
        blocks = Blocks(lm, last, [t.head for t in texts], [t.tail for t in texts])
        seen: list[torch.Tensor] = []
        look = {lm.module(site(lm), lm.layers - 1): lambda entered, _: seen.append(entered)}
        with torch.no_grad(), tracing(after=look):
            self._out = blocks.run(blocks.start)[columns[:2]]
            self.states = seen[0][columns[:2]].float()  # (n, in): what enters the MLP
            self.wrong = self._logits(self._out).argmax(-1) != self.labels

    def logits(self, neurons: Neurons) -> torch.Tensor:
        """(n, vocabulary), with these neurons at work: what they say is added to the block's."""
        return self._logits(self._out + neurons.act(self.states).to(self._out.dtype))

    def _logits(self, out: torch.Tensor) -> torch.Tensor:
        return self._lm.head(self._lm.module("final_norm")(out)).float()


def begin(lm: LM, query: torch.Tensor) -> Neurons:
    """Neurons that answer the states `query` (r, in) with 1, and say nothing yet."""
    keys = query / query.square().sum(1, keepdim=True)
    return Neurons(keys, query.new_zeros(len(query)), query.new_zeros(len(query), lm.hidden))


@torch.inference_mode(False)
@torch.enable_grad()
def train(
    start: Neurons,
    query: torch.Tensor,
    loss: Callable[[Neurons], tuple[torch.Tensor, bool]],
    *,
    steps: int,
    rate: float,
) -> Neurons:
    """Adam on all of them until `loss` says that it is enough.

    Keys are trained in units of 1 / |x|, the mean over `query` (r, in).
    """
    scale = query.norm(dim=1).mean()
    parts = [start.keys * scale, start.bias, start.values]
    leaves = [part.clone().requires_grad_() for part in parts]
    adam = torch.optim.AdamW(leaves, lr=rate, weight_decay=_DECAY)
    for _ in range(steps):
        now, enough = loss(Neurons(leaves[0] / scale, *leaves[1:]))
        if enough:
            break
        adam.zero_grad()
        now.backward(inputs=leaves)
        torch.nn.utils.clip_grad_norm_(leaves, _LONGEST)
        adam.step()
    keys, bias, values = (leaf.detach() for leaf in leaves)
    return Neurons(keys / scale, bias, values)


def narrowed(neurons: Neurons, query: torch.Tensor, away: torch.Tensor, share: float) -> Neurons:
    """Neurons that begin to fire at a `share` of the way to their query: from where they began to,
    or from what came nearest of `away` (m, in), which shall not fire.

    Each answers its own of `query` (r, in) as before.
    """
    active = (query * neurons.keys).sum(1) + neurons.bias  # (r,)
    nearest = (away @ neurons.keys.T + neurons.bias).amax(0).clamp(min=0.0)
    rim = torch.lerp(nearest, active, share)
    rim = torch.where(rim < active, rim, 0.0)  # one that does not stand out stays as it is
    steeper = active / (active - rim)
    return Neurons(neurons.keys * steeper[:, None], (neurons.bias - rim) * steeper, neurons.values)


def largest(values: torch.Tensor, number: int = _TOP) -> torch.Tensor:
    """The mean of the largest of `values`: what is quiet already has no slope."""
    return values.flatten().topk(min(number, values.numel())).values.mean()


def answered(lm: LM, live: Sequence[StoredPatch], module: str) -> list[torch.Tensor]:
    """The states (r, in) that the neurons of live edits answer."""
    hooks = [
        stored.patch.of(stored.live_positions)
        for stored in live
        if isinstance(stored.patch, Extension) and stored.patch.module == module
    ]
    return [torch.from_numpy(hook.tensors["query"]).to(lm.device) for hook in hooks]


def hook(
    method: str, module: str, neurons: Neurons, query: torch.Tensor, owner: torch.Tensor
) -> Extension:
    """The patch of neurons, the states they answer, and the edits they belong to (r,)."""
    parts = {"key": neurons.keys, "bias": neurons.bias, "value": neurons.values, "query": query}
    tensors = {name: part.float().cpu().numpy() for name, part in parts.items()}
    return Extension(method, module, tensors, owner.cpu().numpy())
