"""What the base model says to a text: asked while nothing is locked, no further than anybody reads.

No text is asked twice: the base model is frozen and the decoding greedy, so a reply holds as long
as the model does.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from lifelong.generate import Generate
from lifelong.lm import LM
from lifelong.prompt import Prompt, pad_left

BASE = "base model"  # the source of a hop that it was asked for

_REMEMBERED = 4096  # texts

T = TypeVar("T")
R = TypeVar("R")
Told = Mapping[str, str]  # text -> how the base model goes on with it
Ask = Callable[[str], str]


class Untold(Exception):
    """The base model is to be asked these first."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__(texts)
        self.texts = texts


def each(items: Iterable[T], step: Callable[[T], R]) -> list[R]:
    """`step` of each item. Raises Untold for what any of them wants to be told."""
    done, untold = list[R](), list[str]()
    for item in items:
        try:
            done.append(step(item))
        except Untold as wanted:
            untold += wanted.texts
    if untold:
        raise Untold(untold)
    return done


def asking(step: Callable[[Told], R], ask: Ask) -> R:
    """What `step` comes to once it is told what it wants to know of the base model."""
    told: dict[str, str] = {}
    while True:
        try:
            return step(told)
        except Untold as wanted:
            told |= {text: ask(text) for text in wanted.texts}


@dataclass(frozen=True, slots=True)
class Until:
    """How much of a reply is wanted: up to what `ends` finds in it, or so many tokens."""

    ends: re.Pattern[str]
    tokens: int


def remembered(lm: LM, generate: Generate) -> Callable[[str, Until], str]:
    """How the base model goes on with a text; `generate` is its own."""

    @lru_cache(_REMEMBERED)
    def say(text: str, until: Until) -> str:
        ids, mask = pad_left(lm, [Prompt(text)])
        read = _Read(lm, until.ends, ids.shape[1])
        out = generate(
            ids,
            attention_mask=mask,
            max_new_tokens=until.tokens,
            do_sample=False,
            num_beams=1,
            stopping_criteria=StoppingCriteriaList([read]),
        )
        assert isinstance(out, torch.Tensor)
        return read.said(out)

    return say


class _Read(StoppingCriteria):
    """Ends a reply where nobody reads on."""

    def __init__(self, lm: LM, ends: re.Pattern[str], start: int) -> None:
        self._lm = lm
        self._ends = ends
        self._start = start

    def said(self, ids: torch.Tensor) -> str:
        """The reply in the only row of `ids` (1, T)."""
        new = ids[0, self._start :]
        return str(self._lm.tokenizer.decode(new, skip_special_tokens=True)).strip()

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any
    ) -> torch.BoolTensor:
        over = bool(self._ends.search(self.said(input_ids)))
        return torch.tensor([over], device=input_ids.device)  # type: ignore[return-value]
