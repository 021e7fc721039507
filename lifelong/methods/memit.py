"""MEMIT: Mass-Editing Memory in a Transformer (Meng et al., 2023; survey Eq. 27).

    R = (z* - z) / (layers left)                 z: the last edited block's output at the subject
    W <- W + R K^T (weight C + K K^T)^-1         layer after layer, each time with z and K anew

Many edits are written at once, spread over several layers. For every edit a value z* is sought
under which the model says the target; each layer takes an equal share of what is still missing,
weighing its new keys K against C, the second moment of all keys it already answers to.
An edit that falls short for all that is given a longer part of the change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from lifelong import moments
from lifelong.lm import LM, Role
from lifelong.methods.keys_values import (
    Search,
    early,
    fitted,
    least_change,
    normed,
    scaled,
    seek,
    write,
)
from lifelong.methods.wording import mention, wordings
from store import Delta, Edit, StoredPatch

# Fewer steps than in the paper, twice as long, on a shorter leash: what one edit needs least hurts
# the others least. What falls short is fitted afterwards.
SEARCH = Search(steps=20, rate=1.0, clamp=0.4, coarse=True)


@dataclass(frozen=True, slots=True)
class Memit:
    """One change of rank (number of edits) in each of a few early layers."""

    name: ClassVar[str] = "memit"
    by_subject: ClassVar[bool] = True

    search: Search = SEARCH
    weight: float = 100.0  # of C, which stands for the answers that shall stay
    rounds: int = 5  # of fitting, see `fitted`

    def prepare(self, lm: LM) -> None:
        """C of the layers."""
        moments.ensure(lm, early(lm))

    def where(self, edit: Edit) -> str:
        """The words in the prompt at whose last token is written."""
        return mention(edit)

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Delta:
        """All edits in one change."""
        layers = early(lm)
        site: Role = "mlp_out" if normed(lm) else "block"
        texts = wordings(lm, edits, self.where)
        values = seek(lm, texts, layers[-1], replace(self.search, sites=(site,)))
        known = {layer: moments.moment(lm, layer) for layer in layers}

        wanted = values.before[site] + values.shift[site]
        change = write(lm, texts, wanted, layers, least_change(known, self.weight), site=site)
        factors = fitted(lm, texts, partial(scaled, change), self.rounds)
        facts = {"moments": known[layers[-1]].id, "loss": values.loss.tolist()}
        return Delta(self.name, factors, facts)
