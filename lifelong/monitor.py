"""The retention monitor: what was taught is asked again, what must not change is compared.

A reading holds, by free greedy generation through the chat template, where there is one (survey:
Wang et al. 2023, section 4):

    accuracy          Eq. 3   share of the sampled edits whose own prompt gets the target
    generality        Eq. 8   mean over edits of the share of their paraphrases that get it
    locality          Eq. 6   as agreement: mean over edits of the share of their out-of-scope
                              probes that get the base model's own reply
    retainability     Eq. 10  (A_now - A_first) / edits since, A being the accuracy of a reading; it
                              fades as the stream grows, so accuracy by age stands beside it
    accuracy_by_age           accuracy in each tenth of the live edits, oldest first
    false_fires               ordinary sentences (`ordinary.py`) on which an edit fires
    reply_perplexity          median over the edits' replies, each under the base model
    conflicts, damaged        live edits that contradict each other; edits not as they were written

Every edit is asked about as those ask for whom it is live: everyone, a tenant, one user.
None stands for what cannot be computed: no edits, no probes, no earlier reading, no time left.
`counts` has what the shares of accuracy, generality, locality and of the oldest tenth are made of:
[right, asked].
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from math import inf
from statistics import fmean, median
from time import perf_counter

from lifelong.fact import Fact, facts
from lifelong.lm import LM
from lifelong.match import same, says
from lifelong.ordinary import ORDINARY
from lifelong.perplexity import perplexity, strangest, surprise
from lifelong.router import EVERYONE, FIRES
from lifelong.subject import normalise
from lifelong.view import Answer, View
from store import JSON, Audience, Edit, Journal, Reading

SAMPLE = 20  # edits that a check re-asks
MEASURES = ("accuracy", "generality", "locality")

_NEW_TOKENS = 48
_GREEDY = {"do_sample": False, "num_beams": 1}  # whatever the model's own settings are
_BATCH = 24
_AGES = 10  # groups, from the oldest edits to the newest
_EVENTS = 5_000  # of the journal that one check verifies; the next one goes on from there


class Budget:
    """Seconds that may be spent on asking, batch by batch; before each, chats go first."""

    def __init__(
        self,
        seconds: float = inf,
        give_way: Callable[[], object] = lambda: None,
        stopped: Callable[[], bool] = lambda: False,
        batch: int = _BATCH,
    ) -> None:
        self.batch = batch
        self._seconds = self._left = seconds
        self._give_way = give_way
        self._stopped = stopped

    def again(self) -> "Budget":
        """As much again."""
        return Budget(self._seconds, self._give_way, self._stopped, self.batch)

    @property
    def over(self) -> bool:
        """Whether no further batch may begin."""
        return self._left <= 0 or self._stopped()

    @contextmanager
    def spend(self) -> Iterator[None]:
        """One batch. Time in which others went first does not count."""
        self._give_way()
        began = perf_counter()
        try:
            yield
        finally:
            self._left -= perf_counter() - began


Answering = Callable[[Audience], View]
Asked = tuple[Edit, str]  # a question of an edit


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one question of one edit, and the measure that it counts for."""

    measure: str
    edit: Edit
    question: str
    answer: Answer
    right: bool


@dataclass(frozen=True)
class Findings:
    """A reading's body, and what stands behind its figures."""

    body: dict[str, JSON]
    results: Sequence[Result]
    strays: Mapping[int, Mapping[str, float]]  # edit -> ordinary sentences -> its score
    strange: Mapping[int, float]  # edit -> `strangest` of the reply it shaped
    conflicts: Sequence[tuple[int, int]]
    damaged: Sequence[int]


