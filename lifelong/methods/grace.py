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
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from lifelong.codebook import states
from lifelong.encoder import Vectors
from lifelong.errors import BadSetting, NotLearnt
from lifelong.lm import LM
from lifelong.methods.sweep import best, sweep
from lifelong.methods.value import LEARNT, RATE, STEPS, sought
from lifelong.methods.wording import about_others
from store import Edit, Hook

_SHARE = 0.5  # of the distance to the same prompt about others


@dataclass(frozen=True, slots=True)
class Grace:
    """One value an edit, in one layer.

    Options: the `key` (semantic or activation), the `layer` (-1: the best of a sweep, which is
    made where this model was never swept), Adam's `steps` and `rate`, and the `most` nats a token
    at which a target counts as learnt.
    """

    name: ClassVar[str] = "grace"
    by_subject: ClassVar[bool] = True
    routed: ClassVar[bool] = True

    key: str = "semantic"
    layer: int = -1
    steps: int = STEPS
    rate: float = RATE
    most: float = LEARNT

    def __post_init__(self) -> None:
        if self.key not in ("semantic", "activation"):
            raise BadSetting(f"There is no key {self.key!r}.", "Take semantic or activation.")

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hook:
        """The values of all edits, each for itself.

        Raises NotLearnt, BadSetting, BadEdit, CacheUnwritable.
        """
        layer = self._layer(lm)
        found = sought(lm, edits, layer, steps=self.steps, rate=self.rate)
        loss = found.loss.tolist()
        for edit, nats, value in zip(edits, loss, found.values, strict=True):
            if not nats < self.most or not torch.isfinite(value.to(lm.dtype)).all():
                raise NotLearnt(
                    f"Layer {layer} cannot make the model say {edit.target!r} to {edit.prompt!r}"
                    f" ({nats:.2g} nats a token after {self.steps} steps).",
                    "Shorten the target, take another layer or more steps, or a memory method.",
                )
        tensors = {"value": found.values.cpu().numpy()}
        if self.key == "activation":
            keyed = [_key(lm, found.module, edit) for edit in edits]
            tensors |= {
                "key": np.stack([key for key, _ in keyed]),
                "radius": np.array([radius for _, radius in keyed], np.float32),
            }
        return Hook(self.name, found.module, tensors, np.arange(len(edits)), {"loss": loss})

    def _layer(self, lm: LM) -> int:
        if not -1 <= self.layer < lm.layers:
            raise BadSetting(
                f"There is no layer {self.layer}.", f"Take one of 0 to {lm.layers - 1}."
            )
        return best(lm, sweep(lm)) if self.layer == -1 else self.layer


def _key(lm: LM, module: str, edit: Edit) -> tuple[Vectors, float]:
    """What enters the layer at the end of the prompt, and how far from it is still the same."""
    key, *near = states(lm, module, [edit.prompt, *about_others(edit)])
    return key, _SHARE * min(float(np.linalg.norm(key - other)) for other in near)
