"""ROME: Locating and Editing Factual Associations in GPT (Meng et al., 2022; survey Eq. 26), with
the correction of Rebuilding ROME (Gupta et al., 2024).

    W <- W + (v* - W k) (C^-1 k)^T / (k^T C^-1 k)        k: the mean key over contexts, everywhere

One matrix is changed, so that it answers the subject's key k with the value v* under which the
model says the target. Of all changes that do, this one moves the answers to other keys least.
The original mixes the mean key with the bare one; where the subject opens the text, their product
nearly vanishes and one edit destroys the model. Several edits at once satisfy all their
constraints: k becomes a matrix, the quotient a solve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from lifelong import moments
from lifelong.lm import LM
from lifelong.methods.keys_values import Search, seek, weigh, write
from lifelong.methods.wording import wordings
from store import Delta, Edit, StoredPatch

SEARCH = Search(sites=("mlp_out",), steps=20, clamp=4.0)


@dataclass(frozen=True, slots=True)
class Rome:
    """Rank one an edit, in one layer."""

    name: ClassVar[str] = "rome"
    by_subject: ClassVar[bool] = True

    search: Search = SEARCH

    def layer(self, lm: LM) -> int:
        """Early in the model: 5 of 30 blocks."""
        return lm.layers // 6

    def prepare(self, lm: LM) -> None:
        """C of the layer."""
        moments.ensure(lm, [self.layer(lm)])

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Delta:
        """The one change that satisfies all edits."""
        layer = self.layer(lm)
        texts = wordings(lm, edits)
        values = seek(lm, texts, layer, self.search)
        known = moments.moment(lm, layer)

        def solve(_layer: int, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            weighed = weigh(known, keys)  # (C^-1 k)^T
            return weighed, keys.double() @ weighed.T

        wanted = values.before["mlp_out"] + values.shift["mlp_out"]
        factors = write(lm, texts, wanted, [layer], solve, site="mlp_out")
        return Delta(self.name, factors, {"moments": known.id, "loss": values.loss.tolist()})
