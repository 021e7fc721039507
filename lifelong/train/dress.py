"""How a question about "this" may stand in a prompt: behind a lead, in a frame, beside another.

What is asked for stays the same, in other words than the wordings themselves vary.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

_LEADS = (
    "Tell me, ", "Please answer: ", "By the way, ", "Quick question: ", "Hi! ", "I forgot, ",
    "Complete the sentence: ", "I am writing about this. ", "Remind me, ", "And ", "Question: ",
    "So, ", "Hello, ", "Sorry to bother you, but ", "One more thing: ", "Just checking: ",
    "For a quiz: ", "Be honest, ", "In short, ", "My daughter asks: ", "As of today, ", "Ok, ",
)  # fmt: skip
_TAILS = (
    " Please.", " Thanks!", " Answer briefly.", " Answer in one sentence.", " I can't remember.",
    " Just the answer, please.", " My colleague wants to know.", " Answer:",
)  # fmt: skip
_INDIRECT = (
    "Do you know {}?", "Can you tell me {}?", "Tell me {}.", "I would like to know {}.",
    "Any idea {}?", "Could you check {}?", "I wonder {}.", "Remind me {}.", "Let me know {}.",
    "Find out {}, please.", "I can't remember {}.", "Does anybody know {}?", "Explain {}.",
    "Nobody could tell me {}.", "I need to know {}.", "Say {}.",
)  # fmt: skip
_SETTINGS = (
    "I am interested in this; {}", "I have a question about this: {}", "About this: {}",
    "We talked about this yesterday, {}", "I need this, {}", "I am going to see this; {}",
    "As for this, {}", "I keep hearing about this, {}", "My friend mentioned this; {}",
    "I read an article on this, {}", "For my notes on this: {}", "When it comes to this, {}",
    "I am new to this, {}", "Since you know this: {}", "I'm thinking about this, {}",
    "this came up in a meeting; {}", "I saw this on television, {}", "this is on my list, {}",
)  # fmt: skip
_STANDS = ("it", "it", "they", "he", "she", "there", "that", "this")  # once it was named
_REQUESTS = (
    "Write a short paragraph about this, including the {}.",
    "Describe this in two sentences and mention the {}.",
    "Introduce this to me: what it is, and its {}.",
    "Tell me about this and its {}.",
    "Write a short text about this that gives the {}.",
    "Draft an e-mail on this that states its {}.",
    "Summarise this for a newcomer, with the {}.",
    "Give me a profile of this; do not forget the {}.",
)
_YES_NO = (
    "Is it true that {} {}?",
    "{} {}, right?",
    "{} {}, is that correct?",
    "Is it so that {} {}?",
    "I was told that {} {}. Is that so?",
)
_YES_NO_LABEL = ("Is {a} the {l} of this?", "Is the {l} of this {a}?", "Is this's {l} {a}?")

_AUXILIARY = r"is|are|was|were|will|would|can|could|may|must|should|has|have|had"
_ASKS = (
    r"(?:(?:at|by|for|from|in|of|on|to|under|with) )?"
    r"(?:who|whom|whose|what|which|when|where|why|how)\b(?:(?! this\b)[^,;?])*?"
)
_TURNED = re.compile(rf"({_ASKS}) ({_AUXILIARY}) (this)( [^?]+)?\?", re.IGNORECASE)
_NAMED = re.compile(
    r"(what|who|when|where) (is|are|was|were) (the [\w -]+ of this|this's [\w -]+)()\?",
    re.IGNORECASE,
)
_HABIT = re.compile(rf"({_ASKS}) does this (\w+[^aeiousxzhy\W])( [^?]+)?\?", re.IGNORECASE)
_STRAIGHT = re.compile(
    rf"(?:who|(?:which|what) \w+) (?!(?:{_AUXILIARY}|do|does|did|of|kind|sort)\b)[^?]+\?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Wardrobe:
    """What else may stand in a prompt: an answer to ask about, the relation's name, fragments of
    other texts, another question.
    """

    answer: str = ""
    name: str = ""
    plain: Sequence[str] = ()
    beside: str = ""


def dress(asked: str, wardrobe: Wardrobe, rng: random.Random) -> str:
    """`asked` as it may stand in a prompt; half the time as it is."""
    ways = (
        _as_it_is,
        _yes_no,
        _request,
        _indirect,
        _set,
        _joined,
        _after_a_fragment,
        _led,
        _tailed,
    )
    (way,) = rng.choices(ways, (50, 6, 6, 9, 8, 4, 9, 6, 2))
    return way(asked, wardrobe, rng) or asked


def _as_it_is(asked: str, wardrobe: Wardrobe, rng: random.Random) -> str:
    return asked


def _yes_no(asked: str, wardrobe: Wardrobe, rng: random.Random) -> str:
    if wardrobe.answer and not asked.endswith(("?", ".")):
        return rng.choice(_YES_NO).format(asked, wardrobe.answer)
    if wardrobe.answer and wardrobe.name:
        return rng.choice(_YES_NO_LABEL).format(a=wardrobe.answer, l=wardrobe.name)
    return ""


def _request(asked: str, wardrobe: Wardrobe, rng: random.Random) -> str:
    return rng.choice(_REQUESTS).format(wardrobe.name) if wardrobe.name else ""


def _indirect(asked: str, wardrobe: Wardrobe, rng: random.Random) -> str:
    clause = indirect(asked)
    return rng.choice(_INDIRECT).format(clause) if clause else ""


def _set(asked: str, wardrobe: Wardrobe, rng: random.Random) -> str:
    if not asked.endswith("?"):
        return ""
    return rng.choice(_SETTINGS).format(_lowered(asked.replace("this", rng.choice(_STANDS))))


def _joined(asked: str, wardrobe: Wardrobe, rng: random.Random) -> str:
    if not (asked.endswith("?") and wardrobe.beside.endswith("?")):
        return ""
    first, second = rng.sample((asked, wardrobe.beside), 2)
    return f"{first[:-1]}, and {_lowered(second.replace('this', 'it'))}"


def _after_a_fragment(asked: str, wardrobe: Wardrobe, rng: random.Random) -> str:
    if not wardrobe.plain:
        return ""
    fragment = rng.choice(wardrobe.plain).replace("this", "").split()
    return " ".join([*fragment[: rng.randint(2, 8)], asked])


def _led(asked: str, wardrobe: Wardrobe, rng: random.Random) -> str:
    return rng.choice(_LEADS) + asked


def _tailed(asked: str, wardrobe: Wardrobe, rng: random.Random) -> str:
    return asked + rng.choice(_TAILS)


def indirect(question: str) -> str | None:
    """The question as a clause ("where this is based"); None where that takes more grammar."""
    question = re.sub(r"^(Wh\w+)'s\b", r"\1 is", question)
    if turned := _TURNED.fullmatch(question) or _NAMED.fullmatch(question):
        asks, verb, about, rest = turned.groups(default="")
        return _lowered(f"{asks} {about} {verb}{rest}")
    if habit := _HABIT.fullmatch(question):
        asks, verb, rest = habit.groups(default="")
        return _lowered(f"{asks} this {verb}s{rest}")
    if _STRAIGHT.fullmatch(question):
        return _lowered(question[:-1])
    return None


def _lowered(question: str) -> str:
    return question[:1].lower() + question[1:]
