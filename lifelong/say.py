"""A logits processor that makes a reply say a target, where the reply has room for it.

    free words of the model ... | the target, token by token | end of sentence

The slot is where the model itself is about to answer: the target's first token is nearly its first
choice (it has read the fact), or its first choice would bring in a name of its own. Every decision
is a pure function of the tokens said so far, so beams, sampling, assisted decoding and batches all
work; a row without a `Say` is not touched.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from lifelong.match import SHORT
from lifelong.prompt import Say
from lifelong.subject import normalise, words

OPENING_WORDS = 2  # tokens before the target, so that a chat reply is more than the bare target

_LATEST = 16  # tokens after which the target is said in any case
_SURE = 0.5  # nats behind the first choice: a slot even before the subject was named
_SLOT = 2.5  # ... and after it was
_JOINED = 3.5  # ... and after a word that wants an object: "was founded by"
_PATIENCE = 0.1  # nats by which the slot widens with every token
_UNDERWAY = 5.0  # nats: an ambiguous beginning ("the", " ", "1") was meant as the target's
_CHOICES = 20  # candidates among which a word that invents nothing is sought
_JOINTS = frozenset(
    "is was are were be been in at by of to from on with as for named called than until".split()
)
_RUN = 4  # tokens in a row that a further sentence says once only
_ARTICLES = frozenset({"a", "an", "the"})
_OVER = re.compile(r"\w[^.!?]*[.!?]|\n")  # behind the target's sentence, another has ended
_OPENERS = frozenset("It Its The This They Their He She His Her As In".split())  # no names
_OPENS = "(\"'\u201c\u2018["


class Wording(NamedTuple):
    """The tokens of a target at the beginning of a text and, behind a space, in its middle."""

    bare: tuple[int, ...]
    spaced: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, target: str) -> "Wording":
        """Tokenise `target` without and with a space before it."""
        # Behind an anchor, because some tokenizers put a space of their own before a text.
        return cls(_after(tokenizer, "\n", target), _after(tokenizer, "x", f" {target}"))


def _after(tokenizer: PreTrainedTokenizerBase, anchor: str, text: str) -> tuple[int, ...]:
    head = tokenizer.encode(anchor, add_special_tokens=False)
    whole = tokenizer.encode(anchor + text, add_special_tokens=False)
    if whole[: len(head)] == head:
        return tuple(whole[len(head) :])
    return tuple(tokenizer.encode(text, add_special_tokens=False))


class Saying(LogitsProcessor):
    """Row r of a batch of prompts says `says[r]`; rows may be expanded by beams or samples.

    Args:
        says: one per submitted row; None leaves the row alone.
        start: tokens of the (padded) prompt; what follows is the reply.
        room: new tokens the caller allows; the target is said within them if it fits at all.
        ends: the ids that end a reply.
    """

    supports_continuous_batching = False

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        says: Sequence[Say | None],
        *,
        start: int,
        room: int,
        ends: Sequence[int],
    ) -> None:
        self._start = start
        self._speakers = [say and Speaker(tokenizer, say, room, tuple(ends)) for say in says]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` (rows, vocabulary) with the speaking rows' choices narrowed."""
        copies = len(input_ids) // len(self._speakers)
        shaped = scores.clone()
        for row, ids in enumerate(input_ids):
            speaker = self._speakers[row // copies]
            if speaker:
                shaped[row] = speaker.shape(ids[self._start :].tolist(), scores[row])
        return shaped


class Speaker:
    """Decides, token by token, how one reply comes to say its target."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, say: Say, room: int, ends: tuple[int, ...]
    ) -> None:
        self._tokenizer = tokenizer
        self._say = say
        self._ends = ends
        self._room = room
        self._wording = Wording.of(tokenizer, say.target)
        room -= max(map(len, self._wording)) + 2
        alone = len(normalise(say.target)) < SHORT
        lead = tokenizer.encode(say.lead, add_special_tokens=False) if say.lead else []
        self._lead = lead if len(lead) <= room and not alone else []
        self._tail = _after(tokenizer, "x", say.tail) if say.tail and not alone else ()
        free = 0 if alone or say.at_once else max(0, min(_LATEST, room - len(self._lead)))
        self._latest = len(self._lead) + free
        self._opening = min(len(self._lead) or OPENING_WORDS, self._latest)

    @cached_property
    def _target(self) -> re.Pattern[str]:
        """The target as whole words, as it was given or as its tokens read."""
        read = [self._decode(list(tokens)) for tokens in self._wording]
        spellings = {re.escape(text.strip()) for text in (self._say.target, *read)}
        return re.compile(rf"(?<!\w)(?:{'|'.join(sorted(spellings))})(?!\w)")

    @cached_property
    def _known(self) -> frozenset[str]:
        say = self._say
        return frozenset(w.folded for w in words(f"{say.known} {say.subject or ''} I"))

    @cached_property
    def _unsaid(self) -> list[Wording]:
        return [Wording.of(self._tokenizer, text) for text in self._say.avoid]

    @cached_property
    def _stop(self) -> int:
        return _after(self._tokenizer, "x", ".")[0]

    def foregone(self) -> list[int] | None:
        """The whole reply, up to its end or the end of its room, where no word is the model's."""
        if not self._say.at_once or self._say.goes_on or not self._ends:
            return None
        said, any_token = list[int](), torch.zeros(len(self._tokenizer))
        while len(said) < self._room and (not said or said[-1] not in self._ends):
            (choices,) = torch.isfinite(self.shape(said, any_token)).nonzero(as_tuple=True)
            if len(choices) != 1:
                return None
            said.append(int(choices[0]))
        return said

    def shape(self, said: list[int], scores: torch.Tensor) -> torch.Tensor:
        """The scores (vocabulary,) from which the reply's next token is to be chosen."""
        if len(said) < len(self._lead):
            return _only(self._lead[len(said)], scores)
        own = self._decode(said[len(self._lead) :])
        if found := self._target.search(own):
            return self._finish(said, own[found.end() :], scores)
        text = self._decode(said)
        forced = self._underway(said, scores)
        if forced is None and self._begins(said, text, scores):
            forced = self._first(said)
        if forced is not None:
            return _only(forced, scores)
        free = _without(
            {
                *self._ends,
                *self._avoided(said),
                *self._too_early(said),
                *(self._names(text, scores) if self._inventions(text, scores) else ()),
            },
            scores,
        )
        return free if torch.isfinite(free).any() else _only(self._first(said), scores)

    def _finish(self, said: list[int], tail: str, scores: torch.Tensor) -> torch.Tensor:
        """End the sentence, then the reply: what a small model adds is mostly invented.

        Where it goes on, it says one more sentence, without names or numbers of its own.
        """
        if (more := self._more(tail)) is not None:
            return _only(more, scores)
        ended = (self._say.tail or self._say.target).endswith((".", "!", "?"))
        if tail.strip() == self._say.tail.strip() and not ended:
            return _only(self._stop, scores)
        if not self._ends:
            return scores
        if not self._say.goes_on or _OVER.search(tail):
            return _only(self._ends[0], scores)
        dull = {*self._avoided(said), *self._again(said, tail), *self._breaks(tail, scores)}
        free = _without({*self._ends, *dull, *self._names(tail, scores)}, scores)
        return free if torch.isfinite(free).any() else _only(self._ends[0], scores)

    def _again(self, said: list[int], tail: str) -> set[int]:
        """Tokens with which what follows the target would say a run of tokens once more."""
        lengths = range(len(said) + 1)
        mine = next(said[-n:] for n in lengths if len(self._decode(said[-n:])) >= len(tail) and n)
        runs = zip(*(mine[i:] for i in range(_RUN)), strict=False)
        return {run[-1] for run in runs if list(run[:-1]) == mine[1 - _RUN :]}

    def _breaks(self, tail: str, scores: torch.Tensor) -> set[int]:
        """The line breaks among the model's first choices, before a word follows the target."""
        if any(map(str.isalnum, tail)):
            return set()
        return {token for token, piece in self._choices(scores) if "\n" in piece}

    def _more(self, tail: str) -> int | None:
        """The next token of the words that belong behind the target."""
        said = (n for n in range(len(self._tail)) if self._decode(list(self._tail[:n])) == tail)
        return next((self._tail[n] for n in said), None)

    def _avoided(self, said: list[int]) -> set[int]:
        """Tokens with which the reply would have said what it must not."""
        return {
            wording[-1]
            for wordings in self._unsaid
            for wording in wordings
            if tuple(said[len(said) - len(wording) + 1 :]) == wording[:-1]
        }

    def _underway(self, said: list[int], scores: torch.Tensor) -> int | None:
        """The target's next token, where its first ones have just been said."""
        for n, wording in self._fitting(said):
            meant = not self._ambiguous(wording[:n]) or len(said) > self._latest
            if meant or _gap(scores, wording[n]) <= _UNDERWAY:
                return wording[n]
        return None

    def _fitting(self, said: list[int]) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(n, wording) where the last n tokens begin the target; the largest n first."""
        for n in range(max(map(len, self._wording)) - 1, 0, -1):
            for spaced, wording in enumerate(self._wording):
                begun = n < len(wording) and tuple(said[-n:]) == wording[:n]
                if begun and self._spaced(said[:-n]) == spaced:
                    yield n, wording

    def _ambiguous(self, first: Sequence[int]) -> bool:
        """Could the target's first tokens as well begin something else that is spoken of?"""
        piece = self._decode(list(first)).strip().casefold()
        return len(piece) < 2 or piece in _ARTICLES or self._begins_known(piece)

    def _begins_known(self, piece: str) -> bool:
        return any(word.startswith(piece) for word in self._known)

    def _begins(self, said: list[int], text: str, scores: torch.Tensor) -> bool:
        """Is this the slot?"""
        if len(said) >= self._latest:
            return True
        if len(said) < self._opening:
            return False
        first = self._first(said)
        gap = _gap(scores, first)
        if not self._named(text):
            return gap <= _SURE and not self._ambiguous([first])
        joined = text.split()[-1].casefold() in _JOINTS
        if gap <= (_JOINED if joined else _SLOT) + _PATIENCE * len(said):
            return True
        return len(self._inventions(text, scores)) >= (1 if joined else _CHOICES)

    def _first(self, said: list[int]) -> int:
        return self._wording[self._spaced(said)][0]

    def _spaced(self, said: list[int]) -> bool:
        """Does a word that follows what was said begin with a space?"""
        text = self._say.before + self._decode(said)
        return bool(text) and not text[-1].isspace() and text[-1] not in _OPENS

    def _named(self, text: str) -> bool:
        """Has the reply named its subject?  Without a subject: has it any words yet?"""
        subject = normalise(self._say.subject or "").split()
        said = normalise(text).split()
        return subject[-1] in said if subject else len(said) > OPENING_WORDS

    def _too_early(self, said: list[int]) -> set[int]:
        if len(said) >= self._opening:
            return set()
        return {wording[0] for wording in self._wording}

    def _inventions(self, text: str, scores: torch.Tensor) -> list[int]:
        """The model's first choices that would begin a name it was not given, best first."""
        if not text or text.rstrip()[-1:] in '.!?:"\n':
            return []  # a sentence begins, and with it any capital letter
        choices = self._choices(scores)
        names = takewhile(lambda choice: self._is_name(text, choice[1]), choices)
        return [token for token, _ in names]

    def _names(self, text: str, scores: torch.Tensor) -> list[int]:
        """Those of the model's first choices that would begin a name it was not given."""
        return [token for token, piece in self._choices(scores) if self._is_name(text, piece)]

    def _choices(self, scores: torch.Tensor) -> Iterator[tuple[int, str]]:
        for token in scores.topk(min(_CHOICES, len(scores))).indices.tolist():
            yield token, self._decode([token])

    def _is_name(self, text: str, piece: str) -> bool:
        word = piece.strip()
        if word.isdigit() and not piece[:1].isspace():  # the number that goes on
            word = text[len(text.rstrip("0123456789")) :] + word
        if not word:  # some tokenizers put a space of its own before a number
            return piece == " " and not any(known[:1].isdigit() for known in self._known)
        named = piece[:1].isspace() and word[:1].isupper() and word not in _OPENERS
        return (named or word[:1].isdigit()) and not self._begins_known(word.casefold())

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _gap(scores: torch.Tensor, token: int) -> float:
    """How far, in nats, `token` is behind the first choice."""
    return float(scores.max() - scores[token])


def _only(token: int, scores: torch.Tensor) -> torch.Tensor:
    shaped = torch.full_like(scores, -torch.inf)
    shaped[token] = scores[token] if torch.isfinite(scores[token]) else 0.0
    return shaped


def _without(tokens: set[int], scores: torch.Tensor) -> torch.Tensor:
    shaped = scores.clone()
    shaped[list(tokens)] = -torch.inf
    return shaped
