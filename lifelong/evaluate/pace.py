"""What the edits cost a turn that none of them touches: the same question, asked in pairs."""

from collections.abc import Iterator
from statistics import median
from time import perf_counter
from typing import Any

from lifelong.evaluate.protocol import GREEDY
from lifelong.generate import Generate
from lifelong.lm import LM
from lifelong.prompt import Prompt, pad_left

PAIRS = 7
TOKENS = 32  # after the first


def pace(lm: LM, edited: Generate, bare: Generate, prompt: Prompt) -> dict[str, Any]:
    """Median milliseconds to the first token and for each further one, of both models.

    `n` pairs, in turn. The first token waits for the look into the memory.
    """
    first, whole = (list(_pairs(lm, (edited, bare), prompt, n)) for n in (1, 1 + TOKENS))
    prefill = [median(one) for one in zip(*first, strict=True)]
    token = [
        (median(one) - start) / TOKENS
        for one, start in zip(zip(*whole, strict=True), prefill, strict=True)
    ]
    return {
        name: {"value": 1000 * now, "base": 1000 * base, "n": PAIRS}
        for name, (now, base) in {"prefill_ms": prefill, "token_ms": token}.items()
    }


def _pairs(
    lm: LM, models: tuple[Generate, Generate], prompt: Prompt, tokens: int
) -> Iterator[list[float]]:
    """Seconds of each model; a first pair, in which caches fill, is left out."""
    ids, mask = pad_left(lm, [prompt])
    for pair in range(PAIRS + 1):
        taken = []
        for generate in models:
            began = perf_counter()
            generate(
                ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, **GREEDY
            )
            taken.append(perf_counter() - began)
        if pair:
            yield taken
