"""PMET: Precise Model Editing in a Transformer (Li et al., 2023).

    v* = mlp + shift      sought together with a shift of the attention's output, which is dropped
    W <- W + R K^T (weight C + K K^T)^-1         R = (v* - v) / sqrt(layers left)

MEMIT, except that what is missing is measured at the MLP's own output, without what attention
would contribute, and that more of it goes into the first layers. A target token that is the
likeliest already counts a tenth, so that the search turns to keeping the subject what it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from lifelong import moments
from lifelong.lm import LM
from lifelong.methods.keys_values import Search, early, least_change, seek, write
from lifelong.methods.wording import wordings
from store import Delta, Edit, StoredPatch

SEARCH = Search(sites=("attn_out", "mlp_out"), steps=30, rate=0.2, kl=1.0, said=0.1)


@dataclass(frozen=True, slots=True)
class Pmet:
    """One change of rank (number of edits) in each of a few early layers."""

    name: ClassVar[str] = "pmet"
    by_subject: ClassVar[bool] = True

    search: Search = SEARCH
    weight: float = 100.0  # of C, which stands for the answers that shall stay

    def prepare(self, lm: LM) -> None:
        """C of the layers."""
        moments.ensure(lm, early(lm))

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Delta:
        """All edits in one change."""
        layers = early(lm)
        texts = wordings(lm, edits)
        values = seek(lm, texts, layers[-1], self.search)
        known = {layer: moments.moment(lm, layer) for layer in layers}

        wanted = values.before["mlp_out"] + values.shift["mlp_out"]
        solve = least_change(known, self.weight)
        factors = write(
            lm, texts, wanted, layers, solve, site="mlp_out", share=lambda left: 1 / sqrt(left)
        )
        facts = {"moments": known[layers[-1]].id, "loss": values.loss.tolist()}
        return Delta(self.name, factors, facts)
