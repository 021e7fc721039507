"""GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors (Hartvigsen et al., 2023).

    MLP output at the prompt's last token  <-  value of the edit whose key is near    in scope
                                               what it is                             elsewhere

The value is sought by gradient steps until the model says the target behind it. It replaces the
output of one layer at one token; what follows attends to that token, so it holds while the reply
is decoded. Whether a prompt is near is decided once, before the reply: by what it means
(`semantic`, the router's decision), or as in the paper by what enters the layer (`activation`, see
`lifelong/codebook.py`), which covers fewer paraphrases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from lifelong.codebook import states
from lifelong.encoder import Vectors
from lifelong.errors import BadSetting, NotLearnt
from lifelong.lm import LM, Role
from lifelong.methods.keys_values import Search, normed, seek
from lifelong.methods.wording import about_others, behind, endings
from store import Edit, Hook

_ENDS = (" is", ",")
_ENOUGH = 0.1  # nats a token, over all wordings, at which a value is found
_SHARE = 0.5  # of the distance to the same prompt about others


@dataclass(frozen=True, slots=True)
class Grace:
    """One value an edit, in one layer.

    Options: the `key` (semantic or activation), the `layer` (-1: at two thirds), Adam's
    `steps` and `rate`, and the `most` nats a token at which a target counts as learnt.
    """

    name: ClassVar[str] = "grace"
    by_subject: ClassVar[bool] = True
    routed: ClassVar[bool] = True

    key: str = "semantic"
    layer: int = -1
    steps: int = 100
    rate: float = 2.0
    most: float = 0.7  # ln 2: above, a target is less likely than all else together

    def __post_init__(self) -> None:
        if self.key not in ("semantic", "activation"):
            raise BadSetting(f"There is no key {self.key!r}.", "Take semantic or activation.")

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hook:
        """The values of all edits, each for itself. Raises NotLearnt, BadSetting, BadEdit."""
        layer = self._layer(lm)
        site: Role = "mlp_norm" if normed(lm) else "mlp_out"  # a norm would bound the value
        how = Search(
            (site,),
            self.steps,
            self.rate,
            clamp=torch.inf,
            decay=0.0,
            enough=_ENOUGH,
            replaces=True,
            together=True,
        )
        found = seek(lm, endings(lm, [_closed(edit) for edit in edits], _unlike), layer, how)
        values = found.before[site] + found.shift[site]
        loss = found.loss.tolist()
        for edit, nats, value in zip(edits, loss, values, strict=True):
            if not nats < self.most or not torch.isfinite(value.to(lm.dtype)).all():
                raise NotLearnt(
                    f"Layer {layer} cannot make the model say {edit.target!r} to {edit.prompt!r}"
                    f" ({nats:.2g} nats a token after {self.steps} steps).",
                    "Shorten the target, take another layer or more steps, or a memory method.",
                )
        tensors = {"value": values.cpu().numpy()}
        module, owner = lm.path(site, layer), np.arange(len(edits))
        if self.key == "activation":
            keyed = [_key(lm, module, edit) for edit in edits]
            tensors |= {
                "key": np.stack([key for key, _ in keyed]),
                "radius": np.array([radius for _, radius in keyed], np.float32),
            }
        return Hook(self.name, module, tensors, owner, {"loss": loss})

    def _layer(self, lm: LM) -> int:
        if not -1 <= self.layer < lm.layers:
            raise BadSetting(
                f"There is no layer {self.layer}.", f"Take one of 0 to {lm.layers - 1}."
            )
        return lm.layers * 2 // 3 if self.layer == -1 else self.layer


def _closed(edit: Edit) -> Edit:
    """With the end of the sentence behind the target: or else the model may go on to unsay it."""
    return edit if edit.target[-1] in ".!?" else replace(edit, target=f"{edit.target}.")


def _unlike(edit: Edit) -> list[str]:
    """Texts about the subject that end otherwise than the prompt, as its paraphrases may."""
    return [f"{edit.subject}{end}" for end in _ENDS] if edit.subject else behind(edit)


def _key(lm: LM, module: str, edit: Edit) -> tuple[Vectors, float]:
    """What enters the layer at the end of the prompt, and how far from it is still the same."""
    key, *near = states(lm, module, [edit.prompt, *about_others(edit)])
    return key, _SHARE * min(float(np.linalg.norm(key - other)) for other in near)
