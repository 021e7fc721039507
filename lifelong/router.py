"""prompt -> Route: which live edits is it about, and which was it nearly about?

The router is a view of the journal: the live edits, their subjects in the gate of their audience,
their vectors in the index. `sync` brings it up to date; it can be thrown away and rebuilt at any
time. Whoever asks is routed among the edits of the (at most four) audiences that cover him, and by
nothing else; where two of them contradict each other, the narrower audience's is his.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from typing import Self

from lifelong.encoder import Encoder, Vectors
from lifelong.fact import facts, same_fact
from lifelong.prompt import Hop
from lifelong.scope import ScopeClassifier
from lifelong.standing import Standing
from lifelong.subject import Mention, SubjectGate, focus, masked, mentions, normalise, subject_key
from store import Audience, Edit, Hint, Journal, VectorIndex, open_index

EVERYONE = Audience()

FIRES = 0.5  # probability from which an edit is in scope

_CANDIDATES = 16  # edits of one subject that the classifier looks at
_MENTIONS = 8  # subjects of one prompt that are looked at
_NEAR = 0.02  # probability from which an edit that does not fire is a near miss
_SHOWN = 5  # near misses that a route keeps
_YIELDS = 0.2  # of probability: an edit for more people gives way to one for fewer that fires

_Groups = dict[tuple[str, ...], set[int]]
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
    """The decision for one prompt as of `epoch`: the edits that shape its answer, best first.

    With a `chain` the answer is what its last hop leads to, and the hits are the edits along it.
    """

    epoch: int
    hits: tuple[Hit, ...] = ()
    near: tuple[Hit, ...] = ()
    chain: tuple[Hop, ...] = ()


def scope_text(edit: Edit) -> str:
    """What the encoder reads of an edit: the clause about its subject, subject masked."""
    return (edit.subject and masked(edit.prompt, edit.subject)) or edit.prompt


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The live edits of one audience, by the subject they name; () for those that name none.

    And by their target, which may be the subject of another.
    """

    gate: SubjectGate = field(default_factory=SubjectGate)
    of_subject: _Groups = field(default_factory=lambda: defaultdict(set))
    of_target: _Groups = field(default_factory=lambda: defaultdict(set))


