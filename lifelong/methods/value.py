"""A value that makes the model say a target: what GRACE puts in, and what a sweep tries.

    MLP output of one layer at the prompt's last token  <-  value

Sought by gradient steps, on the prompt as it is, in a chat, and behind other words at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lifelong.lm import LM, Role
from lifelong.methods.keys_values import Search, normed, seek
from lifelong.methods.wording import behind, closed, endings
from store import Edit

STEPS, RATE = 100, 2.0  # Adam's
LEARNT = 0.7  # nats a token; ln 2: above, a target is less likely than all else together
ENOUGH = 0.1  # nats a token, over all wordings, at which the search ends

_ENDS = (" is", ",")


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The values (N, H) that take the place of what `module` gives, and the nats a token (N,)."""

    module: str
    values: torch.Tensor
    loss: torch.Tensor


def sought(lm: LM, edits: Sequence[Edit], layer: int, *, steps: int, rate: float) -> Found:
    """A value in `layer` for each edit. Raises BadEdit, WeightsUnfit, UnsupportedModel."""
    site: Role = "mlp_norm" if normed(lm) else "mlp_out"  # a norm would bound the value
    how = Search(
        (site,),
        steps,
        rate,
        clamp=torch.inf,
        decay=0.0,
        enough=ENOUGH,
        replaces=True,
        together=True,
    )
    found = seek(lm, endings(lm, [closed(edit) for edit in edits], _unlike), layer, how)
    return Found(lm.path(site, layer), found.before[site] + found.shift[site], found.loss)


def _unlike(edit: Edit) -> list[str]:
    """Texts about the subject that end otherwise than the prompt, as its paraphrases may."""
    return [f"{edit.subject}{end}" for end in _ENDS] if edit.subject else behind(edit)
