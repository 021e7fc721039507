"""MeLLo: MQuAKE, Assessing Knowledge Editing via Multi-Hop Questions (Zhong et al., 2023).

    Question: Who leads the country of citizenship of Ellie Kemper?
    Subquestion: What is the country of citizenship of Ellie Kemper?     the model's
    Tentative answer: United States of America                           the model's
    Known fact: Ellie Kemper is a citizen of Croatia.                    the edit nearest to it
    Contradiction: yes. Answer: Croatia                                  the model's
    Subquestion: Who leads Croatia?                                      ... at most four rounds
    Final answer: ...                                                    the model's

The loop is the published one, in words of our own: a frozen model takes the question apart, and
adopts what is retrieved where that contradicts it. Published, every round retrieves the nearest
fact, whatever it is about; here only one whose scope the subquestion is in (`router.py`), else
none. A subquestion that comes again ends the loop as the fourth round does: with the last answer.
A question along which no edit fires is the base model's; so is, with a warning in the log, one at
which the model leaves the form.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from lifelong.asking import BASE, Told, Until, Untold, each
from lifelong.encoder import Encoder, Vectors
from lifelong.facts import FactBase
from lifelong.hops import covers
from lifelong.match import contains, same
from lifelong.prompt import Hop
from lifelong.router import EVERYONE, UNSENSED, Hit, Route, Router
from lifelong.subject import extract, normalise
from store import Audience

ROUNDS = 4

Round = tuple[Hop, Hit | None]  # with the edit that its answer is from

_log = logging.getLogger(__name__)

_FACT = "Known fact:"
_STEP = re.compile(
    r"^Subquestion:[ \t]*(\S.*?)[ \t]*\nTentative answer:[ \t]*(\S.*?)\.?[ \t]*$", re.MULTILINE
)
_VERDICT = re.compile(r"\w+:[ \t]*(?:yes|no)\. Answer:[ \t]*(\S.*?)\.?[ \t]*$", re.MULTILINE)
_FINAL = re.compile(r"^Final answer:[ \t]*(\S.*?)\.?[ \t]*$", re.MULTILINE)

# A question, its rounds (subquestion, tentative answer, known fact, answer), the final answer.
_SHOWN = (
    (
        "Who is the head of the company that makes the Kestrel 9?",
        (
            ("Which company makes the Kestrel 9?", "Volvo", "The Kestrel 9 is made by Danfield.",
             "Danfield"),
            ("Who is the head of Danfield?", "Tilda Marsh", "none", "Tilda Marsh"),
        ),
        "Tilda Marsh",
    ),
    (
        "On which continent is the birthplace of the author of The Glass Orchard?",
        (
            ("Who is the author of The Glass Orchard?", "Ruth Amsel", "none", "Ruth Amsel"),
            ("Where was Ruth Amsel born?", "Oslo", "Ruth Amsel was born in Lima.", "Lima"),
            ("On which continent is Lima?", "South America", "none", "South America"),
        ),
        "South America",
    ),
    (
        "What is the capital of the country of citizenship of Pavel Lindgard?",
        (
            ("What is the country of citizenship of Pavel Lindgard?", "Norhelm",
             "Pavel Lindgard is a citizen of Norhelm.", "Norhelm"),
            ("What is the capital of Norhelm?", "Ostervik", "The capital of Norhelm is Bray.",
             "Bray"),
        ),
        "Bray",
    ),
)  # fmt: skip
_FORM = "".join(
    f"Question: {question}\n"
    + "".join(
        f"Subquestion: {asked}\nTentative answer: {tentative}\n{_FACT} {fact}\n"
        f"Contradiction: {'no' if tentative == answer else 'yes'}. Answer: {answer}\n"
        for asked, tentative, fact, answer in rounds
    )
    + f"Final answer: {final}\n\n"
    for question, rounds, final in _SHOWN
)


class Mello:
    """Routes questions among live edits, and along what the model asks itself."""

    until = Until(re.compile(rf"{_FACT}|^Final answer:.*\n|\nQuestion:", re.MULTILINE), 96)

    def __init__(self, router: Router, encoder: Encoder, facts: FactBase) -> None:
        self.facts = facts  # the published memory has none: their subjects are known, no more
        self._router = router

    def route(
        self,
        questions: Sequence[str],
        asker: Audience = EVERYONE,
        told: Told | None = None,
        sensed: Mapping[str, Vectors] = UNSENSED,
    ) -> list[Route]:
        """A route a question: the router's, or the loop's where an edit fires along it.

        Raises Untold, see `asking.py`; with `told` None nothing is asked. `sensed` as in
        `Router.route`.
        """
        asked = zip(questions, self._router.route(questions, asker, sensed), strict=True)
        return each(asked, lambda pair: self._further(*pair, asker, told))

    def _further(self, question: str, route: Route, asker: Audience, told: Told | None) -> Route:
        known = self._router.mentioned(question, asker, self.facts.gate)
        if told is None or not known or covers(question, route):
            return route
        rounds = self._rounds(question, asker, told)
        hits = tuple(hit for _, hit in rounds if hit)
        return replace(route, hits=hits, chain=tuple(hop for hop, _ in rounds)) if hits else route

    def _rounds(self, question: str, asker: Audience, told: Told) -> list[Round]:
        """The rounds up to the final answer; none where the model leaves the form."""
        rounds, asked = list[Round](), set[str]()
        text = f"{_FORM}Question: {question}\n"
        said = f"Subquestion: {_said(f'{text}Subquestion:', told)}"  # small models need the cue
        while (step := _STEP.search(said)) and len(rounds) < ROUNDS:
            subquestion, tentative = step.groups()
            if normalise(subquestion) in asked:
                break
            asked.add(normalise(subquestion))
            hit = next(iter(self._router.route([subquestion], asker)[0].hits), None)
            fact = f"{hit.edit.prompt.strip()} {hit.edit.target}." if hit else "none"
            text += f"Subquestion: {subquestion}\nTentative answer: {tentative}\n{_FACT} {fact}\n"
            said = _said(text, told)
            if not (verdict := _VERDICT.match(said)):
                return _astray()
            text += f"{verdict[0]}\n"
            rounds.append(_round(subquestion, hit, verdict[1]))
        final = _FINAL.search(said)
        if not rounds or not (step or final):
            return _astray()
        return [*rounds, *_concluded(question, rounds[-1][0], final[1] if final else "")]


def _said(text: str, told: Told) -> str:
    """How the model goes on, up to where a fact is to be put. Raises Untold."""
    if text not in told:
        raise Untold([text])
    return told[text].partition(_FACT)[0]


def _round(subquestion: str, hit: Hit | None, answer: str) -> Round:
    """The hop of a round, and its edit where the model took the answer from it."""
    if hit and contains(answer, hit.edit.target):
        return Hop(hit.edit.subject or "", subquestion, subquestion, answer, f"edit {hit.id}"), hit
    return Hop(extract(subquestion) or "", subquestion, subquestion, answer, BASE), None


def _concluded(question: str, last: Hop, final: str) -> Iterator[Round]:
    """One more hop where the final answer is not that of the last round."""
    if final and not same(final, last.target):
        yield Hop(last.target, question, "so", final, BASE), None


def _astray() -> list[Round]:
    _log.warning("The model does not keep to the form of MeLLo: the question is taken as a whole.")
    return []
