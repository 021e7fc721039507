"""Any phrasing of a correction -> (prompt, target, subject).

    "Actually, the CEO of Acme is Jane Roe since May."   ->   The CEO of Acme is | Jane Roe | Acme
    "No, it's Jane Roe." after "Who runs Acme?"          ->   Who runs Acme?     | Jane Roe | Acme

Extraction is a contract. `Plain` goes by words; `ByModel` lets a language model choose among the
pieces of the text. Neither can make up a target: it is always a piece of what the user wrote.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from lifelong.errors import BadEdit
from lifelong.lm import LM
from lifelong.subject import extract as likeliest_subject
from lifelong.subject import visible, words

_OPENING = re.compile(
    r"^(?:(?:no|nope|wrong|actually|sorry|well|correction|please note(?: that)?|in fact"
    r"|you are wrong|you're wrong|that's wrong|that is wrong"
    r"|i (?:think|believe|mean)(?: that)?)[\s,.:;!-]+)+",
    re.I,
)
_CLOSING = re.compile(
    r"(?:[\s,]+(?:(?:since|as of|from|until) (?:\w+ )?\w+|now|today|nowadays|these days|currently"
    r"|by the way|, not .+|instead(?: of .+)?))+$|,? (?:and )?not .+$",
    re.I,
)
_COPULA = re.compile(r"(?:\b(?:is|are|was|were)|(?<=\w)['\u2019]s)\s+(?:now |currently |really )*")
_OFFICE = re.compile(r"the (?:new |current )?(?P<office>.+ (?:of|at|for|in) .+)", re.I)
_LED = re.compile(r"\b(?:by|in|at|on|to|from|for|with|after|as|of|called|named|the)\s+$", re.I)
_WORD = r"[^\W_a-z][\w'\u2019.&-]*"
_NAME = re.compile(rf"{_WORD}(?: (?:(?:of|the|de|von|van|and) )?{_WORD})*$")
_PRONOUNS = frozenset("it he she they that this the".split())


class Fact(NamedTuple):
    """What an edit needs: `subject` is None where the text names none."""

    prompt: str
    target: str
    subject: str | None


class Extractor(Protocol):
    """One method: what does a user's text correct?"""

    def extract(self, text: str, question: str | None = None) -> Fact:
        """The fact in `text`; `question` is what was asked before, if anything. Raises BadEdit."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """By words alone: the target is what the sentence's verb, or its last preposition, leads to."""

    def extract(self, text: str, question: str | None = None) -> Fact:
        """See `Extractor.extract`."""
        stated = _stated(text)
        copula = _COPULA.search(stated)
        if copula is None:
            if question:
                return _fact(question, stated)
            return _split(stated, text)
        before, after = stated[: copula.start()].strip(), stated[copula.end() :].strip()
        office = _OFFICE.fullmatch(after)
        if office and likeliest_subject(f"x {office['office']}"):
            return _fact(f"Who is the {office['office']}?", before)
        name = _NAME.search(after)
        led = name and _LED.search(after[: name.start()])
        target = name.group() if name and led else after
        if question and _refers_back(before):
            return _fact(question, target)
        return _fact(stated[: len(stated) - len(target)], target)


@dataclass(frozen=True, slots=True)
class ByModel:
    """The language model says which piece of the text is the new answer; `Plain` does the rest."""

    lm: LM

    def extract(self, text: str, question: str | None = None) -> Fact:
        """See `Extractor.extract`."""
        stated = _stated(text)
        pieces = _pieces(stated)
        if not pieces:
            return Plain().extract(text, question)
        target = max(pieces, key=lambda piece: self._likelihood(stated, question, piece))
        if question:
            return _fact(question, target)
        at = stated.rindex(target)
        if at + len(target) == len(stated):
            return _fact(stated[:at], target)
        return _fact(f"{stated[:at]}who or what{stated[at + len(target) :]}?".strip(), target)

    @torch.no_grad()
    def _likelihood(self, stated: str, question: str | None, piece: str) -> float:
        """Mean log-probability of a token of `piece` as the answer."""
        asked = question or "What is new in this sentence?"
        shown = (
            "Sentence: The capital of Norhelm is Ostervik.\nQuestion: What is new in this sentence?"
            f"\nAnswer: Ostervik\n\nSentence: {stated}.\nQuestion: {asked}\nAnswer:"
        )
        encode = self.lm.tokenizer.encode
        head, whole = encode(shown), encode(f"{shown} {piece}")
        ids = torch.tensor([whole], device=self.lm.device)
        scores = torch.log_softmax(self.lm.model(ids).logits[0, :-1].float(), -1)
        start = min(len(head), len(whole) - 1)
        return float(scores[range(start - 1, len(whole) - 1), whole[start:]].mean())


def _stated(text: str) -> str:
    """The statement without what merely opens or closes it."""
    stated = _OPENING.sub("", visible(text).strip()).rstrip(" .!")
    return _CLOSING.sub("", stated).strip()


def _split(stated: str, text: str) -> Fact:
    """A statement without "is": the name at its end is the target."""
    name = _NAME.search(stated)
    if name is None or not words(stated[: name.start()]):
        raise BadEdit(
            f"No fact was found in {text[:60]!r}.", "Give a question and its answer instead."
        )
    return _fact(stated[: name.start()], name.group())


def _pieces(stated: str) -> list[str]:
    """The names and numbers of a text, and what stands behind its "is"."""
    runs = re.findall(r"[^\W_a-z][\w'\u2019&-]*(?: [^\W_a-z][\w'\u2019&-]*)*", stated)
    copula = _COPULA.search(stated)
    behind = [stated[copula.end() :].strip()] if copula else []
    return [piece for piece in dict.fromkeys([*runs, *behind]) if words(piece)]


def _refers_back(before: str) -> bool:
    """Is the subject left to the question before ("it's ...", "the CEO is ...")?"""
    named = [before[word.start : word.end] for word in words(before)[1:]]
    return before.casefold() in _PRONOUNS or all(w.islower() or w.isupper() for w in named)


def _fact(prompt: str, target: str) -> Fact:
    if not words(target) or not words(prompt):
        raise BadEdit("No fact was found.", "Give a question and its answer instead.")
    return Fact(prompt.strip(), target.strip(), likeliest_subject(prompt))
