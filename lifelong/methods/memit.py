"""MEMIT: Mass-Editing Memory in a Transformer (Meng et al., 2023; survey Eq. 27).

    R = (z* - z) / (layers left)                 z: the last edited block's output at the subject
    W <- W + R K^T (weight C + K K^T)^-1         layer after layer, each time with z and K anew

Many edits are written at once, spread over several layers. For every edit a value z* is sought
under which the model says the target; each layer takes an equal share of what is still missing,
weighing its new keys K against C, the second moment of all keys it already answers to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from lifelong import moments
from lifelong.lm import LM, Role
from lifelong.methods.keys_values import Search, seek, weigh, write
from lifelong.methods.wording import wordings
from store import Delta, Edit, StoredPatch

SPAN = 5  # layers that are edited


@dataclass(frozen=True, slots=True)
class Memit:
    """One change of rank (number of edits) in each of a few early layers."""

    name: ClassVar[str] = "memit"
    search: Search = Search()
    weight: float = 100.0  # of C, which stands for the answers that shall stay

    def layers(self, lm: LM) -> list[int]:
        """The last of the first quarter of the blocks (3 to 7 of 30).

        Where MLP outputs are normed before they are added, a block's output does not follow from
        the write, so one layer must do (`site`).
        """
        last = lm.layers // 4
        return list(range(max(0, last - SPAN + 1), last + 1))[-1 if _normed(lm) else -SPAN :]

    def prepare(self, lm: LM) -> None:
        """C of the layers."""
        moments.ensure(lm, self.layers(lm))

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Delta:
        """All edits in one change."""
        layers = self.layers(lm)
        site: Role = "mlp_out" if _normed(lm) else "block"
        texts = wordings(lm, edits)
        values = seek(lm, texts, layers[-1], replace(self.search, sites=(site,)))
        known = {layer: moments.moment(lm, layer) for layer in layers}

        def solve(layer: int, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            weighed = weigh(known[layer], keys) / self.weight  # ((weight C)^-1 K)^T
            gram = keys.double() @ weighed.T
            return weighed, torch.eye(len(keys), dtype=gram.dtype, device=gram.device) + gram

        wanted = values.before[site] + values.shift[site]
        factors = write(lm, texts, wanted, layers, solve, site=site)
        facts = {"moments": known[layers[-1]].id, "loss": values.loss.tolist()}
        return Delta(self.name, factors, facts)


def _normed(lm: LM) -> bool:
    return lm.layout is not None and lm.layout.mlp_normed
