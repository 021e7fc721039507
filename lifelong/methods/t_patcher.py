"""T-Patcher: Transformer-Patcher, One Mistake Worth One Neuron (Huang et al., 2023; survey Eq. 16).

    MLP(x) + sum over neurons of relu(k.x + b) v       in the last block; a neuron a wrong token
    loss = CE(target) + L_act + m L_mem                a: a neuron's activation where it shall fire
    L_act = mean of the 5 largest exp(-a)              M: states that it shall leave alone
    L_mem = mean of the largest exp(a_M - a + 3) + mean of the largest exp(a_M + 3)

A trained neuron is narrowed, as the paper's is not: it fires where it is nearly as active as at its
own state. What M does not hold, names of the same make above all, is less active there, if only so.
M is ordinary text of several styles, the same prompt about others, and what earlier neurons answer.
A target token that the model says already gets no neuron. The end of the sentence counts as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch

from lifelong import sample
from lifelong.errors import NotLearnt
from lifelong.hooks import Neurons
from lifelong.lm import LM
from lifelong.methods.neurons import (
    Said,
    answered,
    begin,
    beside,
    hook,
    largest,
    narrowed,
    train,
)
from lifelong.methods.wording import about_others, closed, endings
from store import Edit, Extension, StoredPatch

_FEW = 5  # activations that are averaged
_STEEPEST = 20.0  # exponent
_MARGIN = 3.0
_RIM = 0.95  # of the way to its own state, from which a neuron fires
_SURE = 0.1  # nats a token at which a target is learnt


@dataclass(frozen=True, slots=True)
class TPatcher:
    """A neuron for each token of the target that the model gets wrong.

    Options: the `most` neurons a wording, Adam's `steps` and `rate`, the weight of the `memory`.
    """

    name: ClassVar[str] = "t-patcher"
    by_subject: ClassVar[bool] = True

    most: int = 6  # the paper's five, and the end of the sentence
    steps: int = 300
    rate: float = 0.05
    memory: float = 5.0

    def prepare(self, lm: LM) -> None:
        """What enters the last MLP while ordinary text is read."""
        sample.ensure(lm, beside(lm))

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Extension:
        """The neurons of all edits. Raises NotLearnt, BadEdit."""
        module = beside(lm)
        known = [sample.sample(lm, module), *answered(lm, live, module)]
        said = [Said(lm, endings(lm, [closed(edit)], _no_more)) for edit in edits]
        made = []
        for place, edit in enumerate(edits):
            rivals = [one.states for other, one in enumerate(said) if other != place]
            others = sample.about(lm, module, about_others(edit))
            made.append(self._neurons(lm, edit, said[place], torch.cat([*known, *rivals, others])))
        query = torch.cat([one.states[one.wrong] for one in said])
        owner = torch.arange(len(edits)).repeat_interleave(
            torch.tensor([int(one.wrong.sum()) for one in said])
        )
        return hook(self.name, module, reduce(Neurons.and_, made), query, owner)

    def _neurons(self, lm: LM, edit: Edit, said: Said, away: torch.Tensor) -> Neurons:
        query = said.states[said.wrong]  # (r, in)
        if len(query) > self.most * said.wordings:
            raise NotLearnt(
                f"The model gets {len(query)} tokens of {edit.target!r} wrong, too many to mend.",
                f"Shorten the target to {self.most - 1} tokens (its end is one), or use a memory"
                " method.",
            )
        start = begin(lm, query)
        if not len(query):
            return start

        def loss(now: Neurons) -> tuple[torch.Tensor, bool]:
            ce = torch.nn.functional.cross_entropy(said.logits(now), said.labels)
            active = (query * now.keys).sum(1) + now.bias  # (r,)
            strays = away @ now.keys.T + now.bias  # (m, r)
            near = [largest(_exp(strays + lead + _MARGIN)) for lead in (-active, 0.0)]
            total = ce + largest(_exp(-active), _FEW) + self.memory * sum(near)
            return total, bool(strays.max() < 0) and bool(ce < _SURE)

        wide = train(start, query, loss, steps=self.steps, rate=self.rate)
        for made in (narrowed(wide, query, away, _RIM), wide):  # it may take several, if they reach
            if (said.logits(made).argmax(-1) == said.labels).all():
                return made
        raise NotLearnt(
            f"{self.steps} steps did not teach {edit.prompt!r} the answer {edit.target!r}.",
            "Shorten the target, take more steps, or use a memory method.",
        )


def _no_more(_edit: Edit) -> list[str]:
    """The paper trains on the prompt itself."""
    return []


def _exp(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(max=_STEEPEST).exp()
