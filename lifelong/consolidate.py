"""Consolidation: live edits leave memory for the weights, if the weights prove to hold them.

    live memory edits -> method.propose -> one delta -> before and after, memory apart -> gate

As in a log-structured store, memory takes an edit at once, and the weights take many that have
settled, as one low-rank change. What they make of it is measured before it counts; where a figure
is outside the gate, nothing has happened.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from itertools import chain
from math import exp
from statistics import fmean
from typing import Self

from lifelong.errors import BadEdit, BadSetting, TooWide
from lifelong.lm import LM
from lifelong.match import says
from lifelong.moments import BUILT_IN
from lifelong.monitor import ask
from lifelong.ordinary import ORDINARY
from lifelong.perplexity import surprise
from lifelong.view import View
from store import JSON, Audience, Edit

METHOD = "idle-neurons"  # that writes, unless another is named
MOST = 100  # edits that go together, unless they are named
OLDER = 50  # edits that went before and are asked again

_TEXTS, _LENGTH = 40, 600  # of running text, characters each


@dataclass(frozen=True, slots=True)
class Gate:
    """What the weights must do without memory's help: shares at least, perplexity at most."""

    accuracy: float = 0.95  # of the edits: the target is said
    generality: float = 0.5  # of their paraphrases
    older: float = 0.95  # of the edits in the weights already that said their targets: still do
    locality: float = 0.85  # of what must not change: the reply begins as before
    perplexity: float = 1.03  # of running text, as a ratio to that before

    @classmethod
    def of(cls, limits: Iterable[str]) -> Self:
        """A gate with these limits, as `accuracy=0.9`, and the usual others. Raises BadSetting."""
        try:
            given = {name: float(value) for name, value in (text.split("=") for text in limits)}
            return cls(**given)
        except (ValueError, TypeError) as exc:
            known = ", ".join(field.name for field in fields(cls))
            raise BadSetting(f"This is no limit: {exc}.", f"Give NAME=NUMBER of: {known}.") from exc

    def misses(self, measured: Mapping[str, float | None]) -> tuple[str, ...]:
        """What is outside the gate, in words."""
        return tuple(
            f"{name} {value:.3f} ({'at most' if name == 'perplexity' else 'at least'} {limit:g})"
            for name, limit in asdict(self).items()
            if (value := measured[name]) is not None
            and not (value <= limit if name == "perplexity" else value >= limit)
        )


@dataclass(frozen=True, slots=True)
class Consolidation:
    """What became of it: which edits, the figures of the gate, and what was outside it."""

    method: str
    edits: tuple[int, ...]
    measured: Mapping[str, float | None]  # None: there was nothing to ask
    misses: tuple[str, ...]
    seconds: float

    @property
    def accepted(self) -> bool:
        """Whether the edits are in the weights now."""
        return bool(self.edits) and not self.misses

    def to_json(self) -> dict[str, JSON]:
        """All of it."""
        return {
            "accepted": self.accepted,
            "method": self.method,
            "edits": list(self.edits),
            **self.measured,
            "misses": list(self.misses),
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class Policy:
    """Which edits have settled: by age, by use, and how many of them make a batch.

    The `age` newest stay in memory. `used` counts the answers that an edit has shaped since the
    store was opened. Fewer than `least` wait for more; the oldest `most` go together.
    """

    age: int = 0
    used: int = 0
    least: int = 1
    most: int = MOST

    def __post_init__(self) -> None:
        """Raises BadSetting."""
        if min(self.age, self.used) < 0 or not 1 <= self.least <= self.most:
            raise BadSetting(
                f"No edits can be chosen by {self}.", "Give age and used >= 0, 1 <= least <= most."
            )

    def choose(self, memory: Sequence[Edit], used: Mapping[int, int]) -> list[Edit]:
        """Of the live edits in memory, the oldest first, those that are due.

        They are for everyone, and their subject stands in the prompt.
        """
        old = memory[: max(0, len(memory) - self.age)]
        due = [
            edit
            for edit in old
            if edit.audience == Audience() and edit.subject and edit.subject in edit.prompt
            if used.get(edit.id, 0) >= self.used
        ]
        return due[: self.most] if len(due) >= self.least else []


def named(memory: Iterable[Edit], ids: Iterable[int]) -> list[Edit]:
    """These of the live edits in memory. Raises BadEdit, TooWide."""
    found = {edit.id: edit for edit in memory}
    wanted = list(dict.fromkeys(ids))
    if strange := [id for id in wanted if id not in found]:
        raise BadEdit(f"Edits {strange} are not live in memory.", "Take others, or redo them.")
    if narrow := [id for id in wanted if found[id].audience != Audience()]:
        raise TooWide(
            f"Edits {narrow} are not for everyone, and the weights are everybody's.",
            "Promote them first, or leave them in memory.",
        )
    return [found[id] for id in wanted]


@dataclass(frozen=True, slots=True)
class Figures:
    """What some weights make of the questions of an examination."""

    right: Collection[tuple[int, str]]  # edits and the questions to which they are said
    begins: Mapping[str, str]  # the first token of the reply to what must not change
    nats: float  # a token of running text


class Examination:
    """The same questions to the weights before and after, memory apart."""

    def __init__(self, lm: LM, edits: Sequence[Edit], older: Sequence[Edit]) -> None:
        """`edits` shall go into the weights, `older` are there."""
        self._lm = lm
        self._own = [(edit, edit.prompt) for edit in edits]
        self._others = [(edit, p) for edit in edits for p in edit.paraphrases]
        self._older = [(edit, edit.prompt) for edit in older[:: -(-len(older) // OLDER) or 1]]
        taught = {edit.prompt for edit in (*edits, *older)}
        probes = (p for edit in (*edits, *older) for p in edit.locality if p not in taught)
        self._bystanders = list(dict.fromkeys(chain(probes, ORDINARY)))

    def take(self, view: View, held: AbstractContextManager[object]) -> Figures:
        """The figures of a model as `view` asks it, and as it is while `held`."""
        asked = [*self._own, *self._others, *self._older]
        replies = dict(ask(view, [question for _, question in asked]))
        right = {(e.id, q) for e, q in asked if says(replies[q], e.target, e.old)}
        begins = dict(ask(view, self._bystanders, max_new_tokens=1))
        texts = [text[:_LENGTH] for text in BUILT_IN.read_text("utf-8").splitlines()[-_TEXTS:]]
        with held:
            nats = list(chain.from_iterable(surprise(self._lm, ["\n"] * len(texts), texts)))
        return Figures(right, begins, fmean(nats))

    def compare(self, before: Figures, after: Figures) -> dict[str, float | None]:
        """What a `Gate` looks at."""
        kept = [(edit, q) for edit, q in self._older if (edit.id, q) in before.right]
        return {
            "accuracy": _share((edit.id, q) in after.right for edit, q in self._own),
            "generality": _share((edit.id, q) in after.right for edit, q in self._others),
            "older": _share((edit.id, q) in after.right for edit, q in kept),
            "locality": _share(after.begins[q] == before.begins[q] for q in self._bystanders),
            "perplexity": exp(after.nats - before.nats),
        }


def _share(right: Iterable[bool]) -> float | None:
    known = list(map(float, right))
    return fmean(known) if known else None
