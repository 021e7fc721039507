"""What any method must beat, in the same run: no edits, plain RAG, facts in context.

none      the base model
rag       the fact nearest to the prompt (cosine of whole texts, the encoder as it ships) is put
          before it, whatever it is about: there is no scope decision
context   all facts at least half alike are put before it, the nearest first, up to 16 of them
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from lifelong.encoder import Encoder
from lifelong.evaluate.contender import Contender
from lifelong.evaluate.protocol import Protocol
from lifelong.evaluate.stream import Item, standing
from lifelong.generate import Generate, Output
from lifelong.lm import LM
from lifelong.prompt import Prompt
from store import Edit

_CONTEXT = 16
_ALIKE = 0.5


class NoEdits:
    """The base model: what was never taught."""

    name = "none"
    gated = True

    def __init__(self, lm: LM, generate: Generate, protocol: Protocol) -> None:
        self._lm = lm
        self._generate = generate
        self._protocol = protocol

    def generate(self, input_ids: torch.Tensor, **kwargs: Any) -> Output:
        """The base model's."""
        return self._generate(input_ids, **kwargs)

    def at(self, items: Sequence[Item]) -> None:
        """Nothing is learnt."""

    def shapes(self, texts: Sequence[str]) -> list[str]:
        """See `Contender.shapes`."""
        return [""] * len(texts)

    def prompt(self, text: str, shape: str) -> Prompt:
        """The text itself."""
        return self._protocol.prompt(self._lm, text)

    def told(self, text: str, facts: Sequence[str]) -> Prompt:
        """The text behind facts."""
        return self._protocol.told(self._lm, text, facts)

    def state(self) -> str:
        """Nothing is changed."""
        return ""

    def untouched(self) -> AbstractContextManager[object]:
        """It always is."""
        return nullcontext()


class Retrieved:
    """The base model with the facts nearest to a text before it."""

    gated = False

    def __init__(
        self,
        name: str,
        base: NoEdits,
        encoder: Encoder,
        *,
        facts: int,
        floor: float = -1.0,
    ) -> None:
        """At most `facts` facts, each with a cosine of at least `floor`."""
        self.name = name
        self._base = base
        self._encoder = encoder
        self._facts = facts
        self._floor = floor
        self._known: dict[int, Edit] = {}
        self._vectors = np.empty((0, encoder.dim), np.float32)

    def generate(self, input_ids: torch.Tensor, **kwargs: Any) -> Output:
        """The base model's."""
        return self._base.generate(input_ids, **kwargs)

    def at(self, items: Sequence[Item]) -> None:
        """Know the edits that stand."""
        self._known = {item.place: item.edit for item in standing(items)}
        self._vectors = self._encoder.encode([edit.prompt for edit in self._known.values()])

    def shapes(self, texts: Sequence[str]) -> list[str]:
        """The places of the facts before each text."""
        return [",".join(map(str, self._nearest(row))) for row in self._encoder.encode(texts)]

    def prompt(self, text: str, shape: str) -> Prompt:
        """The text behind its facts."""
        edits = [self._known[int(place)] for place in shape.split(",") if place]
        return self._base.told(text, [f"{edit.prompt.strip()} {edit.target}." for edit in edits])

    def state(self) -> None:
        """What answers is the prompt."""

    def untouched(self) -> AbstractContextManager[object]:
        """It always is."""
        return nullcontext()

    def _nearest(self, query: np.ndarray) -> list[int]:
        cosines = self._vectors @ query
        best = np.argsort(-cosines, kind="stable")[: self._facts]
        places = list(self._known)
        return [places[i] for i in best if cosines[i] >= self._floor]


BASELINES: Mapping[str, Callable[[NoEdits, Encoder], Contender]] = {
    "none": lambda base, _: base,
    "rag": lambda base, encoder: Retrieved("rag", base, encoder, facts=1),
    "context": lambda base, encoder: Retrieved(
        "context", base, encoder, facts=_CONTEXT, floor=_ALIKE
    ),
}
