"""CALINET: Calibrating Factual Knowledge in Pretrained Language Models (Dong et al., 2022; survey
Eq. 16).

    MLP(x) + relu(x K^T + b) V      a few slots a fact, in one late block, trained for a whole batch
    loss = CE(targets, in several wordings) + keep * mean of the largest relu(k.x + b + 1)^2, x in M

The memory is small, and all facts of a batch are trained together on several wordings each. Each
slot belongs to one fact, so that a fact can be taken out and the other slots stay as they are. M is
ordinary text and the same prompts about others, which the memory must leave alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from lifelong import sample
from lifelong.errors import NotLearnt
from lifelong.hooks import Neurons
from lifelong.lm import LM
from lifelong.methods.neurons import Said, answered, begin, beside, hook, largest, train
from lifelong.methods.wording import about_others, behind, endings
from store import Edit, Extension, StoredPatch

_MARGIN = 1.0  # below which a slot stays where it is not to fire
_SURE = 0.1  # nats a token at which a batch is learnt


@dataclass(frozen=True, slots=True)
class Calinet:
    """A few slots a fact, trained for all facts of a batch together.

    Options: `slots` a fact at most, Adam's `steps` and `rate`, the weight to `keep` all else.
    """

    name: ClassVar[str] = "calinet"
    by_subject: ClassVar[bool] = True

    slots: int = 4
    steps: int = 300
    rate: float = 0.05
    keep: float = 5.0

    def prepare(self, lm: LM) -> None:
        """What enters the last MLP while ordinary text is read."""
        sample.ensure(lm, beside(lm))

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Extension:
        """The slots of all edits. Raises NotLearnt, BadEdit."""
        module = beside(lm)
        said = Said(lm, endings(lm, edits, behind))
        others = [sample.about(lm, module, about_others(edit)) for edit in edits]
        away = torch.cat([sample.sample(lm, module), *answered(lm, live, module), *others])
        at = torch.cat([self._chosen(said, place) for place in range(len(edits))])
        made = self._trained(lm, said, said.states[at], away)
        wrong = said.logits(made).argmax(-1) != said.labels
        if failed := set(said.edit[wrong & said.bare].tolist()):
            edit = edits[min(failed)]
            raise NotLearnt(
                f"{self.steps} steps did not make the model say {edit.target!r} to"
                f" {edit.prompt!r}, and {len(failed) - 1} other targets.",
                "Shorten the target, take more steps or slots, or use a memory method.",
            )
        return hook(self.name, module, made, said.states[at], said.edit[at])

    def _chosen(self, said: Said, edit: int) -> torch.Tensor:
        """Which tokens of an edit's wordings the slots begin at: evenly among them."""
        mine = (said.edit == edit).nonzero()[:, 0]
        return mine[:: max(1, -(-len(mine) // self.slots))]

    def _trained(self, lm: LM, said: Said, query: torch.Tensor, away: torch.Tensor) -> Neurons:
        def loss(now: Neurons) -> tuple[torch.Tensor, bool]:
            ce = torch.nn.functional.cross_entropy(said.logits(now), said.labels)
            strays = away @ now.keys.T + now.bias
            loud = largest(torch.relu(strays + _MARGIN).square())
            return ce + self.keep * loud, bool(strays.max() < 0) and bool(ce < _SURE)

        return train(begin(lm, query), query, loss, steps=self.steps, rate=self.rate)
