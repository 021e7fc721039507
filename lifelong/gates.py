"""Gates of methods whose edits are about no subject: is this prompt of that kind?

    memprompt        "what is like < good > ?"     the question, whatever stands in the slot
    language-patch   "if asked about the weather"  does the condition apply?

The vector that the encoder makes of `text` is journalled with the edit; the index finds the edits
nearest to what it makes of `asked`, and the gate scores those.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lifelong.subject import extract, normalise, words
from store import Edit

Vectors = NDArray[np.float32]  # not the encoder's, which takes torch to import

_SLOT = re.compile(r"<[^<>]{1,60}>|\"[^\"]{1,60}\"|\u201c[^\u201d]{1,60}\u201d")
_THIS = "this"
_ARGUMENT = 3  # words that fit a slot
_BEGINNING = 3  # letters
_EDITS = 6  # letters: two questions this far apart are not the same
_ALIKE = 0.9  # cosine above which two questions are the same

_IF = re.compile(r"\s*(?:if|when|whenever)\s+", re.I)
_APPLIES = 0.30  # cosine that one in two hundred of unrelated conditions and messages reaches
_SLOPE = 25.0


class Gate(Protocol):
    """What is compared, and how likely a prompt is of the kind that an edit is for.

    `plain` says whether the encoder reads it without its adapter, which is for relations.
    """

    plain: bool

    def text(self, edit: Edit) -> str:
        """What the encoder reads of an edit."""
        ...

    def asked(self, prompt: str) -> str:
        """What the encoder reads of a prompt."""
        ...

    def score(self, prompt: str, edits: Sequence[Edit], cosines: Vectors) -> Vectors:
        """P(in scope), (n,) float32, given the cosines (n,) of `asked` and each edit's `text`."""
        ...


class ByTemplate:
    """MemPrompt's: the same question but for its argument, by letters or by meaning.

    An argument is marked (`< good >`, "good") or stands where the edit's stands: the distance of
    Levenshtein between what is left must be below 6, or the cosine above 0.9. By letters alone
    "unlike" would be "like": so no long word may begin otherwise.
    """

    plain = False

    def text(self, edit: Edit) -> str:
        """See `Gate.text`."""
        return self.asked(edit.prompt)

    def asked(self, prompt: str) -> str:
        """See `Gate.asked`."""
        return _SLOT.sub(_THIS, prompt)

    def score(self, prompt: str, edits: Sequence[Edit], cosines: Vectors) -> Vectors:
        """See `Gate.score`. Half way is a distance of 6, or a cosine of 0.9."""
        letters = [1 - _apart(edit.prompt, prompt) / (2 * _EDITS) for edit in edits]
        meant = np.where(cosines > _ALIKE, cosines, 0.0)
        found = np.maximum(np.asarray(letters, np.float32), meant)
        return np.where(found > 0.5, found, 0.0).astype(np.float32)


class ByCondition:
    """A language patch's: the nearer the condition is to the prompt, the likelier it applies.

    What a condition puts in quotes, and whom it names, must stand in the prompt.
    """

    plain = True

    def text(self, edit: Edit) -> str:
        """See `Gate.text`."""
        return _IF.sub("", edit.prompt, count=1)

    def asked(self, prompt: str) -> str:
        """See `Gate.asked`."""
        return prompt

    def score(self, prompt: str, edits: Sequence[Edit], cosines: Vectors) -> Vectors:
        """See `Gate.score`."""
        known = f" {normalise(prompt)} "
        odds = np.exp(_SLOPE * (cosines - _APPLIES))
        found = odds / (1 + odds)
        for place, edit in enumerate(edits):
            condition = self.text(edit)
            quoted = [f" {normalise(match)} " for match in _SLOT.findall(condition)]
            named = extract(condition)
            if quoted:
                found[place] = all(quote in known for quote in quoted)
            elif named and f" {normalise(named)} " not in known:
                found[place] = 0.0
        return np.asarray(found, np.float32)


GATES: Mapping[str, Gate] = {"memprompt": ByTemplate(), "language-patch": ByCondition()}


def gate_of(edit: Edit) -> Gate | None:
    """The gate for an edit; None: its subject or its whole prompt decides, as for any question."""
    return None if edit.subject else GATES.get(edit.method)


def gated(method: str) -> tuple[str, ...]:
    """Under what the edits of a method with a gate are found: no subject's words."""
    return ("", method)


def _apart(known: str, asked: str) -> int:
    """Letters between two questions without their arguments; at most 12, which is far enough."""
    head, *tail = _SLOT.split(known, maxsplit=1)
    before, behind, said = map(_folded, (head, " ".join(tail), _SLOT.sub(_THIS, asked)))
    argument = len(said) - len(before) - len(behind)
    if not (0 < argument <= _ARGUMENT if tail else argument == 0):
        return 2 * _EDITS
    left = [*said[: len(before)], *said[len(said) - len(behind) :]] if tail else said
    if _beginnings([*before, *behind]) != _beginnings(left):
        return 2 * _EDITS
    return _distance(" ".join([*before, *behind]), " ".join(left))


def _beginnings(folded: Sequence[str]) -> set[str]:
    return {word[:_BEGINNING] for word in folded if len(word) > _BEGINNING}


def _folded(text: str) -> list[str]:
    return [word.folded for word in words(text)]


def _distance(one: str, other: str) -> int:
    """Levenshtein's, up to 12."""
    if abs(len(one) - len(other)) >= _EDITS:
        return 2 * _EDITS
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return min(row[-1], 2 * _EDITS)
