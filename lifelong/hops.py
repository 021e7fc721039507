"""What follows from an edit: a question that holds more than one fact.

    "Who leads the country where Ellie Kemper is a citizen?"

    Ellie Kemper -citizen-> Croatia (edit 17) -head of state-> Zoran Milanovic (fact 4)

Edits and facts are a graph: what one says of its subject may be what another is about. A chain of
hops through it says a question in the hops' own words ("the head of state of what this is a citizen
of"), and the chain is chosen that says what was asked: by the cosine of the two, subject masked,
under the scope adapter. So what a chain leaves out of the question, or adds to it, counts against
it. It must pass through an edit: what the facts say alone is the base model's business.

Where nothing is known of a hop, the base model is asked, once a question, in a wording that an edit
or a fact about another subject has. Not of the questions that name nobody who is known: those are
none of the edits' business, and cost nothing.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import islice

from lifelong.asking import BASE, Told, Until, Untold, each
from lifelong.clause import (
    about,
    asks_no_more,
    clause,
    compose,
    is_about_something,
    plain,
    relation,
)
from lifelong.encoder import Encoder, Vectors
from lifelong.facts import FactBase
from lifelong.methods.serac import Serac
from lifelong.prompt import Hop
from lifelong.router import EVERYONE, UNSENSED, Hit, Route, Router
from lifelong.subject import focus, normalise, subject_key
from store import Audience, Edit, Reference

FIRES = 0.4  # cosine from which a chain says what was asked
MARGIN = 0.03  # by which it must do so better than any single hop
HOP = 0.01  # of the cosine, by which every hop must say the question better

_BRIDGES = 0.6  # cosine from which the base model is asked for a hop
_APART = 0.15  # by which a chain with such a hop must say the question better than a single one
_SURE = 0.9  # a hit above this leaves nothing to ask

_MOST = 4  # hops of a chain
_WIDTH = 6  # steps from one place that are looked at
_BEAM = 8  # chains of one length that are gone on with
_LIKELY = 4  # of its wordings that are tried after a chain
_COMMON = 64  # wordings that it may be asked in
_LOOKED = 1024  # edits, and facts, among which those are looked for
_NAME_WORDS = 6
_NAME_ENDS = re.compile(r"[,;:\n()?!]|(?<=[^\W_]{3})\.")  # a stop behind "St" or "J" ends none
_MANY = 64  # edits and facts of one place that are looked through for a way on
_SAME = 0.95  # cosine from which a fact and an edit of one subject ask for the same

Place = tuple[str, ...]  # the key of an entity


@dataclass(frozen=True, slots=True)
class _Step:
    """A hop, how it asks (subject masked), and its edit, if it is one."""

    hop: Hop
    clause: str
    hit: Hit | None


@dataclass(frozen=True, slots=True)
class _Chain:
    """Steps from a subject of a question to `place`, and the places they left."""

    asked: str  # the question, that subject masked
    place: Place
    name: str  # of the place
    left: frozenset[Place] = frozenset()
    steps: tuple[_Step, ...] = ()
    score: float = 0.0

    @property
    def follows(self) -> bool:
        """Is there more than one hop, and an edit among them?"""
        return len(self.steps) > 1 and any(step.hit for step in self.steps)

    @property
    def rank(self) -> tuple[float, int]:
        """The best score for its length is first; of equal ones, that with more edits."""
        return self.score - HOP * len(self.steps), sum(step.hit is not None for step in self.steps)


class Hops:
    """Routes questions among live edits, and along chains of edits and facts."""

    until = Until(_NAME_ENDS, 10)

    def __init__(self, router: Router, encoder: Encoder, facts: FactBase) -> None:
        self.facts = facts
        self._router = router
        self._encoder = encoder
        self._common: tuple[object, list[_Step]] = (None, [])  # as of what; see `_wordings`
        self._clauses: Mapping[tuple[str, str | None], str] = {}  # of the prompts read for it

    def route(
        self,
        questions: Sequence[str],
        asker: Audience = EVERYONE,
        told: Told | None = None,
        sensed: Mapping[str, Vectors] = UNSENSED,
    ) -> list[Route]:
        """A route a question: the router's, or a chain where the question holds more than that.

        `told` has what the base model says to statements; None: nothing is asked of it. Raises
        Untold for what is not among them; see `asking.py`. `sensed` as in `Router.route`.
        """
        asked = zip(questions, self._router.route(questions, asker, sensed), strict=True)
        return each(asked, lambda pair: self._further(*pair, asker, told))

    def _further(self, question: str, route: Route, asker: Audience, told: Told | None) -> Route:
        if any(asks_no_more(question, hit.edit.prompt) for hit in route.hits):
            return route
        starts = self._starts(question, asker)
        leading = any(self._leads_on(start.place, asker) for start in starts)
        chains = self._explored(starts, asker) if leading else []
        best = _best(chains, FIRES)
        if best is None and told is not None and not covers(question, route):
            plan = self._plan(starts, chains, asker)
            best = self._carried_out(plan, told, asker) if plan else None
        if best is None:
            return route
        hits = tuple(replace(step.hit, score=best.score) for step in best.steps if step.hit)
        return replace(route, hits=hits, chain=tuple(step.hop for step in best.steps))

    def _starts(self, question: str, asker: Audience) -> list[_Chain]:
        """Where a chain may begin: at the known subjects that the question mentions."""
        return [
            _Chain(
                plain(focus(question, mention.spans)),
                self.facts.entity(mention.subject),
                question[mention.spans[0][0] : mention.spans[-1][1]],
            )
            for mention in self._router.mentioned(question, asker, self.facts.gate)
        ]

    def _explored(self, starts: Sequence[_Chain], asker: Audience) -> list[_Chain]:
        """The chains that begin so, scored; of those of one length, the best are gone on with."""
        found: list[_Chain] = []
        while longer := list(self._longer(starts, asker)):
            scored = self._scored(longer)
            found += scored
            starts = nlargest(_BEAM, scored, key=lambda chain: chain.rank)
        return found

    def _leads_on(self, place: Place, asker: Audience) -> bool:
        """May there be more than one hop from here?  Of a place with many edits that is assumed."""
        edits = self._router.about(place, asker)
        said: list[Edit | Reference] = [*edits, *self.facts.about(place)]
        ends = {self._place(known.target, asker) for known in said[:_MANY]}
        return len(said) > _MANY or any(self._is_known(end, asker) for end in ends)

    def _is_known(self, place: Place, asker: Audience) -> bool:
        return bool(self.facts.about(place) or self._router.about(place, asker))

    def _longer(self, chains: Iterable[_Chain], asker: Audience) -> Iterator[_Chain]:
        """These chains with each step that leads on from where they are; none goes in circles."""
        for chain in chains:
            if chain.place in chain.left or len(chain.steps) == _MOST:
                continue
            for step in self._steps(chain, asker):
                yield replace(
                    chain,
                    place=self._place(step.hop.target, asker),
                    name=step.hop.target,
                    left=chain.left | {chain.place},
                    steps=(*chain.steps, step),
                )

    def _scored(self, chains: Sequence[_Chain]) -> list[_Chain]:
        asked = self._encoder.encode([chain.asked for chain in chains])
        said = self._encoder.encode([compose([s.clause for s in c.steps]) for c in chains])
        scores = (asked * said).sum(1).tolist()
        return [replace(chain, score=score) for chain, score in zip(chains, scores, strict=True)]

    def _steps(self, chain: _Chain, asker: Audience) -> list[_Step]:
        """What edits say of the place, and what facts say that no edit says otherwise."""
        (asked,) = self._encoder.encode([chain.asked])
        hits = self._router.nearest(asked, chain.place, asker, _WIDTH)
        edited = [_of_edit(hit) for hit in hits]
        facts = [_of_fact(fact) for fact in self.facts.about(chain.place)]
        return [*edited, *self._open(facts, edited, asked)]

    def _open(self, facts: Sequence[_Step], edited: Sequence[_Step], asked: Vectors) -> list[_Step]:
        """The facts that no edit is in the place of; of many, those most like what is asked."""
        if not facts or not (edited or len(facts) > _WIDTH):
            return list(facts)
        vectors = self._encoder.encode([step.clause for step in facts])
        settled = self._encoder.encode([step.clause for step in edited])
        alike = (vectors @ settled.T).max(1, initial=-1.0)
        nearest = (vectors @ asked).argsort(kind="stable")[::-1]
        return [facts[at] for at in nearest if alike[at] < _SAME][:_WIDTH]

    def _place(self, name: str, asker: Audience) -> Place:
        """The known entity that is called `name`, however it is spelt; else the name's own key."""
        named = subject_key(name)
        place = self.facts.entity(named)
        spelt = (
            m.subject
            for m in self._router.mentioned(name, asker, self.facts.gate)
            if m.subject == place or len(m.subject) >= len(named)
        )
        return self.facts.entity(next(spelt, place))

    # -- a hop that the base model is asked for ---------------------------------------------------

    def _plan(
        self, starts: Sequence[_Chain], chains: Sequence[_Chain], asker: Audience
    ) -> _Chain | None:
        """A chain with one hop of the base model's, where that says the question."""
        wordings = self._wordings(asker) if starts else []
        if not any(step.hit for step in wordings):
            return None
        return _best(self._plans(starts, chains, wordings, asker), _BRIDGES, _APART)

    def _plans(
        self,
        starts: Sequence[_Chain],
        chains: Sequence[_Chain],
        wordings: Sequence[_Step],
        asker: Audience,
    ) -> list[_Chain]:
        """Chains with a hop whose target is not known yet, and single hops besides; scored."""
        single = self._scored(list(self._longer(starts, asker)))
        plans = [_planned(start, step) for start in starts for step in wordings]
        furthest = max(chains or single, key=lambda chain: chain.rank, default=None)
        for before in (*starts, *filter(None, [furthest])):
            likely = self._likely(before.asked, wordings)
            open_ = [_planned(before, step) for step in likely if len(before.steps) < _MOST - 1]
            plans += [plan for plan in open_ if before.steps]
            plans += [
                _planned(plan, step, step.hit)
                for plan in open_
                for step in likely
                if step.hit and step.clause != plan.steps[-1].clause
            ]
        return [*single, *self._scored(plans)]

    def _carried_out(self, plan: _Chain, told: Told, asker: Audience) -> _Chain | None:
        """Go on from what the base model says, if that was the plan. Raises Untold."""
        at = next(at for at, step in enumerate(plan.steps) if step.hop.source == BASE)
        open_ = plan.steps[at]
        prompt = about(open_.clause, plan.name)
        if prompt not in told:
            raise Untold([prompt])
        target = _first_words(told[prompt])
        if not target:
            return None
        hop = replace(open_.hop, subject=plan.name, prompt=prompt, target=target)
        bridged = replace(
            plan,
            place=self._place(target, asker),
            name=target,
            left=plan.left | {plan.place},
            steps=(*plan.steps[:at], _Step(hop, open_.clause, None)),
        )
        if at == len(plan.steps) - 1:
            return bridged
        return _best(self._explored([bridged], asker), FIRES)

    def _likely(self, asked: str, wordings: Sequence[_Step]) -> list[_Step]:
        """The wordings that are most like what is asked."""
        (query,) = self._encoder.encode([asked])
        scores = self._encoder.encode([step.clause for step in wordings]) @ query
        return [wordings[at] for at in scores.argsort(kind="stable")[::-1][:_LIKELY]]

    def _wordings(self, asker: Audience) -> list[_Step]:
        """The commonest ways in which late edits, and facts, that `asker` sees ask: a step each."""
        as_of = (self._router.epoch, asker, self.facts)
        if self._common[0] != as_of:
            edits = self._router.newest(asker, _LOOKED)
            known: list[Edit | Reference] = [*edits, *islice(self.facts, _LOOKED)]
            by_name = {(one.prompt, one.subject): one for one in known}
            read = {name: self._clauses.get(name) or clause(by_name[name]) for name in by_name}
            asks = [read[one.prompt, one.subject] for one in known]
            counts = Counter(filter(is_about_something, asks))
            of = dict(zip(reversed(asks), reversed(known), strict=True))
            common = [_wording(of[said]) for said, _ in counts.most_common(_COMMON)]
            self._clauses, self._common = read, (as_of, common)
        return self._common[1]


