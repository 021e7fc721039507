"""Constrained fine-tuning: Modifying Memories in Transformer Models (Zhu et al., 2020; survey
Eq. 18 and 19).

    minimise    NLL(target | prompt) + weight max(0, |L(kept text) - L before| - slack)
    subject to  |P X| <= size |W|                  after every step: a longer change is cut back

One matrix learns, in one block. What enters it does not depend on it, so a gradient's rows are the
same inputs X at every step, and the change is P X with P free. Here X are the inputs (scaled to
length one) from the subject's last token on, so the rank is the number of these tokens. Every
target token is predicted behind those before it, and kept text is compared with what it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
import torch

from lifelong.hooks import tracing
from lifelong.lm import LM
from lifelong.methods.blocks import Blocks
from lifelong.methods.wording import asked
from lifelong.moments import BUILT_IN
from lifelong.weights import writable
from store import Delta, Edit, Factors, StoredPatch

KEPT, LENGTH = 8, 48  # texts that shall stay as likely as they are, tokens each

Act = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class FtConstrained:
    """One change of rank (tokens of an edit that may learn) in one early matrix."""

    name: ClassVar[str] = "ft-constrained"
    by_subject: ClassVar[bool] = True

    steps: int = 25
    rate: float = 0.1  # Adam's, for what the change gives at one token
    size: float = 0.1  # longest change, as a share of the weight's norm
    weight: float = 10.0  # of kept text
    slack: float = 0.01  # nats a token by which its loss may move
    enough: float = 0.01  # the loss at which it is done

    def layer(self, lm: LM) -> int:
        """Early in the model: 5 of 30 blocks."""
        return lm.layers // 6

    def prepare(self, lm: LM) -> None:
        """Nothing: the base model needs not be known."""

    @torch.inference_mode(False)  # whatever the caller has switched off
    @torch.enable_grad()
    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Delta:
        """All edits in one change."""
        path = lm.path("mlp_out", self.layer(lm))
        longest = self.size * float(writable(lm, path).detach().float().norm())
        texts = asked(lm, edits)
        told = _Texts(
            lm, self.layer(lm), [(*t.head, *t.tail) for t in texts], [t.labels for t in texts]
        )
        kept = _Texts(lm, self.layer(lm), *zip(*_lines(lm), strict=True))
        spots = [
            (row, at)
            for row, t in enumerate(texts)
            if t.kind == "bare"
            for at in range(len(t.head), len(t.head) + len(t.tail))
        ]
        inputs = told.inputs()[tuple(zip(*spots, strict=True))]
        x = inputs / inputs.norm(dim=1, keepdim=True)  # (n, in)
        p = torch.zeros(len(x), lm.hidden, device=lm.device, requires_grad=True)
        adam = torch.optim.Adam([p], self.rate)
        with torch.no_grad():
            before = kept.loss(lambda _, out: out)

        def act(entered: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
            moved: torch.Tensor = entered @ x.T.to(out) @ p.to(out)
            return out + moved

        for step in range(self.steps):
            moved = ((kept.loss(act) - before).abs() - self.slack).clamp(min=0)
            loss = told.loss(act) + self.weight * moved
            if float(loss.detach()) <= self.enough or step == self.steps - 1:
                break
            adam.zero_grad()
            loss.backward(inputs=[p])  # no weight gets a gradient
            adam.step()
            with torch.no_grad():
                size = float(((p @ p.T) * (x @ x.T)).sum().clamp(min=0).sqrt())
                p.mul_(min(1.0, longest / max(size, 1e-12)))
        owner = np.array([texts[row].edit for row, _ in spots])
        factors = Factors(
            u=p.detach().T.float().cpu().numpy(),
            v=x.T.float().cpu().numpy(),
            mix=np.eye(len(x)),
            owner=owner,
            keys=np.zeros((0, 0), np.float32),
        )
        return Delta(self.name, {f"{path}.weight": factors}, {"loss": float(loss.detach())})


class _Texts:
    """Rows of tokens with the labels that are predicted from their ends, above some layer."""

    def __init__(
        self, lm: LM, layer: int, rows: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
    ) -> None:
        self._lm = lm
        self._module = lm.module("mlp_out", layer)
        self._blocks = Blocks(lm, range(layer, lm.layers), [()] * len(rows), rows)
        spots = [
            (row, len(tokens) - len(said) + i, label, 1 / (len(said) * len(rows)))
            for row, (tokens, said) in enumerate(zip(rows, labels, strict=True))
            for i, label in enumerate(said)
        ]
        places = torch.tensor([spot[:3] for spot in spots], device=lm.device)
        self._rows, self._at, self._labels = places.unbind(1)
        self._weights = torch.tensor([spot[3] for spot in spots], device=lm.device)

    def inputs(self) -> torch.Tensor:
        """What enters the matrix, (B, S, in)."""
        found: list[torch.Tensor] = []
        look = {self._module: lambda entered, _: found.append(entered)}
        with torch.no_grad(), tracing(after=look, stop=self._module):
            self._blocks.run(self._blocks.start)
        return found[0].float()

    def loss(self, act: Act) -> torch.Tensor:
        """Mean over rows of the mean NLL of the labels, where `act` is what the matrix gives."""
        with tracing(after={self._module: act}):
            out = self._blocks.run(self._blocks.start)
        said = self._lm.head(self._lm.module("final_norm")(out[self._rows, self._at]))
        nll = -said.float().log_softmax(-1).gather(1, self._labels[:, None])[:, 0]
        return (nll * self._weights).sum()


def _lines(lm: LM) -> list[tuple[list[int], list[int]]]:
    """Of some running texts, all tokens but the last, and all but the first."""
    with BUILT_IN.open(encoding="utf-8") as text:
        lines = [lm.tokenizer.encode(line)[:LENGTH] for line in islice(text, KEPT)]
    return [(ids[:-1], ids[1:]) for ids in lines]
