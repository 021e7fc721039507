"""Is this prompt about that edit?  The scope classifier behind the subject gate.

    prompt ── subject gate ── focus: subject -> "this" ── encoder ──┐
                                                                    ├─ P(in scope)
    edit ──── subject known ─ focus: subject -> "this" ── encoder ──┘   (journalled)

The gate has settled *whom* a prompt is about; what is left is whether it asks for the same
*relation*. SERAC (Mitchell et al. 2022, survey Eq. 14) answers that by a similarity of embeddings.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lifelong.encoder import Encoder, SentenceEncoder, Vectors


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
