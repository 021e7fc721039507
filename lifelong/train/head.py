"""Trains the head that reads a question's vector beside an edit's: SERAC's scope classifier.

Positives are other wordings of the edit's relation, dressed as a prompt may have them. Negatives
are wordings of the relations that the sentence encoder finds nearest, negated wordings, and
sentences that ask for nothing.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.encoder import SentenceEncoder, Vectors
from lifelong.scope import Head
from lifelong.train.data import Corpus, Relation, overlapping, spoken
from lifelong.train.dress import Wardrobe, dress

EXAMPLES = 48_000
EPOCHS = 8

_BATCH = 512
_LEARNING_RATE = 1e-3
_NEGATIVES = 3  # an edit
_HELD_OUT = 2  # of the relations (and pairs) new to the adapter, one in so many is for calibration
_RIVALS = 24  # nearest relations that negatives are drawn from
_FAR = 0.35  # cosine below which an unnamed relation is taken to be another one


@dataclass(frozen=True)
class Example:
    """A question, an edit's clause and target, whether the edit covers the question, and what
    relation that was.
    """

    asked: str
    edit: str
    target: str
    covered: bool
    relation: str


class Examples:
    """Draws examples from a corpus; `encoder` finds the rivals."""

    def __init__(self, data: Corpus, encoder: SentenceEncoder, rng: random.Random) -> None:
        self._data, self._rng = data, rng
        self._names = sorted(data.relations)
        self._completed = sorted(data.completions)
        self._answered = [name for name in self._names if data.relations[name].answers]
        self._any = sorted({a for name in self._names for a in data.relations[name].answers})
        texts = [text for name in self._names for text in sorted(data.relations[name].wordings)]
        owner = np.repeat(
            np.arange(len(self._names)), [len(data.relations[n].wordings) for n in self._names]
        )
        vectors = encoder.encode(texts)
        means = np.stack([vectors[owner == i].mean(0) for i in range(len(self._names))])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        self._rivals = {
            name: self._nearest(means @ means[i], overlapping(name))
            for i, name in enumerate(self._names)
        }
        asked = encoder.encode([pair[0] for pair in data.pairs])
        self._pair_rivals = []
        for vector in asked:
            nearest = np.zeros(len(self._names))
            np.maximum.at(nearest, owner, vectors @ vector)
            near = {self._names[i] for i in np.flatnonzero(nearest > _FAR)}
            self._pair_rivals.append(self._nearest(means @ vector, near))

    def _nearest(self, closeness: Vectors, without: set[str]) -> list[str]:
        order = [self._names[i] for i in np.argsort(-closeness)]
        return [name for name in order if name not in without][:_RIVALS]

    def draw(self) -> list[Example]:
        """A positive and its negatives about one edit."""
        rng, kind = self._rng, self._rng.random()
        if kind < 0.15 and self._data.pairs:
            return self._of_a_pair(rng.randrange(len(self._data.pairs)))
        if kind < 0.45 and self._completed:
            name, group = rng.choice(self._completed), self._data.completions
        else:
            name = rng.choice(self._answered if kind < 0.65 and self._answered else self._names)
            group = self._data.relations
        edit, asked = self._two(group[name])
        answers = group[name].answers
        known = self._data.relations[name].wordings
        rivals = self._rivals[name]
        asked_as = self._dressed(asked, self._one(answers), name, self._beside(rivals, known))
        positive = Example(asked_as, edit, self._target(answers), True, name)
        return self._with_negatives(positive, asked, rivals, known)

    def _of_a_pair(self, at: int) -> list[Example]:
        edit, asked, answer = self._data.pairs[at]
        if self._rng.random() < 0.5:
            edit, asked = asked, edit
        known, rivals = frozenset((edit, asked)), self._pair_rivals[at]
        asked_as = self._dressed(asked, answer, "", self._beside(rivals, known))
        positive = Example(asked_as, edit, self._target([answer]), True, f"pair {at}")
        return self._with_negatives(positive, asked, rivals, known)

    def _with_negatives(
        self, positive: Example, asked: str, rivals: Sequence[str], known: frozenset[str]
    ) -> list[Example]:
        others = [self._other(rivals, known, asked) for _ in range(_NEGATIVES)]
        return [positive, *(replace(positive, asked=o, covered=False) for o in others)]

    def _beside(self, rivals: Sequence[str], known: frozenset[str]) -> str:
        """A wording of another relation, to stand beside a question."""
        wordings = self._data.relations[self._rng.choice(rivals)].wordings
        return self._rng.choice(sorted(wordings - known) or [""])

    def _one(self, answers: Sequence[str]) -> str:
        return self._rng.choice(answers) if answers else ""

    def _target(self, answers: Sequence[str]) -> str:
        """What the edit answers; anything where no answers are known, for it to be ignored."""
        if self._rng.random() < 0.2:
            return ""
        return self._one(answers or self._any)

    def _two(self, relation: Relation) -> tuple[str, str]:
        """Two wordings of a relation, from one data set as often as not."""
        rng = self._rng
        first = rng.choice(relation.sources)
        second = first if rng.random() < 0.5 and len(first) > 1 else rng.choice(relation.sources)
        edit = rng.choice(first)
        asked = rng.choice(
            [text for text in second if text != edit] or sorted(relation.wordings - {edit})
        )
        return edit, asked

    def _dressed(self, asked: str, answer: str, name: str, beside: str) -> str:
        """`asked` as it may stand in a prompt; `answer` is one that a yes/no question may name."""
        wardrobe = Wardrobe(answer, spoken(name), self._data.plain, beside)
        return dress(asked, wardrobe, self._rng)

    def _other(self, rivals: Sequence[str], known: frozenset[str], asked: str) -> str:
        """A prompt about the same subject that the edit does not cover."""
        rng, kind = self._rng, self._rng.random()
        if kind < 0.12 and self._data.plain:
            return rng.choice(self._data.plain)
        if kind < 0.16 and (negated := _negated(asked)):
            return negated
        name = rivals[min(int(rng.expovariate(1 / 4)), len(rivals) - 1)]
        completed = self._data.completions.get(name)
        group = completed if completed and rng.random() < 0.5 else self._data.relations[name]
        free = [text for text in rng.choice(group.sources) if text not in known]
        if not free:
            return self._other(rivals, known, asked)
        beside = self._beside(rivals, known)
        return self._dressed(rng.choice(free), self._one(group.answers), name, beside)


def _negated(asked: str) -> str | None:
    text, count = re.subn(r"\b(is|was|are)\b(?!.*\?)", r"\1 not", asked, count=1)
    return text if count else None


def train(
    encoder: SentenceEncoder, data: Corpus, known: Corpus, *, seed: int = 0
) -> dict[str, Tensor]:
    """The weights of a `Head` over the vectors of `encoder`, which learnt from `known`.

    Calibrated on relations that neither has seen, for those are what users bring.
    """
    drawn = Examples(data, encoder, random.Random(seed))
    examples = [e for _ in range(EXAMPLES // (1 + _NEGATIVES)) for e in drawn.draw()]
    named = {*known.relations, *(f"pair {data.pairs.index(pair)}" for pair in known.pairs)}
    new = sorted({example.relation for example in examples} - named)
    aside = frozenset(random.Random(seed).sample(new, len(new) // _HELD_OUT))
    vectors = _encoded(encoder, examples)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Head(encoder.dim)
        _fit(head, [e for e in examples if e.relation not in aside], vectors)
    held_out = [e for e in examples if e.relation in aside]
    head.eval()
    with torch.no_grad():
        logits = head(*_stacked(held_out, vectors))
    slope, shift = _calibration(logits, _truth(held_out))
    return {
        **{name: tensor.contiguous() for name, tensor in head.state_dict().items()},
        "slope": slope,
        "shift": shift,
    }


def _encoded(encoder: SentenceEncoder, examples: Sequence[Example]) -> dict[str, Tensor]:
    texts = sorted({text for e in examples for text in (e.asked, e.edit, e.target)} - {""})
    vectors = dict(zip(texts, torch.from_numpy(encoder.encode(texts)), strict=True))
    return {**vectors, "": torch.zeros(encoder.dim)}


def _stacked(
    examples: Sequence[Example], vectors: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    asked = torch.stack([vectors[e.asked] for e in examples])
    edits = torch.stack([vectors[e.edit] for e in examples])
    return asked, edits, torch.stack([vectors[e.target] for e in examples])


def _truth(examples: Sequence[Example]) -> Tensor:
    return torch.tensor([float(example.covered) for example in examples])


def _fit(head: Head, examples: Sequence[Example], vectors: Mapping[str, Tensor]) -> None:
    inputs, truth = _stacked(examples, vectors), _truth(examples)
    steps = EPOCHS * (len(examples) // _BATCH)
    optimiser = torch.optim.AdamW(head.parameters(), _LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(examples))
        for rows in order[: len(order) // _BATCH * _BATCH].split(_BATCH):
            logits = head(*(part[rows] for part in inputs))
            loss = F.binary_cross_entropy_with_logits(logits, truth[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def _calibration(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and shift of the logits (Platt 1999), positives and negatives weighing the same."""
    line = torch.tensor([1.0, 0.0], requires_grad=True)
    weight = torch.where(truth > 0, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))
    optimiser = torch.optim.LBFGS([line], max_iter=50)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(line[0] * logits + line[1], truth, weight)
        value.backward()
        return value

    optimiser.step(loss)
    slope, shift = line.detach()
    return slope, shift
