"""Whom does a follow-up ask about?  What a conversation left unsaid, said in full.

    Where is Acme based?   ->  Where is Acme based?
    And who runs it now?   ->  And who runs Acme now?       it points back
    And the founder?       ->  And the founder of Acme?     it breaks off
    What about Globex?     ->  Where is Globex based?       it asks the same of another

Plain rules on English words. The turn just before says about whom, itself said in full; where it is
about somebody who is not known, or the follow-up names somebody, nothing is resolved.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lifelong.subject import extract, words

Names = Callable[[str], Sequence[str]]  # the known subjects in a text, as it spells them

_READ = 8  # turns, from the last, that are read

_TALK = re.compile(
    r"(?:(?:ok|okay|thanks|thank you|great|good|fine|hmm?|cool|nice|interesting|wow|alright|right"
    r"|sure|yes|yeah|no|also|now|then|well|oh|ah|and|but|so|i see|got it|tell me|please)\b"
    r"[\s,.!]*)+",
    re.I,
)
_NOUNS = (
    "company|firm|business|club|team|band|group|film|movie|series|show|programme|program|book|novel"
    "|song|album|game|city|town|village|country|state|place|island|region|river|mountain|airport"
    "|university|school|museum|church|building|bridge|station|ship|aircraft|car|language|species"
    "|organi[sz]ation|party|magazine|newspaper|person|man|woman|actor|actress|singer|writer|author"
    "|player|painter|politician|scientist|composer|director|musician|artist|product|app|software"
    "|channel|network"
)
_BEHIND = r"(?! (?:of|in|at|that|who|which|where|called|named)\b)"
_HERS = r"her(?= (?!in|on|at|to|as|and|or|by|for|from|with|now|then)\b\w)"
_OWNER = re.compile(rf"\b(?:its|his|their|{_HERS})\b", re.I)
_POINTER = re.compile(
    rf"\b(?:it|he|she|him|her|they|them|(?:that|this)(?=\W*\Z)"
    rf"|(?:the|that|this) (?:{_NOUNS})\b{_BEHIND})\b",
    re.I,
)
_THERE = re.compile(r"(?<!is )(?<!are )(?<!was )\bthere(?=\W*\Z)", re.I)
_IDLE = re.compile(
    r"\b(?:is|was|isn't|wasn't) it (?:not )?"
    r"(?:true|right|correct|so|possible|a fact|the case|ok|okay|raining|time|too|worth|safe)\b"
    r"|\bit (?:is|was|rains?|snows?) ?(?:raining|true|said|possible|late|cold|warm|hot)\b"
    r"|\btime is it\b|\bis it going\b|\bday is it\b|\bdate is it\b",
    re.I,
)
_BROKEN_OFF = re.compile(
    r"(?:(?:and|but|so|ok|okay|also|then|what about|how about)[\s,]+)+"
    r"(?:(?:who|what|where) (?:is|was|are|were) |(?:who|what|where)'s )?"
    r"the (?!same\b)(?:(?!of\b|that\b)[a-z]+ ?){1,3}\W*",
    re.I,
)
_OTHER = re.compile(
    r"(?:(?:and|but|so|ok|okay|what about|how about|what of|the same for)[\s,]+)+", re.I
)
_PERSON = re.compile(r"\b(?:he|she|him|her|his|(?:the|that|this) (?:person|man|woman))\b", re.I)
_WHO = re.compile(r"\W*(?:and )?(?:(?:by|to|for|with) )?(?:who|whom|whose)\b", re.I)
_WHO_IS = re.compile(r"\W*(?:and )?who(?:'s| is| was)(?P<name>.*)", re.I)
_APART = re.compile(r"[,.;:?!]|\b(?:and|but|or)\b", re.I)


class Turn(NamedTuple):
    """What a user said, and the reply."""

    asked: str
    reply: str


def in_full(question: str, turns: Sequence[Turn], known: Names) -> str:
    """`question`, which came after `turns`, with the name of whom it leans on; else as it is."""
    if not turns or not (_leans(question) or _OTHER.match(question)):
        return question
    before = Turn("", "")
    for turn in turns[-_READ:]:
        if not _is_aside(turn.asked):
            before = Turn(_resolved(turn.asked, before, known), turn.reply)
    return _resolved(question, before, known)


def guessed(text: str) -> list[str]:
    """The likeliest subject of a text, as `Names` of whom nothing is known."""
    name = extract(_TALK.sub("", text, count=1) if _TALK.match(text) else text)
    return [name] if name and name != "I" and not name[0].isdigit() else []


def _leans(question: str) -> bool:
    """Does it point back, or break off?"""
    said = _IDLE.sub("", question)
    return bool(
        any(form.search(said) for form in (_OWNER, _POINTER, _THERE))
        or _BROKEN_OFF.fullmatch(question.strip())
    )


def _is_aside(text: str) -> bool:
    """ "Thanks!": words that change nothing about whom one speaks."""
    return len(words(text)) <= 3 and not text.rstrip().endswith("?") and not guessed(text)


def _resolved(question: str, before: Turn, known: Names) -> str:
    if names := known(question):
        return _asked_of(names[0], question, before, known)
    if not _leans(question) or _names_its_own(question):
        return question
    name = _referent(question, before, known)
    return _put(name, question) if name else question


def _asked_of(name: str, question: str, before: Turn, known: Names) -> str:
    """What was asked before, of another."""
    rest = _OTHER.sub("", question, count=1).strip(" ?.!") if _OTHER.match(question) else ""
    subjects = known(before.asked) or guessed(before.asked)
    if rest.removeprefix("the ") != name or not subjects:
        return question
    return before.asked.replace(subjects[0], name)


def _names_its_own(question: str) -> bool:
    """Does it name somebody whom its pronoun may mean ("Paris is nice. Who is its mayor?")?

    Not where that is the subject of a verb whose object the pronoun is ("Does Globex own it?").
    """
    pointer = _OWNER.search(question) or _POINTER.search(question) or _THERE.search(question)
    if pointer is None:
        return bool(guessed(question))
    led = question[: pointer.start()]
    beside = _OWNER.match(pointer.group()) or _APART.search(_TALK.sub("", led, count=1))
    return bool(guessed(led) and beside)


def _referent(question: str, before: Turn, known: Names) -> str | None:
    """Whom the turn before was about; a person, whom its reply named where it asked for one."""
    subjects = known(before.asked)
    who_is = _WHO_IS.fullmatch(before.asked)
    asks_for_one = _WHO.match(before.asked) and not (
        who_is and subjects and who_is["name"].strip(" ?.!") == subjects[0]
    )
    if _PERSON.search(question) and asks_for_one:
        others = [name for name in known(before.reply) if name not in subjects]
        return others[0] if others else None
    return subjects[0] if subjects else None


def _put(name: str, question: str) -> str:
    """The question with the name in its place."""
    if _BROKEN_OFF.fullmatch(question.strip()) and not _POINTER.search(question):
        return f"{question.strip().rstrip(' ?.!')} of {name}?"
    said = _OWNER.sub(f"{name}'s", question)
    return _THERE.sub(f"in {name}", _POINTER.sub(name, said))