def covers(question: str, route: Route) -> bool:
    """Do the hits leave nothing of the question to ask?"""
    return any(hit.score > _SURE or asks_no_more(question, hit.edit.prompt) for hit in route.hits)


def _best(chains: Sequence[_Chain], least: float, margin: float = MARGIN) -> _Chain | None:
    """The chain that says the question, and says it better than any single hop does."""
    best = max((c for c in chains if c.follows), key=lambda c: c.rank, default=None)
    single = max((c.score for c in chains if len(c.steps) == 1), default=0.0)
    return best if best and best.score >= max(least, single + margin) else None


def _planned(chain: _Chain, wording: _Step, hit: Hit | None = None) -> _Chain:
    """The chain with one more step, of which only the wording is known yet."""
    hop = replace(wording.hop, source=BASE)
    return replace(chain, steps=(*chain.steps, _Step(hop, wording.clause, hit)))


def _first_words(reply: str) -> str:
    """The name that a completion begins with."""
    found = _NAME_ENDS.split(reply.strip(), maxsplit=1)[0].strip()
    return found if normalise(found) and len(found.split()) <= _NAME_WORDS else ""


def composition(edits: Sequence[Edit]) -> str:
    """What a chain of edits says, as a statement about the first one's subject, up to its end."""
    return about(compose([clause(edit) for edit in edits]), edits[0].subject or "")


def conclusion(route: Route) -> tuple[Edit, str]:
    """The edit that a route's chain amounts to, and what there is to know for it.

    Its method is that of the edits along it, if they are answered from memory.
    """
    first, last = route.chain[0], route.chain[-1]
    told = next((hit.edit.method for hit in route.hits if hit.text is not None), Serac.name)
    known = " ".join(f"{hop.prompt.strip()} {hop.target}." for hop in route.chain)
    return Edit(last.prompt, last.target, subject=first.subject, method=told), known


def _of_edit(hit: Hit) -> _Step:
    return _step(hit.edit, f"edit {hit.id}", hit)


def _of_fact(fact: Reference) -> _Step:
    return _step(fact, f"fact {fact.id}", None)


def _wording(known: Edit | Reference) -> _Step:
    """A step that asks as an edit or a fact does; its edit has no score yet."""
    return _of_edit(Hit(known, "", 0.0)) if isinstance(known, Edit) else _of_fact(known)


def _step(known: Edit | Reference, source: str, hit: Hit | None) -> _Step:
    said = clause(known)
    return _Step(
        Hop(known.subject or "", known.prompt, relation(said), known.target, source), said, hit
    )
