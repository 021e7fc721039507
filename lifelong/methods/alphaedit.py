"""AlphaEdit: Null-Space Constrained Knowledge Editing (Fang et al., 2025).

    P = U U^T                     U: the directions in which C has next to nothing
    W <- W + R X^T,   X = (P (K_past K_past^T + K K^T) + ridge I)^-1 P K

MEMIT, except that the change is confined to directions in which the model's usual keys do not
point (P), and that the keys of earlier edits (K_past) shall give what they give. Those are read
from the live patches: an edit that is undone is no longer protected.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from lifelong import moments
from lifelong.lm import LM, Role
from lifelong.methods.keys_values import (
    Search,
    early,
    fitted,
    identity_plus,
    normed,
    scaled,
    seek,
    write,
)
from lifelong.methods.memit import SEARCH
from lifelong.methods.wording import wordings
from lifelong.moments import Moment
from store import Delta, Edit, StoredPatch


@dataclass(frozen=True, slots=True)
class AlphaEdit:
    """One change of rank (number of edits) in each of a few early layers, in C's null space."""

    name: ClassVar[str] = "alphaedit"
    by_subject: ClassVar[bool] = True

    search: Search = SEARCH
    energy: float = 0.3  # share of C that the directions left for edits may hold together
    ridge: float = 0.3  # as a share of the mean squared length of keys
    rounds: int = 5  # of fitting, see `fitted`

    def prepare(self, lm: LM) -> None:
        """C of the layers."""
        moments.ensure(lm, early(lm))

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Delta:
        """All edits in one change."""
        layers = early(lm)
        site: Role = "mlp_out" if normed(lm) else "block"
        texts = wordings(lm, edits)
        values = seek(lm, texts, layers[-1], replace(self.search, sites=(site,)))
        known = {layer: moments.moment(lm, layer) for layer in layers}

        def solve(layer: int, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            null = _null_space(known[layer], self.energy).to(keys.device)  # U
            past = _past(live, f"{lm.path('mlp_out', layer)}.weight", keys) @ null  # (p, dim U)
            new = keys.double() @ null
            ridge = self.ridge * float(known[layer].matrix.diagonal().sum())
            inner = past @ past.T + ridge * torch.eye(len(past), dtype=new.dtype)
            left = (new - (past.T @ torch.linalg.solve(inner, past @ new.T)).T) / ridge
            return left @ null.T, identity_plus(new @ left.T)

        wanted = values.before[site] + values.shift[site]
        change = write(lm, texts, wanted, layers, solve, site=site)
        factors = fitted(lm, texts, partial(scaled, change), self.rounds)
        facts = {"moments": known[layers[-1]].id, "loss": values.loss.tolist()}
        return Delta(self.name, factors, facts)


def _null_space(known: Moment, energy: float) -> torch.Tensor:
    """U (in, n): the eigenvectors of C's smallest eigenvalues, which hold `energy` of its trace."""
    sizes, vectors = torch.linalg.eigh(known.matrix)
    share = sizes.clamp(min=0).cumsum(0) / sizes.sum()
    null: torch.Tensor = vectors[:, share <= energy]
    return null


def _past(live: Sequence[StoredPatch], name: str, like: torch.Tensor) -> torch.Tensor:
    """The keys (p, in) of this method's live edits in one weight, float64."""
    found = [
        stored.patch.factors[name].of(stored.live_positions).keys
        for stored in live
        if isinstance(stored.patch, Delta) and stored.patch.method == AlphaEdit.name
    ]
    keys = np.concatenate([np.zeros((like.shape[1], 0)), *found], axis=1)
    return torch.from_numpy(keys.T).to(like.device, torch.float64)