class Router:
    """The live edits as of one epoch. The caller keeps changes and questions apart (a lock)."""

    def __init__(self, encoder: Encoder, scope: ScopeClassifier) -> None:
        self.epoch = 0
        self.standing = Standing()
        self._encoder = encoder
        self._scope = scope
        self._index = VectorIndex(encoder.dim)
        self._live: dict[int, tuple[Edit, str | None]] = {}
        self._shelves: dict[Audience, _Shelf] = {}
        self._ends: list[tuple[str, int]] = []  # a heap: until when, which

    @classmethod
    def build(
        cls, journal: Journal, encoder: Encoder, scope: ScopeClassifier, at: int | None = None
    ) -> Self:
        """The router of the journal as it stood at epoch `at` (None: now)."""
        router = cls(encoder, scope)
        epoch = journal.epoch if at is None else at
        standing = (*journal.live(epoch), *journal.edits("superseded", epoch))
        router._add(standing, _texts(journal, standing, epoch))
        router._index = open_index(journal, encoder.dim, epoch)
        router.epoch = epoch
        return router

    def sync(self, journal: Journal) -> None:
        """Apply what happened in the journal since this router's epoch; all or nothing."""
        events = journal.history(since=self.epoch)
        if not events:
            return
        epoch = events[-1].seq
        final = {event.edit_id: event.kind for event in events}
        standing = journal.get_many(
            (id for id, kind in final.items() if kind in ("live", "superseded")), epoch
        )
        texts = _texts(journal, standing, epoch)
        ids, vectors = journal.vectors(texts, epoch)
        self._remove(final)
        self._add(standing, texts)
        if len(ids):
            self._index.add(ids, vectors)
        self.epoch = epoch

    def ended(self, now: str) -> list[int]:
        """Forget the edits whose `valid_until` is not after `now` (as in an `Edit`); their ids."""
        over = set[int]()
        while self._ends and self._ends[0][0] <= now:
            over.add(heappop(self._ends)[1])
        over &= self._live.keys()
        self._remove(over)
        return sorted(over)

    def __len__(self) -> int:
        return len(self._live)

    @property
    def in_weights(self) -> list[int]:
        """The ids of the live edits that the weights answer, in order."""
        return sorted(id for id, (_, text) in self._live.items() if text is None)

    def visible(self, edit: Edit) -> list[Edit]:
        """The live edits that contradict `edit` where it is live, the narrowest audience first."""
        return [o for level in edit.audience.levels for o in self.standing.rivals(edit, level)]

    def about(self, subject: str, asker: Audience) -> list[Edit]:
        """The live edits that name `subject` and that `asker` sees, by id."""
        ids = _about(subject_key(subject), self._seen(asker))
        return [self._live[id][0] for id in sorted(ids)]

    def saying(self, target: str, asker: Audience) -> list[Edit]:
        """The live edits with this target that `asker` sees, by id."""
        groups = [shelf.of_target.get(subject_key(target), ()) for shelf in self._seen(asker)]
        return [self._live[id][0] for id in sorted(set[int]().union(*groups))]

    def mentioned(self, text: str, asker: Audience, also: SubjectGate) -> list[Mention]:
        """The subjects in `text` of edits that `asker` sees, and of `also`; the fullest first."""
        gates = [shelf.gate for shelf in self._seen(asker)]
        return mentions(text, [*gates, also])[:_MENTIONS]

    def nearest(
        self, query: Vectors, subject: tuple[str, ...], asker: Audience, most: int
    ) -> list[Hit]:
        """Of the live edits about `subject` that `asker` sees, those most like `query` (d,) first.

        Their scores are cosines.
        """
        among = _about(subject, self._seen(asker))
        found = self._ruled(dict(self._index.search(query, most, among)), asker)
        ranked = sorted(found.items(), key=lambda hit: (-hit[1], -hit[0]))
        return [Hit(*self._live[id], score) for id, score in ranked]

    def newest(self, asker: Audience, most: int) -> list[Edit]:
        """The live edits that `asker` sees, so many of them, those that came last first."""
        came = (edit for edit, _ in reversed(self._live.values()))
        return list(islice((edit for edit in came if edit.audience in asker.levels), most))

    def encode(self, edits: Sequence[Edit]) -> Vectors:
        """The vectors to journal with `edits`: (n, dim) float32."""
        return self._encoder.encode([scope_text(edit) for edit in edits])

    def vectors(self, edits: Sequence[Edit]) -> Vectors:
        """The journalled vectors of live `edits`: (n, dim) float32."""
        return self._index.vectors([edit.id for edit in edits])

    def route(self, prompts: Sequence[str], asker: Audience = EVERYONE) -> list[Route]:
        """A route a prompt; one encoder call for all questions, none where the gate rules all out.

        The classifier may read the targets of the edits that are near.
        """
        shelves = self._seen(asker)
        asked = [self._questions(prompt, shelves) for prompt in prompts]
        texts = [text for questions in asked for text, _, _ in questions]
        vectors = iter(self._encoder.encode(texts) if texts else ())
        return [
            self._decide(
                self._taught(prompt, asker),
                [(next(vectors), among, masked) for _, among, masked in questions],
                asker,
            )
            for prompt, questions in zip(prompts, asked, strict=True)
        ]

    def _seen(self, asker: Audience) -> list[_Shelf]:
        return [self._shelves[level] for level in asker.levels if level in self._shelves]

    def _taught(self, prompt: str, asker: Audience) -> set[int]:
        """The live edits of this very prompt."""
        fact = ("prompt", normalise(prompt))
        return {
            id
            for level in asker.levels
            for id in self.standing.saying(fact, level) & self._live.keys()
            if fact in facts(self._live[id][0])
        }

    def _questions(
        self, prompt: str, shelves: Sequence[_Shelf]
    ) -> list[tuple[str, set[int], bool]]:
        """(text, edits it may be about, subject masked?) for each subject the prompt mentions."""
        found = mentions(prompt, [shelf.gate for shelf in shelves])
        questions = [
            (focus(prompt, mention.spans), _about(mention.subject, shelves), True)
            for mention in found[:_MENTIONS]
        ]
        if without := _about((), shelves):
            questions.append((prompt, without, False))
        return questions

    def _decide(
        self, taught: set[int], questions: list[tuple[Vectors, set[int], bool]], asker: Audience
    ) -> Route:
        """`taught` are the edits of this very prompt: theirs, whatever subject they name."""
        best = dict.fromkeys(taught, 1.0)
        for query, among, known in questions:
            ids = [id for id, _ in self._index.search(query, _CANDIDATES, among)]
            targets = [self._live[id][0].target for id in ids]
            scores = self._scope.score(query, self._index.vectors(ids), targets, masked=known)
            for id, score in zip(ids, scores.tolist(), strict=True):
                best[id] = max(best.get(id, 0.0), score)
        ranked = sorted(self._ruled(best, asker).items(), key=lambda found: (-found[1], -found[0]))
        hits = [Hit(*self._live[id], score) for id, score in ranked if score >= _NEAR]
        return self._chosen(hits, asker)

    def _ruled(self, scores: Mapping[int, float], asker: Audience) -> dict[int, float]:
        """The scores without the edits that a narrower audience's contradicts.

        Where that one settles the same fact, it is what the prompt is about: it gets the score.
        """
        ruled: dict[int, float] = {}
        for id, score in scores.items():
            edit = self._live[id][0]
            narrower = asker.levels[: asker.levels.index(edit.audience)]
            over = next(filter(None, (self.standing.rivals(edit, a) for a in narrower)), None)
            heirs = [o.id for o in over if same_fact(edit, o)] if over else [id]
            ruled |= {heir: max(score, ruled.get(heir, 0.0)) for heir in heirs}
        return ruled

    def _chosen(self, hits: Sequence[Hit], asker: Audience) -> Route:
        """Of `hits`, best first, the one that fires; one for fewer people has precedence."""
        firing = [hit for hit in hits if hit.score >= max(FIRES, hits[0].score - _YIELDS)]
        first = min(firing, key=lambda hit: asker.levels.index(hit.edit.audience), default=None)
        near = tuple(hit for hit in hits if hit is not first)[:_SHOWN]
        return Route(self.epoch, (first,) if first else (), near)

    def _add(self, standing: Sequence[Edit], texts: Texts) -> None:
        for edit in standing:
            self.standing.add(edit)
            if edit.status == "live":
                self._live[edit.id] = (edit, texts[edit.id])
                self._shelve(edit)

    def _shelve(self, edit: Edit) -> None:
        shelf = self._shelves.setdefault(edit.audience, _Shelf())
        for group, key in _groups(shelf, edit):
            group[key].add(edit.id)
        if edit.subject is not None:
            shelf.gate.add(edit.subject)
        if edit.valid_until is not None:
            heappush(self._ends, (edit.valid_until, edit.id))

    def _remove(self, ids: Iterable[int]) -> None:
        """Forget these edits, those of them that stand."""
        gone = list(ids)
        for id in gone:
            self.standing.discard(id)
        live = [id for id in gone if id in self._live]
        for id in live:
            self._unshelve(self._live.pop(id)[0])
        self._index.remove(live)

    def _unshelve(self, edit: Edit) -> None:
        shelf = self._shelves[edit.audience]
        for group, key in _groups(shelf, edit):
            group[key].remove(edit.id)
            if not group[key]:
                del group[key]
        if edit.subject is not None:
            shelf.gate.remove(edit.subject)
        if not shelf.of_subject:
            del self._shelves[edit.audience]


def _groups(shelf: _Shelf, edit: Edit) -> list[tuple[_Groups, tuple[str, ...]]]:
    """Where `edit` can be looked up, and under what."""
    return [
        (shelf.of_subject, subject_key(edit.subject or "")),
        (shelf.of_target, subject_key(edit.target)),
    ]


def _about(subject: tuple[str, ...], shelves: Sequence[_Shelf]) -> set[int]:
    """The edits on these shelves that name this subject."""
    return set[int]().union(*(shelf.of_subject.get(subject, ()) for shelf in shelves))


def _texts(journal: Journal, standing: Sequence[Edit], epoch: int) -> Texts:
    """The texts of their methods for those that are live, as of `epoch`; "" without a patch."""
    ids = [edit.id for edit in standing if edit.status == "live"]
    texts = {
        id: stored.patch.texts[position] if isinstance(stored.patch, Hint) else None
        for stored in journal.patches(epoch, ids)
        for id, position in zip(stored.edits, stored.positions, strict=True)
    }
    return {id: texts.get(id, "") for id in ids}
