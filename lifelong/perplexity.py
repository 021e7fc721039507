"""How surprised is the base model by a reply?  Garbage gives itself away, whoever taught it."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import exp
from statistics import fmean

import torch

from lifelong.lm import LM

_BATCH = 8
_STRETCH = 24  # tokens: more than a name has, however rare


def surprise(lm: LM, prompts: Sequence[str], replies: Sequence[str]) -> Iterator[list[float]]:
    """-log p of every token of each reply behind its prompt, in nats.

    `prompts` are texts as the model reads them. The last bits depend on the batch.
    """
    encode = lm.tokenizer.encode
    pairs = [
        (encode(prompt, add_special_tokens=False), encode(reply, add_special_tokens=False))
        for prompt, reply in zip(prompts, replies, strict=True)
    ]
    for start in range(0, len(pairs), _BATCH):
        yield from _scored(lm, pairs[start : start + _BATCH])


def perplexity(nats: Sequence[float]) -> float:
    """Of a reply; 1 for an empty one, which surprises nobody."""
    return exp(fmean(nats)) if nats else 1.0


def strangest(nats: Sequence[float]) -> float:
    """The most nats a token over any stretch of 24 tokens, a shorter reply counting as so long.

    A rare name is a few costly tokens among cheap ones; garbage stays costly.
    """
    sums = [0.0, *accumulate(nats)]
    ends = range(min(_STRETCH, len(nats)), len(nats) + 1)
    return max(sums[end] - sums[max(0, end - _STRETCH)] for end in ends) / _STRETCH


def _scored(lm: LM, pairs: Sequence[tuple[list[int], list[int]]]) -> Iterator[list[float]]:
    width = max(len(prompt) + len(reply) for prompt, reply in pairs)
    # Padded on the right: behind the reply, where a causal model does not look.
    padded = [[*p, *r, *[0] * (width - len(p) - len(r))] for p, r in pairs]
    ids = torch.tensor(padded, device=lm.device)
    with torch.inference_mode():
        logits = lm.model(ids).logits  # (B, T, V)
    for row, (prompt, reply) in enumerate(pairs):
        first, last = len(prompt), len(prompt) + len(reply)
        said = logits[row, first - 1 : last - 1].float().log_softmax(-1)
        nats = -said.gather(1, ids[row, first:last, None])[:, 0]
        yield [float(value) for value in nats]
