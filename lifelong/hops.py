"""What follows from an edit: a question that holds more than one fact.

    "Who leads the country where Ellie Kemper is a citizen?"

    Ellie Kemper -citizen-> Croatia (edit 17) -head of state-> Zoran Milanovic (fact 4)

Edits and facts are a graph: what one says of its subject may be what another is about. A chain of
hops through it says a question in the hops' own words ("the head of state of what this is a citizen
of"), and the chain is chosen that says what was asked: by the cosine of the two, subject masked,
under the scope adapter. So what a chain leaves out of the question, or adds to it, counts against
it. It must pass through an edit: what the facts say alone is the base model's business.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest

from lifelong.encoder import Encoder, Vectors
from lifelong.facts import FactBase
from lifelong.prompt import Hop
from lifelong.router import EVERYONE, Hit, Route, Router
from lifelong.subject import focus, masked, normalise, subject_key, words
from store import Audience, Edit, Reference

FIRES = 0.4  # cosine from which a chain says what was asked
MARGIN = 0.03  # by which it must do so better than any single hop

_MOST = 4  # hops of a chain
_WIDTH = 6  # steps from one place that are looked at
_BEAM = 8  # chains of one length that are gone on with
_MANY = 64  # edits and facts of one place that are looked through for a way on
_SAME = 0.95  # cosine from which a fact and an edit of one subject ask for the same

_THIS = re.compile(r"\bthis\b")
_NAMED = re.compile(
    r"[\"'\u201c\u2018]?(?:\b(?:the|an?) )?\bthis\b[\"\u201d\u2019]?", re.IGNORECASE
)
_ASKED = re.compile(r"(?:who|what|which(?: \w+)?) (?:is|was|are|were) ", re.IGNORECASE)
_COPULA = re.compile(r" (?:is|was|are|were)$")
_FILLERS = frozenset("this s the a an of is was are were in to by name who what which".split())

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

    asked: Vectors  # (d,): the question, that subject masked
    place: Place
    left: frozenset[Place] = frozenset()
    steps: tuple[_Step, ...] = ()
    score: float = 0.0

    @property
    def follows(self) -> bool:
        """Is there more than one hop, and an edit among them?"""
        return len(self.steps) > 1 and any(step.hit for step in self.steps)

    @property
    def rank(self) -> tuple[float, int]:
        """The best score is first; of equal ones, that with more edits."""
        return self.score, sum(step.hit is not None for step in self.steps)


class Hops:
    """Routes questions among live edits, and along chains of edits and facts."""

    def __init__(self, router: Router, encoder: Encoder, facts: FactBase) -> None:
        self.facts = facts
        self._router = router
        self._encoder = encoder

    def route(self, questions: Sequence[str], asker: Audience = EVERYONE) -> list[Route]:
        """A route a question: the router's, or a chain where the question holds more than that."""
        routes = self._router.route(questions, asker)
        return [
            self._further(question, route, asker)
            for question, route in zip(questions, routes, strict=True)
        ]

    def _further(self, question: str, route: Route, asker: Audience) -> Route:
        taught = any(normalise(hit.edit.prompt) == normalise(question) for hit in route.hits)
        chains = [] if taught else self._chains(question, asker)
        best = max((c for c in chains if c.follows), key=lambda c: c.rank, default=None)
        single = max((c.score for c in chains if len(c.steps) == 1), default=0.0)
        if best is None or best.score < max(FIRES, single + MARGIN):
            return route
        hits = tuple(replace(step.hit, score=best.score) for step in best.steps if step.hit)
        return replace(route, hits=hits, chain=tuple(step.hop for step in best.steps))

    def _chains(self, question: str, asker: Audience) -> list[_Chain]:
        """All that were looked at, scored; none where no place leads on to another."""
        mentioned = self._router.mentioned(question, asker, self.facts.gate)
        places = [self.facts.entity(" ".join(m.subject)) for m in mentioned]
        if not any(self._leads_on(place, asker) for place in places):
            return []
        asked = self._encoder.encode([_plain(focus(question, m.spans)) for m in mentioned])
        starts = [_Chain(*start) for start in zip(asked, places, strict=True)]
        found: list[_Chain] = []
        longer = list(self._longer(starts, asker))
        while longer:
            scored = self._scored(longer)
            found += scored
            best = nlargest(_BEAM, scored, key=lambda chain: chain.rank)
            longer = list(self._longer(best, asker))
        return found

    def _leads_on(self, place: Place, asker: Audience) -> bool:
        """May there be more than one hop from here?  Of a place with many edits that is assumed."""
        edits = self._router.about(" ".join(place), asker)
        said: list[Edit | Reference] = [*edits, *self.facts.about(place)]
        ends = {self._place(known.target, asker) for known in said[:_MANY]}
        return len(said) > _MANY or any(self._is_known(end, asker) for end in ends)

    def _is_known(self, place: Place, asker: Audience) -> bool:
        return bool(self.facts.about(place) or self._router.about(" ".join(place), asker))

    def _longer(self, chains: Iterable[_Chain], asker: Audience) -> Iterator[_Chain]:
        """These chains with each step that leads on from where they are; none goes in circles."""
        for chain in chains:
            if chain.place in chain.left or len(chain.steps) == _MOST:
                continue
            for step in self._steps(chain, asker):
                yield replace(
                    chain,
                    place=self._place(step.hop.target, asker),
                    left=chain.left | {chain.place},
                    steps=(*chain.steps, step),
                )

    def _scored(self, chains: Sequence[_Chain]) -> list[_Chain]:
        said = self._encoder.encode([compose([s.clause for s in c.steps]) for c in chains])
        return [
            replace(chain, score=float(chain.asked @ vector))
            for chain, vector in zip(chains, said, strict=True)
        ]

    def _steps(self, chain: _Chain, asker: Audience) -> list[_Step]:
        """What edits say of the place, and what facts say that no edit says otherwise."""
        hits = self._router.nearest(chain.asked, chain.place, asker, _WIDTH)
        edited = [_Step(_hop(hit.edit, f"edit {hit.id}"), _clause(hit.edit), hit) for hit in hits]
        facts = [
            _Step(_hop(fact, f"fact {fact.id}"), _clause(fact), None)
            for fact in self.facts.about(chain.place)
        ]
        return [*edited, *self._open(facts, edited, chain.asked)]

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
        place = self.facts.entity(name)
        whole = len(subject_key(name))
        spelt = (
            m.subject
            for m in self._router.mentioned(name, asker, self.facts.gate)
            if m.subject == place or len(m.subject) >= whole
        )
        return self.facts.entity(" ".join(next(spelt, place)))


