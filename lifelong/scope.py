"""Is this prompt about that edit?  The scope classifier behind the subject gate.

    prompt ── subject gate ── focus: subject -> "this" ── encoder ──┐
                                                                    ├─ P(in scope)
    edit ──── subject known ─ focus: subject -> "this" ── encoder ──┘   (journalled)

The gate has settled *whom* a prompt is about; what is left is whether it asks for the same
*relation*. SERAC (Mitchell et al. 2022, survey Eq. 14) answers that by a similarity of embeddings.
"""

from dataclasses import dataclass
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.encoder import Encoder, SentenceEncoder, Vectors

_MAX_TOKENS = 64


class ScopeClassifier(Protocol):
    """One method: how likely is each edit to cover the query?"""

    def score(self, query: Vectors, edits: Vectors, *, masked: bool) -> Vectors:
        """P(in scope), (n,) float32, for unit vectors `query` (d,) and `edits` (n, d).

        `masked` says that the subject was found and masked out of both texts.
        """
        ...


@dataclass(frozen=True)
class CosineScope:
    """A logistic curve over the cosine; its centre is stricter where no subject could be masked.

    `tests/benchmarks/scope_curve.py` prints what the curve lets through.
    """

    slope: float = 14.0
    masked_centre: float = 0.46
    whole_centre: float = 0.86

    def score(self, query: Vectors, edits: Vectors, *, masked: bool) -> Vectors:
        """See `ScopeClassifier.score`."""
        centre = self.masked_centre if masked else self.whole_centre
        odds = np.exp(self.slope * (edits @ query - centre))
        return np.asarray(odds / (1 + odds), np.float32)


def scope_for(encoder: Encoder) -> ScopeClassifier:
    """The classifier for the vectors of `encoder`: the scope adapter spreads them differently."""
    if isinstance(encoder, SentenceEncoder) and encoder.adapted:
        return CosineScope(slope=15.0, masked_centre=0.4, whole_centre=0.8)
    return CosineScope()


Pair = tuple[str, str, str]  # a question's clause, an edit's clause, the edit's target


class PairReader(nn.Module):
    """Reads pairs with a transformer: logits of P(the edit covers the question)."""

    def __init__(self, bert: Any, tokenizer: Any) -> None:
        super().__init__()
        self.bert, self.tokenizer = bert, tokenizer
        self.head = nn.Linear(2 * bert.config.hidden_size, 1)
        nn.init.constant_(self.head.weight[:, : bert.config.hidden_size], 15.0)
        nn.init.zeros_(self.head.weight[:, bert.config.hidden_size :])
        nn.init.constant_(self.head.bias, -6.0)

    def forward(self, pairs: Sequence[Pair]) -> Tensor:
        """(n,) logits."""
        inputs = self.tokenizer(
            [asked for asked, _, _ in pairs],
            [f"{edit} {target}".strip() for _, edit, target in pairs],
            padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt",
        ).to(self.bert.device)
        states = self.bert(**inputs).last_hidden_state
        second = inputs["token_type_ids"].bool()
        first = inputs["attention_mask"].bool() & ~second
        a, b = (F.normalize((states * m.unsqueeze(-1)).sum(1) / m.sum(1, keepdim=True), dim=-1) for m in (first, second))
        return self.head(torch.cat([a * b, (a - b).abs()], -1)).squeeze(-1)
