"""prompt -> Route: which live edits is it about, and which was it nearly about?

The router is a view of the journal: the live edits on a shelf, their vectors in the index. `sync`
brings it up to date; it can be thrown away and rebuilt at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from lifelong.encoder import Encoder, Vectors
from lifelong.fact import facts
from lifelong.scope import ScopeClassifier
from lifelong.shelf import Shelf
from lifelong.subject import focus, masked, normalise
from store import Edit, Journal, VectorIndex, open_index

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

    def __init__(self, journal: Journal, encoder: Encoder, scope: ScopeClassifier) -> None:
        self.epoch = 0
        self._encoder = encoder
        self._scope = scope
        self._shelf = Shelf(journal)
        self._index = VectorIndex(encoder.dim)

    @classmethod
    def build(
        cls, journal: Journal, encoder: Encoder, scope: ScopeClassifier, at: int | None = None
    ) -> Self:
        """The router of the journal as it stood at epoch `at` (None: now)."""
        router = cls(journal, encoder, scope)
        router.epoch = journal.epoch if at is None else at
        router._shelf.fill(router.epoch)
        router._index = open_index(journal, encoder.dim, router.epoch)
        return router

    def sync(self, journal: Journal) -> None:
        """Apply what happened in the journal since this router's epoch; all or nothing."""
        events = journal.history(since=self.epoch)
        if not events:
            return
        epoch = events[-1].seq
        final = {event.edit_id: event.kind for event in events}
        here = {id for id, kind in final.items() if kind == "live"}
        gone = (final.keys() - here) & self._shelf.ids
        new = sorted(here - self._shelf.ids)
        read, vectors = self._shelf.read(new, epoch), journal.vectors(new, epoch)
        self._shelf.remove(gone)
        self._index.remove(gone)
        self._shelf.add(edit for edit, _ in read)
        if len(vectors[0]):
            self._index.add(*vectors)
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._shelf.ids)

    def same_fact(self, edit: Edit) -> list[Edit]:
        """The live edits that state the same fact as `edit`, by id."""
        ids = set[int]().union(*(self._shelf.stating(fact) for fact in facts(edit)))
        return [other for other, _ in self._shelf.read(sorted(ids), self.epoch)]

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
                self._shelf.stating(("prompt", normalise(prompt))),
                [(next(vectors), among, masked) for _, among, masked in questions],
            )
            for prompt, questions in zip(prompts, asked, strict=True)
        ]

    def _questions(self, prompt: str) -> list[tuple[str, set[int], bool]]:
        """(text, edits it may be about, subject masked?) for each subject the prompt mentions."""
        questions = [
            (focus(prompt, mention.spans), self._shelf.about(mention.subject), True)
            for mention in self._shelf.find(prompt)[:_MENTIONS]
        ]
        if without := self._shelf.about(()):
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
        shown = [(id, score) for id, score in ranked if score >= _NEAR][: _SHOWN + 1]
        read = self._shelf.read([id for id, _ in shown], self.epoch)
        hits = [Hit(*edit, score) for edit, (_, score) in zip(read, shown, strict=True)]
        fires = 1 if hits and hits[0].score >= FIRES else 0
        return Route(self.epoch, tuple(hits[:fires]), tuple(hits[fires:][:_SHOWN]))
