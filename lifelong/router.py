"""prompt -> Route: which live edits is it about, and which was it nearly about?

The router is a view of the journal: the live edits, their subjects in the gate, their vectors in
the index. `sync` brings it up to date; it can be thrown away and rebuilt at any time.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from lifelong.encoder import Encoder, Vectors
from lifelong.scope import ScopeClassifier
from lifelong.subject import SubjectGate, focus, masked, subject_key
from store import Edit, Journal, VectorIndex

FIRES = 0.5  # probability from which an edit is in scope

_CANDIDATES = 16  # edits of one subject that the classifier looks at
_MENTIONS = 8  # subjects of one prompt that are looked at
_NEAR = 0.02  # probability from which an edit that does not fire is a near miss
_SHOWN = 5  # near misses that a route keeps


@dataclass(frozen=True, slots=True)
class Hit:
    """An edit, its method's text, and the probability (0 to 1) that a prompt is in its scope."""

    edit: Edit
    text: str
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
        self._live: dict[int, tuple[Edit, str]] = {}
        self._of_subject: dict[tuple[str, ...], set[int]] = defaultdict(set)  # () : no subject

    @classmethod
    def build(
        cls, journal: Journal, encoder: Encoder, scope: ScopeClassifier, at: int | None = None
    ) -> Self:
        """The router of the journal as it stood at epoch `at` (None: now)."""
        router = cls(encoder, scope)
        router.epoch = journal.epoch if at is None else at
        router._add(journal, [edit.id for edit in journal.live(router.epoch)])
        return router

    def sync(self, journal: Journal) -> None:
        """Apply what happened in the journal since this router's epoch."""
        events = journal.history(since=self.epoch)
        if not events:
            return
        final = {event.edit_id: event.kind for event in events}
        self._remove(id for id, kind in final.items() if kind != "live" and id in self._live)
        self._add(journal, [id for id, kind in final.items() if kind == "live"])
        self.epoch = events[-1].seq

    def __len__(self) -> int:
        return len(self._live)

    def live(self, subject: str | None) -> list[Edit]:
        """The live edits about `subject` by id; those without a subject for None."""
        ids = self._of_subject.get(subject_key(subject or ""), ())
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
            self._decide([(next(vectors), among, masked) for _, among, masked in questions])
            for questions in asked
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

    def _decide(self, questions: list[tuple[Vectors, set[int], bool]]) -> Route:
        best: dict[int, float] = {}
        for query, among, known in questions:
            ids = [id for id, _ in self._index.search(query, _CANDIDATES, among)]
            scores = self._scope.score(query, self._index.vectors(ids), masked=known)
            for id, score in zip(ids, scores.tolist(), strict=True):
                best[id] = max(best.get(id, 0.0), score)
        ranked = sorted(best.items(), key=lambda found: (-found[1], found[0]))
        hits = [Hit(*self._live[id], score) for id, score in ranked if score >= _NEAR]
        fires = 1 if hits and hits[0].score >= FIRES else 0
        return Route(self.epoch, tuple(hits[:fires]), tuple(hits[fires:][:_SHOWN]))

    def _add(self, journal: Journal, ids: Sequence[int]) -> None:
        new = [id for id in ids if id not in self._live]
        if not new:
            return
        texts = {
            id: text
            for stored in journal.patches(ids=new)
            for id, text in zip(stored.edits, stored.patch.texts, strict=True)
        }
        for edit in journal.get_many(new):
            self._live[edit.id] = (edit, texts.get(edit.id, ""))
            self._of_subject[self._know(edit.subject)].add(edit.id)
        self._index.add(*journal.vectors(new))

    def _know(self, subject: str | None) -> tuple[str, ...]:
        return () if subject is None else self._gate.add(subject)

    def _remove(self, ids: Iterable[int]) -> None:
        gone = list(ids)
        for id in gone:
            edit, _ = self._live.pop(id)
            key = subject_key(edit.subject or "")
            self._of_subject[key].remove(id)
            if not self._of_subject[key]:
                del self._of_subject[key]
            if edit.subject is not None:
                self._gate.remove(edit.subject)
        self._index.remove(gone)
