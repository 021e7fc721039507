"""prompt -> Route: which live edits is it about, and which was it nearly about?

The router is a view of the journal: who stands and what they say (hashed), their subjects in the
gate of their audience, their vectors in the index. The few edits that a prompt is about are read
from the journal, unless they were lately. `sync` brings it up to date; it can be thrown away and
rebuilt at any time. Whoever asks is routed among the edits of the (at most four) audiences that
cover him, and by nothing else; where two of them contradict each other, the narrower audience's is
his.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import NamedTuple, Self

import numpy as np

from lifelong.codebook import Books
from lifelong.contrary import contrary
from lifelong.encoder import Encoder, Vectors, plain
from lifelong.fact import Fact, facts, same_fact
from lifelong.gates import GATES, Gate, gate_of, gated
from lifelong.kept import MOST, Kept
from lifelong.phrase import denies, is_longer, parts, plea
from lifelong.prompt import Hop, Prompt, Slot
from lifelong.refer import in_full
from lifelong.scope import ScopeClassifier
from lifelong.standing import Shelf, Standing
from lifelong.subject import (
    Mention,
    Spans,
    SubjectGate,
    focus,
    folded,
    goes_on,
    masked,
    mentions,
    normalise,
    subject_key,
)
from store import Audience, Edit, Hook, Journal, VectorIndex, open_index
from store import Made as Stored

EVERYONE = Audience()

FIRES = 0.4  # probability from which an edit is in scope

_CANDIDATES = 16  # edits of one subject that the classifier looks at
_MENTIONS = 8  # subjects of one prompt that are looked at
_NEAR = 0.02  # probability from which an edit that does not fire is a near miss
_SHOWN = 5  # near misses that a route keeps
_YIELDS = 0.2  # of probability: an edit for more people gives way to one for fewer that fires

UNSENSED: Mapping[str, Vectors] = {}

Made = str | Slot | None  # by the method, of one edit; None where it is in the weights
_Score = Callable[[Vectors, list[int]], Vectors]  # of a question's vector and some edits


class _Question(NamedTuple):
    """What the encoder reads, with its adapter or `plain`, and the edits it may be about."""

    text: str
    among: set[int]
    score: _Score
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """An edit, what its method made of it, the probability (0 to 1) that a prompt is in its scope.

    Where that is nothing, the edit is in the weights, which answer by themselves.
    """

    edit: Edit
    made: Made
    score: float

    @property
    def text(self) -> str | None:
        """What the model is to read or to say, if that is what was made."""
        return self.made if isinstance(self.made, str) else None

    @property
    def slot(self) -> Slot | None:
        """What acts inside the model while the prompt is read, if that is what was made."""
        return self.made if isinstance(self.made, Slot) else None

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

    @property
    def slot(self) -> Slot | None:
        """What acts inside the model while the prompt is read; what a chain leads to is said."""
        return self.hits[0].slot if self.hits and not self.chain else None


def scope_text(edit: Edit) -> str:
    """What the encoder reads of an edit: the clause about its subject, subject masked."""
    if gate := gate_of(edit):
        return gate.text(edit)
    return (edit.subject and masked(edit.prompt, edit.subject)) or edit.prompt


class Router:
    """The live edits as of one epoch. The caller keeps changes and questions apart (a lock)."""

    def __init__(self, journal: Journal, encoder: Encoder, scope: ScopeClassifier) -> None:
        self.standing = Standing(journal)
        self._encoder = encoder
        self._scope = scope
        self._index = VectorIndex(encoder.dim)
        self._made = Kept(lambda ids: _made(journal.made(ids, self.epoch)))
        self._books = Books()
        self._written = set[int]()  # the live edits that the weights answer

    @classmethod
    def build(
        cls, journal: Journal, encoder: Encoder, scope: ScopeClassifier, at: int | None = None
    ) -> Self:
        """The router of the journal as it stood at epoch `at` (None: now)."""
        router = cls(journal, encoder, scope)
        router.standing = Standing.of(journal, at)
        router._written = set(journal.written_ids(router.epoch))
        router._index = open_index(journal, encoder.dim, router.epoch)
        router._made.get(journal.live_ids(router.epoch)[-MOST:])
        hooked = journal.hooked_ids(router.epoch)
        router._bind(router.standing.edits(hooked).values(), router._made.get(hooked))
        return router

    @property
    def epoch(self) -> int:
        """What the routes are as of."""
        return self.standing.epoch

    def sync(self, journal: Journal) -> None:
        """Apply what happened in the journal since this router's epoch; all or nothing."""
        with journal.unchanged():
            events = journal.history(since=self.epoch)
            if not events:
                return
            epoch, final = events[-1].seq, {event.edit_id: event.kind for event in events}
            standing = [id for id, kind in final.items() if kind in ("live", "superseded")]
            edits, made = journal.get_many(standing, epoch), journal.made(standing, epoch)
            ids, vectors = journal.vectors(made, epoch)
        self._remove(final)
        self._add(edits, _made(made))
        if len(ids):
            self._index.add(ids, vectors)
        self.standing.epoch = epoch

    def ended(self, now: str) -> list[int]:
        """Forget the edits whose `valid_until` is not after `now` (as in an `Edit`); their ids."""
        over = self.standing.over(now)
        self._remove(over)
        return over

    def __len__(self) -> int:
        return len(self.standing)

    @property
    def in_weights(self) -> list[int]:
        """The ids of the live edits that the weights answer, in order."""
        return sorted(self._written)

    def stands(self, ids: Set[int]) -> bool:
        """Whether all of these edits are live."""
        return all(map(self.standing.is_live, ids))

    def visible(self, edit: Edit) -> list[Edit]:
        """The live edits that contradict `edit` where it is live, the narrowest audience first."""
        return [o for level in edit.audience.levels for o in self.standing.rivals(edit, level)]

    def about(self, subject: tuple[str, ...], asker: Audience) -> list[Edit]:
        """The live edits that name the subject with this key and that `asker` sees, by id."""
        return self._edits(_about(subject, self._seen(asker)))

    def saying(self, target: str, asker: Audience) -> list[Edit]:
        """The live edits with this target that `asker` sees, by id."""
        key = subject_key(target)
        return self._edits(set[int]().union(*(s.saying(key) for s in self._seen(asker))))

    def mentioned(self, text: str, asker: Audience, also: SubjectGate) -> list[Mention]:
        """The subjects in `text` of edits that `asker` sees, and of `also`; the fullest first."""
        return mentions(text, [*self._seen(asker), also])[:_MENTIONS]

    def referred(self, prompt: Prompt, asker: Audience = EVERYONE) -> Prompt:
        """The same; its question in full where it leaves to earlier turns which subject it means.

        What was taught word for word is no such question.
        """
        if not prompt.earlier or self._taught(prompt.question, asker):
            return prompt
        shelves = self._seen(asker)

        def known(text: str) -> list[str]:
            spans = sorted(mention.spans for mention in mentions(text, shelves))
            return [text[span[0][0] : span[-1][1]] for span in spans]

        return replace(prompt, in_full=in_full(prompt.question, prompt.earlier, known))

    def nearest(
        self, query: Vectors, subject: tuple[str, ...], asker: Audience, most: int
    ) -> list[Hit]:
        """Of the live edits about `subject` that `asker` sees, those most like `query` (d,) first.

        Their scores are cosines.
        """
        among = _about(subject, self._seen(asker))
        found = self._ruled(dict(self._index.search(query, most, among)), asker)
        return self._hits(found)

    def newest(self, asker: Audience, most: int) -> list[Edit]:
        """The live edits that `asker` sees, so many of them, those that came last first."""
        return self._edits(self.standing.live(asker.levels)[-most:])[::-1]

    def encode(self, edits: Sequence[Edit]) -> Vectors:
        """The vectors to journal with `edits`: (n, dim) float32."""
        gates = map(gate_of, edits)
        return self._read(
            [(scope_text(e), bool(g and g.plain)) for e, g in zip(edits, gates, strict=True)]
        )

    def vectors(self, edits: Sequence[Edit]) -> Vectors:
        """The journalled vectors of live `edits`: (n, dim) float32."""
        return self._index.vectors([edit.id for edit in edits])

    @property
    def senses(self) -> set[str]:
        """The modules whose states decide on the scope of live edits."""
        return self._books.modules

    def route(
        self,
        prompts: Sequence[str],
        asker: Audience = EVERYONE,
        sensed: Mapping[str, Vectors] = UNSENSED,
    ) -> list[Route]:
        """A route a prompt; one encoder call for all questions, none where the gate rules all out.

        (One more, without the adapter, where edits are live whose gates want that.)

        The classifier may read the targets of the edits that are near. `sensed` are the states of
        every prompt (n, d), by module; edits decided by others do not fire.
        """
        shelves = self._seen(asker)
        asked = [self._questions(prompt, shelves) for prompt in prompts]
        vectors = iter(self._read([(q.text, q.plain) for questions in asked for q in questions]))
        return [
            self._decide(
                self._taught(prompt, asker),
                [(next(vectors), question.among, question.score) for question in questions],
                {module: keys[place] for module, keys in sensed.items()},
                asker,
            )
            for place, (prompt, questions) in enumerate(zip(prompts, asked, strict=True))
        ]

    def _read(self, texts: Sequence[tuple[str, bool]]) -> Vectors:
        """The vectors (n, dim) of texts, each by the encoder or (True) by the plain one."""
        vectors = np.empty((len(texts), self._encoder.dim), np.float32)
        for as_it_was in {plainly for _, plainly in texts}:
            rows = [row for row, (_, plainly) in enumerate(texts) if plainly == as_it_was]
            encoder = plain(self._encoder) if as_it_was else self._encoder
            vectors[rows] = encoder.encode([texts[row][0] for row in rows])
        return vectors

    def _seen(self, asker: Audience) -> list[Shelf]:
        return self.standing.shelves(asker.levels)

    def _edits(self, ids: Iterable[int]) -> list[Edit]:
        return list(self.standing.edits(sorted(ids)).values())

    def _hits(self, scores: Mapping[int, float]) -> list[Hit]:
        """Best first, of equal scores the newest."""
        ranked = sorted(scores.items(), key=lambda found: (-found[1], -found[0]))
        edits, made = self.standing.edits(scores), self._made.get(scores)
        return [Hit(edits[id], made[id], score) for id, score in ranked]

    def _taught(self, prompt: str, asker: Audience) -> set[int]:
        """For each audience, its live edits of this very prompt, else those in their place."""
        asked = ("prompt", normalise(prompt))
        taught: set[int] = set()
        for level in asker.levels:
            saying = self._settling(asked, level)
            live = {id for id in saying if self.standing.is_live(id)}
            heirs = {
                id
                for before in saying.values()
                for fact in facts(before)
                for id in self._settling(fact, level)
                if self.standing.is_live(id)
            }
            taught |= live or heirs
        return taught

    def _settling(self, fact: Fact, level: Audience) -> dict[int, Edit]:
        """Of one audience's edits that stand, live or superseded, those that settle `fact`."""
        found = self.standing.edits(self.standing.saying(fact, level))
        return {id: edit for id, edit in found.items() if fact in facts(edit)}

    def _questions(self, prompt: str, shelves: Sequence[Shelf]) -> list[_Question]:
        """One for each subject the prompt mentions, and one for each kind of edit without any."""
        questions: list[_Question] = []
        meant = ((m, self._meant(m, prompt, shelves)) for m in mentions(prompt, shelves))
        for mention, about in islice(filter(itemgetter(1), meant), _MENTIONS):
            clause = plea(focus(prompt, mention.spans))
            asked = parts(_masked(prompt, mention.spans)) if is_longer(prompt) else []
            for text in (clause, *asked):
                score = partial(self._scored, text, masked=True)
                questions.append(_Question(text, about, score))
        if without := _about((), shelves):
            score = partial(self._scored, prompt, masked=False)
            questions.append(_Question(prompt, without, score))
        for name, gate in GATES.items():
            if among := _about(gated(name), shelves):
                let = partial(self._let, gate, prompt)
                questions.append(_Question(gate.asked(prompt), among, let, gate.plain))
        return questions

    def _meant(self, mention: Mention, prompt: str, shelves: Sequence[Shelf]) -> set[int]:
        """The edits of a subject; where its name goes on in the prompt, those that say so, too."""
        about = _about(mention.subject, shelves)
        if more := goes_on(prompt, mention.spans):
            edits = self.standing.edits(about).values()
            return {edit.id for edit in edits if more in folded(edit.prompt)}
        return about

    def _scored(self, clause: str, query: Vectors, ids: list[int], *, masked: bool) -> Vectors:
        """By the classifier; what is not so is no answer to what is so, nor is the contrary."""
        edits = self.standing.edits(ids).values()
        targets = [edit.target for edit in edits]
        scores = self._scope.score(query, self._index.vectors(ids), targets, masked=masked)
        texts, denied = map(scope_text, edits), denies(clause)
        fit = [denies(text) == denied and not contrary(clause, text) for text in texts]
        return np.where(fit, scores, 0.0)

    def _let(self, gate: Gate, prompt: str, query: Vectors, ids: list[int]) -> Vectors:
        """By the gate of their method."""
        edits = list(self.standing.edits(ids).values())
        return gate.score(prompt, edits, self._index.vectors(ids) @ query)

    def _decide(
        self,
        taught: set[int],
        questions: list[tuple[Vectors, set[int], _Score]],
        sensed: Mapping[str, Vectors],
        asker: Audience,
    ) -> Route:
        """`taught` are the edits of this very prompt: theirs, whatever subject they name."""
        best = dict.fromkeys(taught, 1.0)
        for query, among, score_all in questions:
            ids = [id for id, _ in self._index.search(query, _CANDIDATES, among)]
            scores = score_all(query, ids)
            for id, score in zip(ids, scores.tolist(), strict=True):
                best[id] = max(best.get(id, 0.0), score)
        best = {id: score for id, score in best.items() if id not in self._books}
        near = self._books.find(sensed, asker.levels)
        best |= {id: FIRES + (1 - FIRES) * share for id, share in near.items()}
        ruled = self._ruled(best, asker)
        kept = {id: score for id, score in ruled.items() if score >= _NEAR}
        return self._chosen(self._hits(kept), asker)

    def _ruled(self, scores: Mapping[int, float], asker: Audience) -> dict[int, float]:
        """The scores without the edits that a narrower audience's contradicts.

        Where that one settles the same fact, it is what the prompt is about: it gets the score.
        """
        ruled: dict[int, float] = {}
        for id, edit in self.standing.edits(scores).items():
            narrower = asker.levels[: asker.levels.index(edit.audience)]
            over = next(filter(None, (self.standing.rivals(edit, a) for a in narrower)), None)
            heirs = [o.id for o in over if same_fact(edit, o)] if over else [id]
            ruled |= {heir: max(scores[id], ruled.get(heir, 0.0)) for heir in heirs}
        return ruled

    def _chosen(self, hits: Sequence[Hit], asker: Audience) -> Route:
        """Of `hits`, best first, the one that fires; one for fewer people has precedence."""
        firing = [hit for hit in hits if hit.score >= max(FIRES, hits[0].score - _YIELDS)]
        first = min(firing, key=lambda hit: asker.levels.index(hit.edit.audience), default=None)
        near = tuple(hit for hit in hits if hit is not first)[:_SHOWN]
        return Route(self.epoch, (first,) if first else (), near)

    def _add(self, edits: Sequence[Edit], made: Mapping[int, Made]) -> None:
        self.standing.add(edits)
        self._made.put(made)
        self._written.update(id for id, one in made.items() if one is None)
        self._bind(edits, made)

    def _bind(self, edits: Iterable[Edit], made: Mapping[int, Made]) -> None:
        for edit in edits:
            if isinstance(slot := made.get(edit.id), Slot):
                self._books.add(edit, slot)

    def _remove(self, ids: Iterable[int]) -> None:
        """Forget these edits, those of them that stand."""
        gone = list(ids)
        live = list(filter(self.standing.is_live, gone))
        self.standing.discard(gone)
        self._made.drop(gone)
        for id in gone:
            self._books.discard(id)
        self._written.difference_update(gone)
        self._index.remove(live)


def _masked(text: str, spans: Spans) -> str:
    """The whole text, each span "this"."""
    for start, end in sorted(spans, reverse=True):
        text = f"{text[:start]}this{text[end:]}"
    return text


def _about(subject: tuple[str, ...], shelves: Sequence[Shelf]) -> set[int]:
    """The edits on these shelves that name this subject."""
    return set[int]().union(*(shelf.about(subject) for shelf in shelves))


def _made(stored: Mapping[int, Stored]) -> dict[int, Made]:
    return {id: _slot(id, one) if isinstance(one, Hook) else one for id, one in stored.items()}


def _slot(id: int, hook: Hook) -> Slot:
    rows = {name: tensor[0] for name, tensor in hook.tensors.items()}
    return Slot(id, hook.module, rows["value"], rows.get("key"), float(rows.get("radius", 0.0)))
