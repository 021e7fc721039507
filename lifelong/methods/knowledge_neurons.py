"""Knowledge Neurons in Pretrained Transformers (Dai et al., 2022).

    attribution(n) = a_n / m  sum over k of  d P(answer) / d a_n  at  (k / m) a_n       k = 1 ... m
    w_n <- w_n + |w_n| (new e_target / |e_target| - old e_answer / |e_answer|)

A neuron is one input of an MLP's output matrix, w_n the column that it writes. Those whose
activation at the end of the prompt carries the answer of now, in most wordings, are made to write
less of it and more of the target. e is the head's row of a text's first token. A gated neuron may
be negative: then its column is changed the other way.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from lifelong.hooks import tracing
from lifelong.lm import LM
from lifelong.methods.blocks import Blocks
from lifelong.methods.wording import wordings
from lifelong.weights import matrix
from store import Delta, Edit, Factors, StoredPatch

POINTS = 20  # of the integral
FEWEST, MOST = 2, 5  # neurons of a fact

Neuron = tuple[int, int]  # layer, input of its output matrix
Active = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class KnowledgeNeurons:
    """A column of an MLP's output matrix for every neuron of a fact, in any layer."""

    name: ClassVar[str] = "knowledge-neurons"
    by_subject: ClassVar[bool] = True

    high: float = 0.2  # attribution of a neuron that counts, as a share of the wording's highest
    shared: float = 0.7  # of the wordings in which it counts
    common: float = 0.1  # of a batch's edits of which it may be: else it is no fact's own
    old: float = 1.0  # lengths of the column that are taken of the answer of now
    new: float = 8.0  # ... and given of the target

    def prepare(self, lm: LM) -> None:
        """Nothing: the base model needs not be known."""

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Delta:
        """All edits in one change."""
        rows = lm.module("lm_head").get_parameter("weight").detach().float()  # (vocabulary, H)
        columns: dict[str, list[tuple[int, int, torch.Tensor]]] = {}
        for position, (answer, target, neurons) in enumerate(self._known(lm, edits)):
            toward = self.new * _unit(rows[target]) - self.old * _unit(rows[answer])
            for (layer, neuron), sign in neurons.items():
                path = lm.path("mlp_out", layer)
                length = matrix(lm, path)[:, neuron].norm()
                found = columns.setdefault(f"{path}.weight", [])
                found.append((position, neuron, sign * length * toward))
        factors = {
            name: _factors(some, matrix(lm, name.removesuffix(".weight")).shape[1])
            for name, some in columns.items()
        }
        return Delta(self.name, factors)

    def _known(self, lm: LM, edits: Sequence[Edit]) -> list[tuple[int, int, dict[Neuron, float]]]:
        """Of every edit the first tokens of answer and target, and the answer's neurons: signs."""
        texts = [text for text in wordings(lm, edits) if text.labels]
        answers = [_answer(lm, edit) for edit in edits]
        counted: list[list[Neuron]] = [[] for _ in edits]
        signs: list[dict[Neuron, float]] = [{} for _ in edits]
        for text in reversed(texts):  # so that the bare wording's signs stand
            ids = (*text.head, *text.tail[: len(text.tail) - len(text.labels) + 1])
            active, scores = attribution(lm, ids, len(ids) - 1, answers[text.edit])
            for layer, neuron in (scores >= self.high * scores.max()).nonzero().tolist():
                counted[text.edit].append((layer, neuron))
                signs[text.edit][layer, neuron] = float(active[layer, neuron].sign())
        asked = len(texts) // len(edits)
        own = [self._shared(Counter(some), asked) for some in counted]
        of = Counter(neuron for neurons in own for neuron in neurons)
        most = max(1, int(self.common * len(edits)))
        rare = [[n for n in neurons if of[n] <= most] or neurons[:FEWEST] for neurons in own]
        targets = {text.edit: text.labels[0] for text in texts}
        return [
            (answers[i], targets[i], {neuron: signs[i][neuron] for neuron in neurons})
            for i, neurons in enumerate(rare)
        ]

    def _shared(self, often: Counter[Neuron], asked: int) -> list[Neuron]:
        """The neurons that count in most of the wordings, or the few that count most often."""
        ranked = sorted(often, key=lambda neuron: (-often[neuron], neuron))
        enough = sum(often[neuron] >= self.shared * asked for neuron in ranked)
        return ranked[: min(MOST, max(FEWEST, enough))]


@torch.inference_mode(False)  # whatever the caller has switched off
@torch.enable_grad()
def attribution(lm: LM, ids: Sequence[int], at: int, answer: int) -> Active:
    """Every neuron's activation at token `at`, and how much of `answer` behind `ids` it carries.

    Both (layers, neurons); the second by integrated gradients.
    """
    whole = Blocks(lm, range(lm.layers), [ids[:at]], [ids[at:]])
    blocks = whole.only(torch.zeros(POINTS, dtype=torch.long, device=lm.device))
    parts = torch.arange(1, POINTS + 1, device=lm.device)[:, None] / POINTS
    hidden, found = blocks.start, []
    for layer in range(lm.layers):
        module, columns = lm.module("mlp_out", layer), matrix(lm, lm.path("mlp_out", layer))
        seen: list[torch.Tensor] = []

        def scale(
            entered: torch.Tensor,
            out: torch.Tensor,
            columns: torch.Tensor = columns,
            seen: list[torch.Tensor] = seen,
        ) -> torch.Tensor:
            full = entered[:, 0].detach()
            seen += [full, (parts.to(full) * full).requires_grad_()]
            first = out[:, 0] + (seen[1] - full) @ columns.T.to(out)
            return torch.cat([first[:, None], out[:, 1:]], dim=1)

        with tracing(after={module: scale}):
            left = blocks.run(hidden, layer)
        logits = lm.head(lm.module("final_norm")(left[:, -1])).float()
        (slope,) = torch.autograd.grad(logits.softmax(-1)[:, answer].sum(), [seen[1]])
        found.append((seen[0][0].float(), (seen[0][0] * slope.mean(0)).float()))
        with torch.no_grad():
            hidden = blocks.step(hidden, layer)
    active, carried = (torch.stack(part) for part in zip(*found, strict=True))
    return active, carried


@torch.no_grad()
def _answer(lm: LM, edit: Edit) -> int:
    """The first token of the old answer, or of what the model says."""
    if edit.old:
        return int(lm.tokenizer.encode(f" {edit.old}", add_special_tokens=False)[0])
    ids = torch.tensor([lm.tokenizer.encode(edit.prompt)], device=lm.device)
    hidden = lm.model.base_model(input_ids=ids, use_cache=False)[0]
    return int(lm.head(hidden[0, -1]).argmax())


def _unit(row: torch.Tensor) -> torch.Tensor:
    unit: torch.Tensor = row / row.norm()
    return unit


def _factors(found: Sequence[tuple[int, int, torch.Tensor]], width: int) -> Factors:
    owner, neurons, changes = zip(*found, strict=True)
    return Factors(
        u=torch.stack(changes, dim=1).cpu().numpy(),
        v=np.eye(width, dtype=np.float32)[:, list(neurons)],
        mix=np.eye(len(owner)),
        owner=np.array(owner),
        keys=np.zeros((0, 0), np.float32),
    )
