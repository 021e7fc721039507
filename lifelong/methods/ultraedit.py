"""UltraEdit: Training-, Subject-, and Memory-Free Lifelong Editing in Language Models (Gu et al.,
2025).

    h, g     input and output gradient of a matrix at the target's tokens, from one backward pass
    v      = -rate |h^|^2 g^        ^: standardised by the statistics of all edits so far
    W     <- W + V^T H (H^T H + I)^-1  =  W + V^T (H H^T + I)^-1 H

No search and no second moments: where the gradient points says what to write, how long h is once
common scales are taken out says how much, and the solve keeps the tokens of a batch apart. The
statistics are read from the live patches, so an edit that is undone no longer counts in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from lifelong.hooks import tracing
from lifelong.lm import LM, Role
from lifelong.methods.blocks import padded
from lifelong.methods.wording import Wording, asked
from store import Delta, Edit, Factors, StoredPatch

BATCH = 16  # texts
_GATES, _UPS = (0.34, 0.47), (0.56, 0.75)  # which blocks, as shares of the depth

Found = dict[str, list[torch.Tensor]]  # weight -> rows, a token each


@dataclass(frozen=True, slots=True)
class UltraEdit:
    """Changes of rank (tokens of the targets) in the middle of the model, at once."""

    name: ClassVar[str] = "ultraedit"
    by_subject: ClassVar[bool] = True

    rate: float = 1e-4

    def prepare(self, lm: LM) -> None:
        """Nothing: the base model needs not be known."""

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Delta:
        """All edits in one change."""
        texts = asked(lm, edits)
        modules = _modules(lm)
        inputs, slopes = _backward(lm, texts, modules)
        owner = np.array([t.edit for t in texts for _ in t.labels])
        factors = {}
        for name in modules:
            h, g = (torch.cat(found[name]).double().cpu().numpy() for found in (inputs, slopes))
            past = _past(live, name)
            # With a row of nothing among them, so that a single token differs from the mean.
            all_h = np.concatenate([0 * h[:1], h, *(old.v.T for old in past)])
            all_g = np.concatenate([0 * g[:1], g, *(old.keys.T for old in past)])
            length = (_standard(h, all_h) ** 2).sum(1, keepdims=True)
            v = -self.rate * length * _standard(g, all_g)
            factors[name] = Factors(
                u=v.T.astype(np.float32),
                v=h.T.astype(np.float32),
                mix=np.eye(len(h)) + h @ h.T,
                owner=owner,
                keys=g.T.astype(np.float32),
            )
        return Delta(self.name, factors)


def _modules(lm: LM) -> dict[str, nn.Module]:
    """By the name of the weight: what opens the MLPs of some blocks, what fills those of others."""
    spans: dict[Role, tuple[float, float]] = {"mlp_in": _UPS}
    if lm.layout is not None and lm.layout.mlp_gate is not None:
        spans["mlp_gate"] = _GATES
    return {
        f"{lm.path(role, layer)}.weight": lm.module(role, layer)
        for role, (low, high) in spans.items()
        for layer in range(int(low * lm.layers), int(high * lm.layers) + 1)
    }


def _backward(
    lm: LM, texts: Sequence[Wording], modules: dict[str, nn.Module]
) -> tuple[Found, Found]:
    """Inputs and output gradients at the tokens from which the targets are predicted."""
    inputs: Found = {name: [] for name in modules}
    slopes: Found = {name: [] for name in modules}
    for start in range(0, len(texts), BATCH):
        for name, (h, g) in _at_labels(lm, texts[start : start + BATCH], modules).items():
            inputs[name].append(h)
            slopes[name].append(g)
    return inputs, slopes


@torch.inference_mode(False)  # whatever the caller has switched off
@torch.enable_grad()
def _at_labels(
    lm: LM, texts: Sequence[Wording], modules: dict[str, nn.Module]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By weight, (n, in) and (n, out), of the sum over texts of the mean NLL of the target."""
    ids, mask = (part.to(lm.device) for part in padded([(*t.head, *t.tail) for t in texts]))
    spots = [(row, len(t.head) + place) for row, t in enumerate(texts) for place, _ in t.spots]
    rows, at = torch.tensor(spots, device=lm.device).unbind(1)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def look(name: str, entered: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        seen[name] = (entered[rows, at].detach(), torch.zeros_like(out, requires_grad=True))
        return out + seen[name][1]

    with tracing(after={module: partial(look, name) for name, module in modules.items()}):
        hidden = lm.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    said = lm.head(hidden[rows, at]).float().log_softmax(-1)
    labels = torch.tensor([label for t in texts for label in t.labels], device=lm.device)
    weights = torch.tensor([1 / len(t.labels) for t in texts for _ in t.labels], device=lm.device)
    slopes = torch.autograd.grad(
        -(said.gather(1, labels[:, None])[:, 0] * weights).sum(), [g for _, g in seen.values()]
    )  # no weight gets a gradient
    return {
        name: (h, slope[rows, at])
        for (name, (h, _)), slope in zip(seen.items(), slopes, strict=True)
    }


def _standard(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """(n, d): less the mean, over the deviation, of all rows `among` (m, d)."""
    return np.asarray((rows - among.mean(0)) / (among.std(0) + 1e-12))


def _past(live: Sequence[StoredPatch], name: str) -> list[Factors]:
    """The columns of this method's live edits in one weight."""
    return [
        stored.patch.factors[name].of(stored.live_positions)
        for stored in live
        if isinstance(stored.patch, Delta) and stored.patch.method == UltraEdit.name
    ]