@dataclass
class Monitor:
    """Looks at a model through what answers an audience `now`; where edits are off, `unedited`.

    `at` gives the same as of an epoch. What the base model says is asked once, and kept.
    """

    lm: LM
    journal: Journal
    now: Answering
    at: Callable[[int], Answering]
    unedited: Callable[[], AbstractContextManager[object]]
    _base: dict[str, str] = field(default_factory=dict)  # its own replies
    _verified: int = 0  # the epoch up to which the journal was verified in this round

    def look(self, sample: int, fresh: int = 0, budget: Budget | None = None) -> Findings:
        """Ask about `sample` live edits, evenly spread by age, and about the `fresh` newest.

        Own prompts go first; then, edits by edits, paraphrases and what must not change, as far as
        the budget goes. What is no longer live at the end is left out.
        """
        began, budget = perf_counter(), budget or Budget()
        live, earlier = self.journal.live(), self.journal.readings()
        edits = _chosen(live, sample, fresh, turn=len(earlier))
        damaged, conflicts, strays = self._damaged(), _conflicts(live), self._strays(edits)
        own, nats = self._own(edits, budget)
        others = list[Result]()
        for start in range(0, len(edits), budget.batch):
            some = edits[start : start + budget.batch]
            others += self._told(
                "generality", [(e, p) for e in some for p in e.paraphrases], budget
            )
            others += self._kept(_probes(some, live), budget)
        still = set(self.journal.live_ids())
        results = [result for result in [*own, *others] if result.edit.id in still]
        body: dict[str, JSON] = {
            "edits": max((edit.id for edit in live), default=0),
            "live": len(live),
            **_scores(results, live, earlier),
            "reply_perplexity": median(map(perplexity, nats.values())) if nats else None,
            "false_fires": len(
                {s for some in strays.values() for s, score in some.items() if score >= FIRES}
            ),
            "conflicts": [list(pair) for pair in conflicts],
            "damaged": list(damaged),
            "seconds": round(perf_counter() - began, 2),
        }
        strange = {id: strangest(values) for id, values in nats.items()}
        return Findings(body, results, strays, strange, conflicts, damaged)

    def unchanged(
        self, view: View, replies: Mapping[str, Answer], budget: Budget
    ) -> dict[str, bool]:
        """Question -> whether the base model replies as `view` did, as far as the budget goes.

        Where no edit fired, a difference counts only if it is there in equal batches: padding
        decides the last bits of logits, and they can decide a word.
        """
        found = {q: same(answer.text, self._base[q]) for q, answer in replies.items()}
        doubtful = [q for q, answer in replies.items() if not found[q] and not answer.edits]
        with self.unedited():
            alone = dict(answers(self.now(EVERYONE), doubtful, budget))
        again = dict(answers(view, list(alone), budget))
        kept = {q: same(answer.text, alone[q].text) for q, answer in again.items()}
        return {q: right for q, right in found.items() if q not in doubtful} | kept

    def _own(
        self, edits: Sequence[Edit], budget: Budget
    ) -> tuple[list[Result], dict[int, list[float]]]:
        """Replies to the edits' own prompts; how each that an edit shaped surprises the base model.

        The second is token by token, in nats.
        """
        results, nats = list[Result](), dict[int, list[float]]()
        for start in range(0, len(edits), budget.batch):
            asked = [(edit, edit.prompt) for edit in edits[start : start + budget.batch]]
            some = list(self._told("accuracy", asked, budget))
            shaped = [result for result in some if result.answer.edits]
            view = self.now(EVERYONE)
            prompts = [view.question(result.question).text for result in shaped]
            with budget.spend(), self.unedited():
                found = surprise(self.lm, prompts, [result.answer.text for result in shaped])
                nats |= {r.edit.id: of for r, of in zip(shaped, found, strict=True)}
            results += some
        return results, nats

    def _told(self, measure: str, asked: Sequence[Asked], budget: Budget) -> Iterator[Result]:
        for audience, some in by_audience(asked).items():
            view = self.now(audience)
            replies = dict(answers(view, [question for _, question in some], budget))
            for edit, question in some:
                if answer := replies.get(question):
                    right = says(answer.text, edit.target, edit.old)
                    yield Result(measure, edit, question, answer, right)

    def _kept(self, asked: Sequence[Asked], budget: Budget) -> Iterator[Result]:
        unknown = [question for _, question in asked if question not in self._base]
        with self.unedited():
            found = answers(self.now(EVERYONE), unknown, budget)
            self._base |= {question: answer.text for question, answer in found}
        for audience, some in by_audience(asked).items():
            view = self.now(audience)
            known = [question for _, question in some if question in self._base]
            replies = dict(answers(view, known, budget))
            kept = self.unchanged(view, replies, budget)
            for edit, question in some:
                if question in kept:
                    yield Result("locality", edit, question, replies[question], kept[question])

    def _strays(self, edits: Sequence[Edit]) -> dict[int, dict[str, float]]:
        """The edits that fire on ordinary sentences, or nearly do, with their scores.

        Among those for everyone, and those that the audiences of `edits` see.
        """
        strays = defaultdict[int, dict[str, float]](dict)
        for audience in dict.fromkeys([EVERYONE, *(edit.audience for edit in edits)]):
            for sentence, route in zip(ORDINARY, self.now(audience).routes(ORDINARY), strict=True):
                for hit in (*route.hits, *route.near):
                    strays[hit.id][sentence] = hit.score
        return strays

    def _damaged(self) -> list[int]:
        since, epoch = self._verified, self.journal.epoch
        until = min(since + _EVENTS, epoch)
        self._verified = until if until < epoch else 0
        return self.journal.damaged(since, until)


