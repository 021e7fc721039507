"""The probes that are made from an edit: what a dataset seldom asks, and users do.

prefixed   the prompt behind an unrelated sentence
negated    a statement to complete, denied
residual   the prompt once more, for its old answers
yes, no    a question that proposes the target, or an old answer
part       a request of which the fact is one part
"""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256

from lifelong.evaluate.records import Case, Probe
from lifelong.match import SHORT
from lifelong.subject import normalise
from store import Edit

_UNRELATED = (
    "The shop on the corner opens at nine.",
    "It rained a little in the afternoon.",
    "The train was late again this morning.",
    "Someone had left a window open.",
    "Lunch will be served in the garden.",
    "The meeting took longer than planned.",
    "A new path was laid through the park.",
    "The tea had gone cold by then.",
)
# "The capital of X is", "X was born in", "X is a citizen of": a copula and at most three words.
_COPULA = re.compile(r"\b(is|are|was|were)((?: [^\W\d_]+){0,3})$")
_ASKS = re.compile(r"\?\s*$|^(?:who|whom|whose|what|which|when|where|why|how)\b", re.IGNORECASE)

NOUNS: Mapping[str, str] = {  # CounterFact's relations, as one would ask for them
    "P103": "mother tongue",
    "P17": "country",
    "P178": "developer",
    "P176": "manufacturer",
    "P159": "headquarters",
    "P27": "citizenship",
    "P19": "place of birth",
    "P140": "religion",
    "P131": "location",
    "P37": "official language",
    "P276": "location",
    "P101": "field of work",
    "P449": "television network",
    "P30": "continent",
    "P1412": "language",
    "P641": "sport",
    "P36": "capital",
    "P127": "owner",
    "P407": "language",
    "P138": "namesake",
    "P463": "membership",
    "P39": "position",
    "P495": "country of origin",
    "P413": "position in play",
    "P364": "original language",
    "P20": "place of death",
    "P108": "employer",
    "P190": "twin city",
    "P937": "place of work",
    "P1303": "instrument",
}


def derived(case: Case, seed: int = 0, *, chat: bool = True) -> tuple[Probe, ...]:
    """The probes that can be made of every edit of `case`; only a `chat` is asked yes, no, part."""
    return tuple(_derived(case, seed, chat))


def _derived(case: Case, seed: int, chat: bool) -> Iterator[Probe]:
    for i, edit in enumerate(case.edits):
        accepted, old = case.accepted[i], case.old[i]
        yield Probe("prefixed", prefixed(edit.prompt, seed), accepted, i)
        if denied := negated(edit.prompt):
            yield Probe("negated", denied, accepted, i)
        if old:
            yield Probe("residual", edit.prompt, old, i)
        if chat and len(normalise(edit.target)) >= SHORT:  # a shorter one must be the whole reply
            yield Probe("yes", proposed(edit, edit.target), accepted, i)
            if old:
                yield Probe("no", proposed(edit, old[0]), accepted, i)
            for request in requests(edit):
                yield Probe("part", request, accepted, i)


def prefixed(prompt: str, seed: int) -> str:
    """`prompt` behind an unrelated sentence: by seed and prompt always the same one."""
    digest = sha256(f"{seed} {prompt}".encode()).digest()
    return f"{_UNRELATED[int.from_bytes(digest[:8]) % len(_UNRELATED)]} {prompt}"


def negated(prompt: str) -> str | None:
    """A statement to complete, denied; None for a question and where no "is" ends the prompt."""
    if _ASKS.search(prompt):
        return None
    denied, found = _COPULA.subn(r"\1 not\2", prompt)
    return denied if found else None


def proposed(edit: Edit, answer: str) -> str:
    """A question whether `answer` is the answer to the edit's prompt."""
    if _ASKS.search(edit.prompt):
        return f"{edit.prompt.rstrip(' ?')}? Is it {answer}?"
    return f"Is it true that {_inside(edit.prompt, edit.subject)} {answer}?"


def requests(edit: Edit) -> Iterator[str]:
    """Requests of which the answer to the edit's prompt is one part."""
    about, noun = edit.subject, NOUNS.get(edit.relation or "")
    if about and noun:
        yield f"Write two sentences about {about}: the {noun}, and why it is known."
        yield f"Tell me about {about}. Mention the {noun} and one more thing."
    elif about and _ASKS.search(edit.prompt):
        asked = _inside(edit.prompt, about).rstrip(" ?")
        yield f"Write two sentences about {about}, saying {asked}."
        yield f"{edit.prompt.rstrip(' ?')}? And what else is known about it?"
    elif about:
        yield f"Write two sentences about {about}. One of them begins: {edit.prompt.rstrip()}"


def _inside(prompt: str, subject: str | None) -> str:
    """`prompt` as it reads inside a sentence: a name keeps its capital."""
    named = subject and prompt.casefold().startswith(subject.casefold())
    return prompt if named else prompt[:1].lower() + prompt[1:]
