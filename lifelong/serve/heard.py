"""A chat message that corrects the reply before it: "No, it's Jane Roe." after "Who runs Acme?"

Only what a user himself said last counts, only as an answer to his own question before, and only
where it opens as a correction does and leads to a name or a number.
"""

import re
from collections.abc import Mapping, Sequence

from lifelong.errors import BadEdit
from lifelong.extract import Fact, Plain
from lifelong.subject import normalise

_OPENS = re.compile(
    r"^\s*(?:no|nope|wrong|not quite|incorrect|actually|correction"
    r"|that(?:'s|\u2019s| is) (?:wrong|not right|not true|incorrect)"
    r"|you(?:'re|\u2019re| are) (?:wrong|mistaken))\b[\s,.:;!\u2014-]",
    re.I,
)
_YES = re.compile(
    r"\s*(?:yes|y|yep|yeah|sure|ok|okay|please do|correct)(?:,? please)?[\s.!]*", re.I
)

_ASKS = 'Shall I remember that the answer to "{prompt}" is "{target}"? Say yes, or go on.'
_ASKED = re.compile(r'Shall I remember that the answer to "(.+)" is "(.+)"\? Say yes, or go on\.')
_NAME = re.compile(r"(?:the |an? )?(?!(?:I|I['\u2019]m|You|We)\b)(?:[^\W_a-z]|\d)")  # or a number
_WORDS = 8  # of a target; longer ones are talk
_CHARACTERS = 300  # of a message that corrects

Messages = Sequence[Mapping[str, str]]


def correction(messages: Messages) -> Fact | None:
    """What the last message corrects, if it does."""
    if [m["role"] for m in messages[-3:]] != ["user", "assistant", "user"]:
        return None
    question, answer, said = (m["content"] for m in messages[-3:])
    opening = _OPENS.match(said)
    if opening is None or len(said) > _CHARACTERS or "?" in said or "\n" in said.strip():
        return None
    try:
        fact = Plain().extract(said[opening.end() :], question)
    except BadEdit:
        return None
    plausible = len(fact.target.split()) <= _WORDS and _NAME.match(fact.target)
    known = f" {normalise(fact.target)} " in f" {normalise(answer)} "
    return fact if plausible and not known else None


def confirmed(messages: Messages) -> Fact | None:
    """What the user was asked about, as `asking` asks, and said yes to."""
    if [m["role"] for m in messages[-2:]] != ["assistant", "user"]:
        return None
    asked = _ASKED.fullmatch(messages[-2]["content"].strip())
    if asked is None or not _YES.fullmatch(messages[-1]["content"]):
        return None
    return Fact(asked[1], asked[2], None)


def asking(fact: Fact) -> str:
    """The question whether this is meant."""
    return _ASKS.format(prompt=fact.prompt, target=fact.target)


def thanks(fact: Fact, live: bool) -> str:
    """The reply to a correction."""
    when = "I will say so from now on" if live else "Somebody will look at it first"
    return f'Thank you. The answer to "{fact.prompt}" is "{fact.target}". {when}.'
