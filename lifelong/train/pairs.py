"""Trains the pair reader: is this question answered by that edit?  (SERAC's scope classifier.)

    P(in scope) = sigmoid(w . [a * b, |a - b|] + c)     a, b = means over the question's and the
                                                        edit's tokens, which attend to each other

Positives are other wordings of the edit's relation, also behind an unrelated fragment, as a
yes/no question, or as one part of a longer request. Negatives are wordings of the relations that
the sentence encoder finds nearest, negated wordings, and sentences that ask for nothing.
"""

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.encoder import SentenceEncoder, Vectors
from lifelong.scope import PairReader, Pair
from lifelong.train.data import Corpus, Relation, overlapping
from lifelong.train.lora import factors, low_rank

STEPS = 600

_EDITS = 16  # a step
_NEGATIVES = 3  # an edit
_LEARNING_RATE = 4e-4
_RIVALS = 24  # nearest relations that negatives are drawn from
_FAR = 0.35  # cosine below which an unnamed relation is taken to be another one

_REQUESTS = (
    "Write a short paragraph about this, including the {}.",
    "Describe this in two sentences and mention the {}.",
    "Introduce this to me: what it is, and its {}.",
    "Tell me about this and its {}.",
    "Write a short text about this that gives the {}.",
)
_LEADS = (
    "Tell me, ", "Please answer: ", "By the way, ", "Quick question: ", "Hi! ", "I forgot, ",
    "Complete the sentence: ", "I am writing about this. ", "Remind me, ", "And ",
)  # fmt: skip
_YES_NO = ("Is it true that {} {}?", "{} {}, right?", "{} {}, is that correct?", "Is it so that {} {}?")
_YES_NO_LABEL = ("Is {a} the {l} of this?", "Is the {l} of this {a}?", "Is this's {l} {a}?")


@dataclass(frozen=True)
class Example:
    """A question, an edit's clause and its target, and whether the edit covers the question."""

    pair: Pair
    covered: bool


class Examples:
    """Draws examples from a corpus; `encoder` finds the rivals."""

    def __init__(self, data: Corpus, encoder: SentenceEncoder, rng: random.Random) -> None:
        self._data, self._rng = data, rng
        self._names = sorted(data.relations)
        self._answered = [name for name in self._names if data.relations[name].answers]
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
        """The examples of one step."""
        return [example for _ in range(_EDITS) for example in self._about_an_edit()]

    def _about_an_edit(self) -> list[Example]:
        rng = self._rng
        kind = rng.random()
        if kind < 0.15 and self._data.pairs:
            at = rng.randrange(len(self._data.pairs))
            edit, asked, answer = self._data.pairs[at]
            if rng.random() < 0.5:
                edit, asked = asked, edit
            rivals, wordings = self._pair_rivals[at], frozenset((edit, asked))
            label = None
        else:
            label = rng.choice(self._answered if kind < 0.55 else self._names)
            relation = self._data.relations[label]
            edit, asked = self._two(relation)
            answer = rng.choice(relation.answers) if relation.answers else ""
            rivals, wordings = self._rivals[label], relation.wordings
        target = answer if rng.random() > 0.2 else ""
        found = [Example((self._dressed(asked, answer, label), edit, target), True)]
        for _ in range(_NEGATIVES):
            found.append(Example((self._other(rivals, wordings, asked), edit, target), False))
        return found

    def _two(self, relation: Relation) -> tuple[str, str]:
        """Two wordings of a relation, from one data set as often as not."""
        rng = self._rng
        first = rng.choice(relation.sources)
        second = first if rng.random() < 0.5 and len(first) > 1 else rng.choice(relation.sources)
        edit = rng.choice(first)
        asked = rng.choice([text for text in second if text != edit] or sorted(relation.wordings - {edit}))
        return edit, asked

    def _dressed(self, asked: str, answer: str, label: str | None) -> str:
        """`asked` as it may stand in a prompt."""
        rng, kind = self._rng, self._rng.random()
        completes = not asked.endswith(("?", "."))
        if kind < 0.08 and answer:
            other = rng.choice(self._data.relations[label].answers) if label else answer
            said = rng.choice([answer, other])
            if completes:
                return rng.choice(_YES_NO).format(asked, said)
            if label and not label[1:].isdigit():
                return rng.choice(_YES_NO_LABEL).format(a=said, l=label)
        if kind < 0.14 and label and not label[1:].isdigit():
            return rng.choice(_REQUESTS).format(label)
        return self._led(asked)

    def _led(self, asked: str) -> str:
        rng, kind = self._rng, self._rng.random()
        if kind < 0.12 and self._data.plain:
            words = rng.choice(self._data.plain).replace("this", "").split()
            return " ".join([*words[: rng.randint(2, 8)], asked])
        if kind < 0.2:
            return rng.choice(_LEADS) + asked
        return asked

    def _other(self, rivals: Sequence[str], wordings: frozenset[str], asked: str) -> str:
        rng, kind = self._rng, self._rng.random()
        if kind < 0.12 and self._data.plain:
            return rng.choice(self._data.plain)
        if kind < 0.16 and (negated := _negated(asked)):
            return negated
        if kind < 0.24:
            name = rng.choice(self._names)
        else:
            name = rivals[min(int(rng.expovariate(1 / 8)), len(rivals) - 1)]
        if kind < 0.24 and name not in rivals:
            name = rng.choice(rivals)
        relation = self._data.relations[name]
        free = [text for text in rng.choice(relation.sources) if text not in wordings]
        if not free:
            return self._other(rivals, wordings, asked)
        text = rng.choice(free)
        answer = rng.choice(relation.answers) if relation.answers else ""
        return self._dressed(text, answer, name)


def _negated(asked: str) -> str | None:
    text, count = re.subn(r"\b(is|was|are)\b(?!.*\?)", r"\1 not", asked, count=1)
    return text if count else None


def train(
    encoder: SentenceEncoder, data: Corpus, start: dict[str, Tensor] | None, adapted: SentenceEncoder,
    *, steps: int = STEPS, seed: int = 0,
) -> dict[str, Tensor]:
    """Factors and head. `encoder` itself is changed; `adapted` mines the rivals."""
    rng = random.Random(seed)
    examples = Examples(data, adapted, rng)
    bert = encoder.transformer
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapters = low_rank(bert, start)
        reader = PairReader(bert, encoder.tokenizer)
        head = reader.head
        parameters = [p for adapter in adapters.values() for p in adapter.parameters()]
        parameters += [*head.parameters()]
        optimiser = torch.optim.AdamW(parameters, _LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, [_LEARNING_RATE], total_steps=steps, pct_start=0.1
        )
        bert.train()
        run = []
        for step in range(steps):
                batch = sorted(examples.draw(), key=lambda example: len("".join(example.pair)))
                optimiser.zero_grad()
                half = len(batch) // 2
                for part in (batch[:half], batch[half:]):
                    truth = torch.tensor([float(example.covered) for example in part])
                    with torch.autocast("cpu", torch.bfloat16):
                        logits = reader([example.pair for example in part])
                    loss = F.binary_cross_entropy_with_logits(logits.float(), truth) / 2
                    loss.backward()
                    run.append(2 * loss.item())
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                schedule.step()
                if step % 25 == 24: print(step, sum(run[-50:])/50, time.process_time(), flush=True)
                if step % 100 == 99: torch.save({**factors(adapters), 'head.weight': head.weight.detach(), 'head.bias': head.bias.detach()}, '/tmp/sc/ckpt.pt')
    bert.eval()
    return {**factors(adapters), "head.weight": head.weight.detach(), "head.bias": head.bias.detach()}
