"""How surprised is the base model by a reply?  Garbage gives itself away, whoever taught it."""

from collections.abc import Iterator, Sequence

import torch

from lifelong.lm import LM

_BATCH = 8


def log_perplexity(lm: LM, prompts: Sequence[str], replies: Sequence[str]) -> list[float]:
    """Mean negative log-likelihood (nats a token) of each reply behind its prompt.

    `prompts` are texts as the model reads them. An empty reply has none: 0. Tokens of the reply are
    the same whatever it is batched with, its figure but for the last bits.
    """
    return list(_scored(lm, list(zip(prompts, replies, strict=True))))


def _scored(lm: LM, pairs: Sequence[tuple[str, str]]) -> Iterator[float]:
    encode = lm.tokenizer.encode
    for start in range(0, len(pairs), _BATCH):
        rows = [
            (encode(prompt, add_special_tokens=False), encode(reply, add_special_tokens=False))
            for prompt, reply in pairs[start : start + _BATCH]
        ]
        width = max(len(prompt) + len(reply) for prompt, reply in rows)
        # On the right: behind the reply, where a causal model cannot see it.
        padded = [[*p, *r, *[0] * (width - len(p) - len(r))] for p, r in rows]
        ids = torch.tensor(padded, device=lm.device)
        with torch.inference_mode():
            logits = lm.model(ids).logits.float()
        for row, (prompt, reply) in enumerate(rows):
            first, last = len(prompt), len(prompt) + len(reply)
            said = logits[row, first - 1 : last - 1].log_softmax(-1)
            known = said.gather(1, ids[row, first:last, None])
            yield -float(known.mean()) if reply else 0.0
