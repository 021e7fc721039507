"""prompt -> Route: which live edits is it about, and which was it nearly about?

The router is a view of the journal: the live edits, their subjects in the gate, their vectors in
the index. `sync` brings it up to date; it can be thrown away and rebuilt at any time.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lifelong.encoder import Encoder, Vectors
from lifelong.fact import Fact, facts
from lifelong.scope import ScopeClassifier
from lifelong.subject import SubjectGate, focus, masked, normalise, subject_key
from store import Edit, Hint, Journal, VectorIndex

FIRES = 0.5  # probability from which an edit is in scope

_CANDIDATES = 16  # edits of one subject that the classifier looks at
_MENTIONS = 8  # subjects of one prompt that are looked at
_NEAR = 0.02  # probability from which an edit that does not fire is a near miss
_SHOWN = 5  # near misses that a route keeps

Indexed = tuple[np.ndarray, np.ndarray]  # ids (n,), vectors (n, d)
Texts = Mapping[int, str | None]  # of an edit's method; None for an edit that is in the weights


@dataclass(frozen=True, slots=True)
class Hit:
    """An edit, its method's text, and the probability (0 to 1) that a prompt is in its scope.

    Without a text the edit is in the weights, which answer by themselves.
    """

    edit: Edit
    text: str | None
    score: float

    @property
    def id(self) -> int:
        """The edit's id."""
        return self.edit.id


@dataclass(frozen=True, slots=True)
class Route:
    """The decision for one prompt as of `epoch`: the edits that shape its answer, best first."""

    epoch: int
    hits: tuple[Hit, ...] = ()
    near: tuple[Hit, ...] = ()


def scope_text(edit: Edit) -> str:
    """What the encoder reads of an edit: the clause about its subject, subject masked."""
    return (edit.subject and masked(edit.prompt, edit.subject)) or edit.prompt


class Router:
    """The live edits as of one epoch. The caller keeps changes and questions apart (a lock)."""

    def __init__(self, encoder: Encoder, scope: ScopeClassifier) -> None:
        self.epoch = 0
        self._encoder = encoder
        self._scope = scope
        self._gate = SubjectGate()
        self._index = VectorIndex(encoder.dim)
        self._live: dict[int, tuple[Edit, str | None]] = {}
        self._of_subject: dict[tuple[str, ...], set[int]] = defaultdict(set)  # () : no subject
        self._of_fact: dict[Fact, set[int]] = defaultdict(set)

    @classmethod
    def build(
        cls, journal: Journal, encoder: Encoder, scope: ScopeClassifier, at: int | None = None
    ) -> Self:
        """The router of the journal as it stood at epoch `at` (None: now)."""
        router = cls(encoder, scope)
        epoch = journal.epoch if at is None else at
        router._add(*_read(journal, [edit.id for edit in journal.live(epoch)], epoch))
        router.epoch = epoch
        return router

    def sync(self, journal: Journal) -> None:
        """Apply what happened in the journal since this router's epoch; all or nothing."""
        events = journal.history(since=self.epoch)
        if not events:
            return
        epoch = events[-1].seq
        final = {event.edit_id: event.kind for event in events}
        here = {id for id, kind in final.items() if kind == "live"}
        new = _read(journal, sorted(here - self._live.keys()), epoch)
        self._remove((final.keys() - here) & self._live.keys())
        self._add(*new)
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._live)

    @property
    def in_weights(self) -> list[int]:
        """The ids of the live edits that the weights answer, in order."""
        return sorted(id for id, (_, text) in self._live.items() if text is None)

    def same_fact(self, edit: Edit) -> list[Edit]:
        """The live edits that state the same fact as `edit`, by id."""
        ids = set[int]().union(*(self._of_fact.get(fact, ()) for fact in facts(edit)))
        return [self._live[id][0] for id in sorted(ids)]

    def encode(self, edits: Sequence[Edit]) -> Vectors:
        """The vectors to journal with `edits`: (n, dim) float32."""
        return self._encoder.encode([scope_text(edit) for edit in edits])

    def route(self, prompts: Sequence[str]) -> list[Route]:
        """A route a prompt; one encoder call in all, none where the gate rules every edit out."""
        asked = [self._questions(prompt) for prompt in prompts]
        texts = [text for questions in asked for text, _, _ in questions]
        vectors = iter(self._encoder.encode(texts) if texts else ())
        return [
            self._decide(
                self._of_fact.get(("prompt", normalise(prompt)), set()),
                [(next(vectors), among, masked) for _, among, masked in questions],
            )
            for prompt, questions in zip(prompts, asked, strict=True)
        ]

    def _questions(self, prompt: str) -> list[tuple[str, set[int], bool]]:
        """(text, edits it may be about, subject masked?) for each subject the prompt mentions."""
        questions = [
            (focus(prompt, mention.spans), self._of_subject[mention.subject], True)
            for mention in self._gate.find(prompt)[:_MENTIONS]
        ]
        if without := self._of_subject.get(()):
            questions.append((prompt, without, False))
        return questions

    def _decide(self, taught: set[int], questions: list[tuple[Vectors, set[int], bool]]) -> Route:
        """`taught` are the edits of this very prompt: theirs, whatever subject they name."""
        best = dict.fromkeys(taught, 1.0)
        for query, among, known in questions:
            ids = [id for id, _ in self._index.search(query, _CANDIDATES, among)]
            scores = self._scope.score(query, self._index.vectors(ids), masked=known)
            for id, score in zip(ids, scores.tolist(), strict=True):
                best[id] = max(best.get(id, 0.0), score)
        ranked = sorted(best.items(), key=lambda found: (-found[1], -found[0]))
        hits = [Hit(*self._live[id], score) for id, score in ranked if score >= _NEAR]
        fires = 1 if hits and hits[0].score >= FIRES else 0
        return Route(self.epoch, tuple(hits[:fires]), tuple(hits[fires:][:_SHOWN]))

    def _add(self, edits: Sequence[Edit], texts: Texts, vectors: Indexed) -> None:
        for edit in edits:
            self._live[edit.id] = (edit, texts.get(edit.id, ""))
            if edit.subject is not None:
                self._gate.add(edit.subject)
            for group, key in self._groups(edit):
                group[key].add(edit.id)
        if len(vectors[0]):
            self._index.add(*vectors)

    def _remove(self, ids: Iterable[int]) -> None:
        gone = list(ids)
        for id in gone:
            edit, _ = self._live.pop(id)
            if edit.subject is not None:
                self._gate.remove(edit.subject)
            for group, key in self._groups(edit):
                group[key].remove(id)
                if not group[key]:
                    del group[key]
        self._index.remove(gone)

    def _groups(self, edit: Edit) -> list[tuple[dict[tuple[str, ...], set[int]], tuple[str, ...]]]:
        """Where `edit` can be looked up, and under what."""
        return [
            (self._of_subject, subject_key(edit.subject or "")),
            *((self._of_fact, fact) for fact in facts(edit)),
        ]


def _read(journal: Journal, ids: Sequence[int], epoch: int) -> tuple[list[Edit], Texts, Indexed]:
    """Edits, their methods' texts and their vectors, all as of `epoch`."""
    texts = {
        id: stored.patch.texts[position] if isinstance(stored.patch, Hint) else None
        for stored in journal.patches(epoch, ids)
        for id, position in zip(stored.edits, stored.positions, strict=True)
    }
    return journal.get_many(ids, epoch), texts, journal.vectors(ids, epoch)