def by_audience(asked: Iterable[Asked]) -> dict[Audience, list[Asked]]:
    """Questions of edits by whom they are live for: one view answers them together."""
    found: dict[Audience, list[Asked]] = defaultdict(list)
    for edit, question in asked:
        found[edit.audience].append((edit, question))
    return found


def ask(
    view: View, questions: Iterable[str], *, max_new_tokens: int = _NEW_TOKENS
) -> Iterator[tuple[str, str]]:
    """(question, reply) as they come, each question once: batches of questions alike in length."""
    alike = sorted(dict.fromkeys(questions), key=lambda q: len(view.question(q).text))
    for question, answer in answers(view, alike, Budget(), max_new_tokens=max_new_tokens):
        yield question, answer.text


def answers(
    view: View, questions: Sequence[str], budget: Budget, *, max_new_tokens: int = _NEW_TOKENS
) -> Iterator[tuple[str, Answer]]:
    """(question, answer) in order, each question once, for as long as the budget lasts."""
    once = list(dict.fromkeys(questions))
    for start in range(0, len(once), budget.batch):
        if budget.over:
            return
        batch = once[start : start + budget.batch]
        with budget.spend():
            prompts = [view.question(question) for question in batch]
            found = view.answers(prompts, max_new_tokens=max_new_tokens, **_GREEDY)
        yield from zip(batch, found, strict=True)


def _chosen(live: Sequence[Edit], sample: int, fresh: int, turn: int) -> list[Edit]:
    """One edit of each of `sample` equal spans of age, in turn; then the `fresh` newest."""
    n, spans = len(live), min(sample, len(live))
    edges = [i * n // spans for i in range(spans + 1)] if spans else []
    spread = [low + turn % (high - low) for low, high in pairwise(edges)]
    return [live[i] for i in dict.fromkeys([*spread, *range(n - 1, max(0, n - fresh) - 1, -1)])]


def _probes(edits: Iterable[Edit], live: Iterable[Edit]) -> list[Asked]:
    """What must not change with these edits, unless a live edit teaches them that very question."""
    taught = {(normalise(edit.prompt), edit.audience) for edit in live}
    return [
        (edit, probe)
        for edit in edits
        for probe in edit.locality
        if not any((normalise(probe), level) in taught for level in edit.audience.levels)
    ]


def _conflicts(live: Iterable[Edit]) -> list[tuple[int, int]]:
    """(newer, older) ids of live edits that say different things about one fact to the same."""
    stating: dict[tuple[Fact, Audience], list[Edit]] = defaultdict(list)
    for edit in live:
        for fact in facts(edit):
            stating[fact, edit.audience].append(edit)
    pairs = (pair for edits in stating.values() for pair in combinations(edits, 2))
    return sorted({(b.id, a.id) for a, b in pairs if not same(a.target, b.target)})


def _scores(
    results: Sequence[Result], live: Sequence[Edit], earlier: Sequence[Reading]
) -> dict[str, JSON]:
    of = {name: [r for r in results if r.measure == name] for name in MEASURES}
    accuracy = _macro(of["accuracy"])
    right = {result.edit.id: result.right for result in of["accuracy"]}
    oldest = {edit.id for edit in _ages(live)[0]} if live else set()
    of["oldest"] = [result for result in of["accuracy"] if result.edit.id in oldest]
    return {
        "sampled": len(right),
        "accuracy": accuracy,
        "generality": _macro(of["generality"]),
        "locality": _macro(of["locality"]),
        "retainability": _retainability(accuracy, len(live), earlier),
        "accuracy_by_age": [
            _mean(float(right[edit.id]) for edit in group if edit.id in right)
            for group in _ages(live)
        ],
        "forgotten": [id for id in sorted(right) if not right[id]],
        "counts": {name: [sum(r.right for r in some), len(some)] for name, some in of.items()},
    }


def _macro(results: Iterable[Result]) -> float | None:
    """The mean over edits of the share of their results that are right."""
    of_edit = defaultdict(list)
    for result in results:
        of_edit[result.edit.id].append(float(result.right))
    return _mean(map(fmean, of_edit.values()))


def _retainability(accuracy: float | None, live: int, earlier: Sequence[Reading]) -> float | None:
    for reading in earlier:
        then, first = reading.body.get("live"), reading.body.get("accuracy")
        if isinstance(then, int) and isinstance(first, float):
            return None if accuracy is None or live <= then else (accuracy - first) / (live - then)
    return None


def _ages(live: Sequence[Edit]) -> list[Sequence[Edit]]:
    """The live edits, oldest first, in up to `_AGES` groups of nearly equal size."""
    n = min(_AGES, len(live))
    return [live[i * len(live) // n : (i + 1) * len(live) // n] for i in range(n)]


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None
