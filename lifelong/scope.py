"""Is this prompt about that edit?  The scope classifier behind the subject gate.

    prompt ── subject gate ── focus: subject -> "this" ── encoder ── a ──┐
    edit ──── subject known ─ focus: subject -> "this" ── encoder ── b ──┼─ head ── P(in scope)
    edit's target ─────────────────────────────────────── encoder ── t ──┘

The gate has settled *whom* a prompt is about; what is left is whether it asks for the same
*relation*. SERAC (Mitchell et al. 2022, survey Eq. 14) answers that by a similarity of embeddings.
The vector b is journalled with the edit. The target tells what kind of answer the edit gives:
"this, the" is likelier to ask for an instrument where the target is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.encoder import Encoder, SentenceEncoder, Vectors

_WIDTH = 256
_FLOOR = -0.05  # cosine below which no edit is looked at more closely


class ScopeClassifier(Protocol):
    """One method: how likely is each edit to cover the query?"""

    def score(
        self, query: Vectors, edits: Vectors, targets: Sequence[str], *, masked: bool
    ) -> Vectors:
        """P(in scope), (n,) float32, for unit vectors `query` (d,) and `edits` (n, d).

        `targets` are what the edits answer. `masked` says that the subject was found and masked
        out of both texts.
        """
        ...


@dataclass(frozen=True)
class CosineScope:
    """A logistic curve over the cosine; its centre is stricter where no subject could be masked."""

    slope: float = 14.0
    masked_centre: float = 0.46
    whole_centre: float = 0.86

    def score(
        self, query: Vectors, edits: Vectors, targets: Sequence[str], *, masked: bool
    ) -> Vectors:
        """See `ScopeClassifier.score`."""
        centre = self.masked_centre if masked else self.whole_centre
        odds = np.exp(self.slope * (edits @ query - centre))
        return np.asarray(odds / (1 + odds), np.float32)


class Head(nn.Module):
    """(a, b, t) -> logit of P(in scope): a question's, an edit's and its target's vector, (n, d).

    h = relu(F [a*b, |a - b|, a*t, a.b]) * (1 + tanh(G [b, t]))
    logit = o.h + c (a.b) + c0
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.features = nn.Linear(3 * dim + 1, _WIDTH)
        self.gate = nn.Linear(2 * dim, _WIDTH)
        self.out = nn.Linear(_WIDTH, 1, bias=False)
        self.cosine = nn.Linear(1, 1)
        self.dropout = nn.Dropout(0.3)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.cosine.weight, 15.0)
        nn.init.constant_(self.cosine.bias, -6.0)

    def forward(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """(n,)."""
        unit = self.dim**0.5  # entries of a unit vector times this are of size 1
        cosine = (a * b).sum(-1, keepdim=True)
        pair = torch.cat([unit**1.5 * a * b, unit * (a - b).abs(), unit**1.5 * a * t, cosine], -1)
        gate = 1 + torch.tanh(self.gate(unit * torch.cat([b, t], -1)))
        hidden = F.relu(self.features(self.dropout(pair))) * gate
        logits: Tensor = self.out(self.dropout(hidden)) + self.cosine(cosine)
        return logits.squeeze(-1)


class LearnedScope:
    """The trained head; where no subject could be masked, the cosine decides."""

    def __init__(self, encoder: SentenceEncoder, weights: Mapping[str, Tensor]) -> None:
        """`weights` as `lifelong.train.head.train` makes them."""
        self._encoder = encoder
        self._whole = CosineScope(slope=15.0, whole_centre=0.8)
        self._slope, self._shift = weights["slope"].double(), weights["shift"].double()
        self._head = Head(encoder.dim).eval()
        names = self._head.state_dict()
        self._head.load_state_dict({name: weights[name] for name in names})
        self._head.double()  # so that a score does not depend on what else is scored

    def score(
        self, query: Vectors, edits: Vectors, targets: Sequence[str], *, masked: bool
    ) -> Vectors:
        """See `ScopeClassifier.score`. Reads the targets of edits that are near enough."""
        if not masked:
            return self._whole.score(query, edits, targets, masked=False)
        scores = np.zeros(len(edits), np.float32)
        near = np.flatnonzero(edits @ query > _FLOOR).tolist()
        if not near:
            return scores
        read = self._encoder.encode([targets[i] for i in near])
        a, b, t = (torch.from_numpy(v).double() for v in (query, edits[near], read))
        with torch.inference_mode():
            logits = self._head(a.expand_as(b), b, t)
        scores[near] = torch.sigmoid(self._slope * logits + self._shift).float().numpy()
        return scores


def scope_for(encoder: Encoder) -> ScopeClassifier:
    """The classifier for the vectors of `encoder`: the trained one for the encoder it is for."""
    if isinstance(encoder, SentenceEncoder) and encoder.head:
        return LearnedScope(encoder, encoder.head)
    return CosineScope()
