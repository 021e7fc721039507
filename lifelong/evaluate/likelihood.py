"""What `forward` makes of a given text: nats a token, first choices, perplexity.

Nothing is generated here. These figures stand in columns of their own (`tf_match`,
`p_new_over_old`, `neighbourhood`, perplexities): they are never accuracy.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp
from statistics import fmean

import torch

from lifelong.evaluate.protocol import Protocol, Reply
from lifelong.evaluate.raw import Row
from lifelong.lm import LM

WINDOW = 512  # tokens of held-out text
NEIGHBOURS = 2  # of an edit, whose labelled answers are compared with its target

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """A continuation under a model: nats of each token, and whether it was the first choice."""

    nats: tuple[float, ...]
    first: tuple[bool, ...]


def score(lm: LM, prompt: Ids, said: Ids) -> Scored:
    """A continuation, by one forward pass of its own: in a batch, padding would decide last bits.

    The prompt has at least one token.
    """
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *said]], device=lm.device)
        logits = lm.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
        wanted = torch.tensor(said, dtype=torch.long, device=lm.device)
        nats = -logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
        first = logits.argmax(-1) == wanted
    return Scored(tuple(nats.tolist()), tuple(first.tolist()))


class Likelihoods:
    """Likelihoods of rows; what was computed once is remembered."""

    def __init__(self, lm: LM, protocol: Protocol) -> None:
        self._lm = lm
        self._protocol = protocol
        self._known: dict[tuple[str, Ids, Ids], Scored] = {}

    def natural(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Own prompts: nats and tokens of the reply and of the base model's, targets left out.

        The model must be the base model, whoever said it.
        """
        own = [row for row in rows if row.kind == "own" and row.reply and row.base]
        said = [reply for row in own for reply in (row.reply, row.base) if reply]
        asked = [row.prompt for row in own for _ in range(2)]
        scored = iter(self._score("", [(p, r.ids) for p, r in zip(asked, said, strict=True)]))
        for row in rows:
            if row.kind == "own" and row.reply and row.base:
                mine = self._rest(next(scored), row.reply, row)
                base = self._rest(next(scored), row.base, row)
                names = ("nats", "tokens", "base_nats", "base_tokens")
                row = row.measuring(dict(zip(names, (*mine, *base), strict=True)))
            yield row

    def forced(self, rows: Sequence[Row], state: str) -> Iterator[Row]:
        """Own prompts and labelled neighbours: what `forward`, in this state, makes of answers."""
        new = {row.place: row.accepted[0] for row in rows if row.kind == "own"}
        asked = [(row, *pair) for row in _few(rows) if (pair := _answers(row, new[row.place]))]
        texts = [(row.prompt, answer) for row, *pair in asked for answer in pair if answer]
        scored = dict(zip(texts, self._of_answers(state, texts), strict=True))
        pairs = {id(row): pair for row, *pair in asked}
        for row in rows:
            if id(row) in pairs:
                first, second = (scored.get((row.prompt, a)) for a in pairs[id(row)])
                row = row.measuring(_compared(row, first, second))
            yield row

    def _of_answers(self, state: str, texts: Sequence[tuple[str, str]]) -> list[Scored]:
        lead = "" if self._protocol.chat else " "
        encode = self._lm.tokenizer.encode
        return self._score(
            state, [(p, tuple(encode(lead + a, add_special_tokens=False))) for p, a in texts]
        )

    def _score(self, state: str, asked: Sequence[tuple[str, Ids]]) -> list[Scored]:
        prompts = {text: self._ids(text) for text, _ in asked}
        keys = [(state, prompts[text], tuple(said)) for text, said in asked]
        for key in keys:
            if key not in self._known:
                self._known[key] = score(self._lm, *key[1:])
        return [self._known[key] for key in keys]

    def _ids(self, text: str) -> tuple[int, ...]:
        prompt = self._protocol.prompt(self._lm, text)
        special = prompt.messages is None
        return tuple(self._lm.tokenizer.encode(prompt.text, add_special_tokens=special))

    def _rest(self, scored: Scored, reply: Reply, row: Row) -> tuple[float, float]:
        """Nats and tokens of what is no part of an answer."""
        kept = without(self._lm, reply.ids, row.accepted)
        nats = [n for n, keep in zip(scored.nats, kept, strict=True) if keep]
        return sum(nats), float(len(nats))


def _few(rows: Sequence[Row]) -> Iterator[Row]:
    """All but the third and further neighbours of an edit."""
    seen: Counter[int] = Counter()
    for row in rows:
        if row.kind == "near":
            seen[row.place] += 1
        if row.kind != "near" or seen[row.place] <= NEIGHBOURS:
            yield row


def _answers(row: Row, new: str) -> tuple[str, str] | None:
    """The two answers that are compared: the new and the old, or the true and the new."""
    if row.kind == "own":
        return new, row.old[0] if row.old else ""
    return (row.accepted[0], new) if row.kind == "near" and row.accepted else None


def _compared(row: Row, first: Scored | None, second: Scored | None) -> dict[str, float]:
    found: dict[str, float] = {}
    if row.kind == "own" and first and first.first:
        found["tf_match"] = fmean(first.first)
    if first and second and first.nats and second.nats:
        name = "new_over_old" if row.kind == "own" else "true_over_new"
        found[name] = float(fmean(first.nats) < fmean(second.nats))
    return found


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


def perplexity(lm: LM, text: str, most: int | None) -> float | None:
    """exp(mean nats) over (the first `most`) windows of `text`; None where it has no two tokens."""
    room = None if most is None else most * WINDOW
    ids = tuple(lm.tokenizer.encode(text, add_special_tokens=False)[:room])
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW)]
    nats = [
        n for window in windows if len(window) > 1 for n in score(lm, window[:1], window[1:]).nats
    ]
    return exp(sum(nats) / len(nats)) if nats else None
