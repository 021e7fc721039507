"""Any phrasing of a correction -> (prompt, target, subject).

    "Actually, the CEO of Acme is Jane Roe since May."   ->   The CEO of Acme is | Jane Roe | Acme
    "No, it's Jane Roe." after "Who runs Acme?"          ->   Who runs Acme?     | Jane Roe | Acme
    "If asked for a price, then answer in euros."        ->   a language patch

Extraction is a contract. `Plain` goes by words; `choose.ByModel` lets a language model choose among
the pieces of the text. Neither can make up a target: it is always a piece of what the user wrote.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lifelong.errors import BadEdit
from lifelong.subject import extract as likeliest_subject
from lifelong.subject import visible, words

_OPENING = re.compile(
    r"^(?:(?:no|nope|wrong|actually|sorry|well|correction|please note(?: that)?|in fact"
    r"|incorrect|you are wrong|you're wrong|that's wrong|that is wrong|that's not (?:true|right)"
    r"|that is not (?:true|right)"
    r"|i (?:think|believe|mean)(?: that)?)[\s,.:;!-]+)+",
    re.I,
)
_CLOSING = re.compile(
    r"(?:[\s,]+(?:(?:since|as of|from|until) (?:\w+ )?\w+|now|today|nowadays|these days|currently"
    r"|by the way|, not .+|instead(?: of .+)?))+$|,? (?:and )?not .+$",
    re.I,
)
_DENIAL = re.compile(
    r"(?:no|nope|wrong|incorrect|actually|correction|you are wrong|you're wrong|that's wrong"
    r"|that is wrong|that's not (?:true|right)|that is not (?:true|right))\b[\s,.:;!-]+(?=\S)",
    re.I,
)
_PERSONAL = re.compile(r"\b(?:i|my|me|we|our|you|your|let)\b", re.I)
_NO_ANSWER = re.compile(r"(?:not|what|why|how|wrong|right|fine|ok|okay|enough|all|too|so)\b", re.I)
_RULE = re.compile(
    r"\s*(?P<condition>(?:if|when|whenever)\s.+?)"
    r"(?:,? then |, (?!.* then )(?=[^,]*$))"
    r"(?:(?:please |always )*(?:say|answer with|reply with):? )?(?P<consequence>.+?)[\s.]*",
    re.I,
)
COPULA = re.compile(
    r"(?:\b(?:is|are|was|were)|(?:(?<=\bit)|(?<=\bhe)|(?<=\bshe)|(?<=\bthat))['\u2019]s)\s+"
    r"(?:now |currently |really )*",
    re.I,
)
_OFFICE = re.compile(r"the (?:new |current )?(?P<office>.+ (?:of|at|for|in) .+)", re.I)
_LED = re.compile(r"\b(?:by|in|at|on|to|from|for|with|after|as|of|called|named|the)\s+$", re.I)
_WORD = r"[^\W_a-z][\w'\u2019.&-]*"
_NAME = re.compile(rf"{_WORD}(?: (?:(?:of|the|de|von|van|and) )?{_WORD})*$")
_PRONOUNS = frozenset("it he she they that this the".split())


class Fact(NamedTuple):
    """What an edit needs. The text may name no `subject`; a rule wants a `method` of its own."""

    prompt: str
    target: str
    subject: str | None
    method: str | None = None


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
        if rule := _RULE.fullmatch(text):
            return Fact(rule["condition"], rule["consequence"], None, "language-patch")
        stated = bare(text)
        copula = COPULA.search(stated)
        if copula is None:
            if question:
                return fact_of(question, stated)
            return _split(stated, text)
        before, after = stated[: copula.start()].strip(), stated[copula.end() :].strip()
        office = _OFFICE.fullmatch(after)
        if office and likeliest_subject(f"x {office['office']}"):
            return fact_of(f"Who is the {office['office']}?", before)
        name = _NAME.search(after)
        led = name and _LED.search(after[: name.start()])
        target = name.group() if name and led else after
        if question and _refers_back(before):
            return fact_of(question, target)
        return fact_of(stated[: len(stated) - len(target)], target)


PLAIN: Extractor = Plain()


def denied(text: str, question: str, extractor: Extractor = PLAIN) -> Fact | None:
    """What "No, it's Jane Roe", said of an answer to `question`, corrects; None: nothing."""
    if not _DENIAL.match(text) or text.rstrip().endswith("?"):
        return None
    stated = bare(text)
    if _PERSONAL.search(stated) or not (COPULA.search(stated) or _NAME.fullmatch(stated)):
        return None
    try:
        fact = extractor.extract(text, question)
    except BadEdit:
        return None
    return None if _NO_ANSWER.match(fact.target) else fact


def bare(text: str) -> str:
    """The statement without what merely opens or closes it. Raises BadEdit (it is a question)."""
    if text.rstrip().endswith("?"):
        raise BadEdit(f"{text[:60]!r} states nothing.", "Give its answer, too.")
    stated = _OPENING.sub("", visible(text).strip()).rstrip(" .!")
    return _CLOSING.sub("", stated).strip()


def _split(stated: str, text: str) -> Fact:
    """A statement without "is": the name at its end is the target."""
    name = _NAME.search(stated)
    if name is None or not words(stated[: name.start()]):
        raise BadEdit(
            f"No fact was found in {text[:60]!r}.", "Give a question and its answer instead."
        )
    return fact_of(stated[: name.start()], name.group())


def _refers_back(before: str) -> bool:
    """Is the subject left to the question before ("it's ...", "the CEO is ...")?"""
    named = [before[word.start : word.end] for word in words(before)[1:]]
    return before.casefold() in _PRONOUNS or all(w.islower() or w.isupper() for w in named)


def fact_of(prompt: str, target: str) -> Fact:
    """The fact that `prompt` asks for, the likeliest subject found. Raises BadEdit."""
    if not words(target) or not words(prompt):
        raise BadEdit("No fact was found.", "Give a question and its answer instead.")
    return Fact(prompt.strip(), target.strip(), likeliest_subject(prompt))