def compose(clauses: Sequence[str]) -> str:
    """What a chain asks, in its hops' own words: each clause about what the one before asks for."""
    said = "this"
    for clause in clauses[:-1]:
        said = _about(_phrase(clause), said)
    return _about(clauses[-1], said)


def conclusion(chain: Sequence[Hop], method: str) -> tuple[Edit, str]:
    """The edit that a chain amounts to, and what there is to know for it."""
    first, last = chain[0], chain[-1]
    known = " ".join(f"{hop.prompt.strip()} {hop.target}." for hop in chain)
    return Edit(last.prompt, last.target, subject=first.subject, method=method), known


def _about(clause: str, what: str) -> str:
    return _THIS.sub(lambda _: what, clause, count=1)


def _phrase(clause: str) -> str:
    """A clause as a noun phrase: "Who is the head of this?" as "the head of this"."""
    said = clause.strip().rstrip("?. ")
    if asked := _ASKED.match(said):
        return said[asked.end() :]
    return f"what {said}" if said.startswith("this ") else _COPULA.sub("", said)


def _hop(known: Edit | Reference, source: str) -> Hop:
    relation = " ".join(_told(_clause(known)))
    return Hop(known.subject or "", known.prompt, relation, known.target, source)


def _clause(known: Edit | Reference) -> str:
    """How an edit or a fact asks, its subject masked."""
    clause = masked(known.prompt, known.subject) if known.subject else None
    if clause is None or not _told(clause):  # not mentioned, or cut off at a point in its name
        clause = known.prompt.replace(known.subject or "", "this") if known.subject else ""
    return _plain(clause or known.prompt)


def _plain(clause: str) -> str:
    """A clause without quotes and articles around the subject: they belong to its name."""
    return _NAMED.sub("this", clause)


def _told(clause: str) -> list[str]:
    return [word.folded for word in words(clause) if word.folded not in _FILLERS]
