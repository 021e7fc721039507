"""What `forward` makes of a given text: nats a token, first choices, perplexity.

Nothing is generated here. These figures stand in columns of their own (`tf_match`,
`p_new_over_old`, `neighbourhood`, perplexities): they are never accuracy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp

import torch

from lifelong.lm import LM

WINDOWS = 20  # of held-out text, unless it is shorter
WINDOW = 512  # tokens

_BATCH = 8

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class Scored:
    """A continuation under a model: nats of each token, and whether it was the first choice."""

    nats: tuple[float, ...]
    first: tuple[bool, ...]


def score(lm: LM, pairs: Sequence[tuple[Ids, Ids]]) -> list[Scored]:
    """Each (prompt, continuation) by one forward pass; a prompt has at least one token."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    scored: dict[int, Scored] = {}
    for start in range(0, len(order), _BATCH):
        some = order[start : start + _BATCH]
        scored.update(zip(some, _batch(lm, [pairs[i] for i in some]), strict=True))
    return [scored[i] for i in range(len(pairs))]


def _batch(lm: LM, pairs: Sequence[tuple[Ids, Ids]]) -> Iterator[Scored]:
    rows = [[*prompt, *said] for prompt, said in pairs]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):  # padded on the right: nothing looks ahead
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    with torch.inference_mode():
        inputs = {"input_ids": ids.to(lm.device), "attention_mask": mask.to(lm.device)}
        logits = lm.model(**inputs).logits  # (B, T, V)
    for row, (prompt, said) in zip(logits, pairs, strict=True):
        before = row[len(prompt) - 1 : len(prompt) + len(said) - 1].float()
        wanted = torch.tensor(list(said), device=before.device)
        nats = -before.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
        first = before.argmax(-1) == wanted
        yield Scored(tuple(nats.tolist()), tuple(first.tolist()))


def without(lm: LM, ids: Ids, targets: Sequence[str]) -> list[bool]:
    """Which tokens of a reply have no part in any of the `targets`."""
    pieces = [str(lm.tokenizer.decode([token])) for token in ids]
    text = "".join(pieces).casefold()
    taken = [
        (at, at + len(target))
        for target in map(str.casefold, targets)
        if target and (at := text.find(target)) >= 0
    ]
    kept, end = [], 0
    for piece in pieces:
        start, end = end, end + len(piece.casefold())
        kept.append(not any(start < stop and begin < end for begin, stop in taken))
    return kept


def perplexity(lm: LM, text: str) -> float | None:
    """exp(mean nats) over the first windows of `text`; None where it has no two tokens."""
    ids = lm.tokenizer.encode(text, add_special_tokens=False)[: WINDOWS * WINDOW]
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW)]
    nats = [
        n
        for window in windows
        if len(window) > 1
        for n in score(lm, [(window[:1], window[1:])])[0].nats
    ]
    return exp(sum(nats) / len(nats)) if nats else None
