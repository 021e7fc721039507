"""How a hop asks: the clause about its subject, and what clauses ask that follow one another.

Ellie Kemper is a citizen of ... -> this is a citizen of
Who leads Croatia? ...           -> Who leads this?
one after the other              -> Who leads what this is a citizen of?
"""

import re
from collections import Counter
from collections.abc import Sequence

from lifelong.subject import masked, words
from store import Edit, Reference

_STEM = 5  # letters of a word that survive most inflections
_THIS = re.compile(r"\bthis\b")
_NAMED = re.compile(
    r"[\"'\u201c\u2018]?(?:\b(?:the|an?) )?\bthis\b[\"\u201d\u2019]?", re.IGNORECASE
)
_ASKED = re.compile(r"(?:who|what|which(?: \w+)?) (?:is|was|are|were) ", re.IGNORECASE)
_COPULA = re.compile(r" (?:is|was|are|were)$")
_FILLERS = frozenset(
    "this s the a an of is was are were do does did has had in to by from that name who whom whose "
    "what which where when how".split()
)


def clause(known: Edit | Reference) -> str:
    """How an edit or a fact asks, its subject masked."""
    prompt, subject = known.prompt, known.subject
    said = masked(prompt, subject) if subject else None
    if said is None or not _telling(said):  # not mentioned, or cut off at a point in its name
        said = prompt.replace(subject, "this") if subject else ""
    return plain(said or prompt)


def plain(said: str) -> str:
    """A clause without quotes and articles around the subject: they belong to its name."""
    return _NAMED.sub("this", said)


def about(said: str, what: str) -> str:
    """A clause about `what`."""
    return _THIS.sub(lambda _: what, said, count=1)


def is_about_something(said: str) -> bool:
    """Is there a place for a subject in it?"""
    return bool(_THIS.search(said))


def compose(clauses: Sequence[str]) -> str:
    """What they ask in turn: each about what the one before asks for, the first about "this"."""
    said = "this"
    for inner in clauses[:-1]:
        said = about(_phrase(inner), said)
    return about(clauses[-1], said)


def relation(said: str) -> str:
    """A clause in a few words, for people: "The capital of this is" as "capital"."""
    found = [word.folded for word in words(said) if word.folded != "this"]
    telling = [at for at, word in enumerate(found) if word not in _FILLERS]
    return " ".join(found[telling[0] : telling[-1] + 1]) if telling else ""


def asks_no_more(question: str, prompt: str) -> bool:
    """Is every word of the question, inflected or not, one of the prompt's?"""
    return not _stems(question) - _stems(prompt)


def _stems(text: str) -> Counter[str]:
    return Counter(word[:_STEM] for word in _telling(text))


def _telling(text: str) -> list[str]:
    return [word.folded for word in words(text) if word.folded not in _FILLERS]


def _phrase(said: str) -> str:
    """A clause as a noun phrase: "Who is the head of this?" as "the head of this"."""
    bare = said.strip().rstrip("?. ")
    if asked := _ASKED.match(bare):
        return bare[asked.end() :]
    return f"what {bare}" if bare.startswith("this ") else _COPULA.sub("", bare)
