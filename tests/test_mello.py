"""The loop of MeLLo, its model played by a script: what it asks, adopts, and when it ends."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lifelong.asking import BASE, asking
from lifelong.errors import BadEdit
from lifelong.facts import FactBase
from lifelong.mello import Mello
from lifelong.router import Route, Router
from lifelong.runtime import EditableModel
from lifelong.scope import CosineScope
from store import Audience, Edit, Journal

LEADS = "Who leads the country of citizenship of Ellie Kemper?"
CITIZEN = "What is the country of citizenship of Ellie Kemper?"
EDITS = (
    Edit("The country of citizenship of Ellie Kemper is", "Croatia", "Ellie Kemper"),
    Edit("Who leads Croatia?", "Ana Horvat", "Croatia"),
)
FIRST = f"{CITIZEN}\nTentative answer: Peru.\nKnown fact:"
SECOND = "Subquestion: Who leads Croatia?\nTentative answer: Ivo Novak\nKnown fact:"

BEGIN = f"Question: {LEADS}\nSubquestion:"

Script = Mapping[str, str]  # the end of what the model reads -> what it says


class Unsure(CosineScope):
    """Never so sure of a hit that nothing is left to ask."""

    def score(self, *args: Any, **kwargs: Any) -> Any:
        return 0.8 * super().score(*args, **kwargs)


@pytest.fixture
def loop(hash_encoder: Any) -> Callable[..., Route]:
    """`loop(script, question)`: the route of a question over EDITS."""
    journal = Journal.open(":memory:", model="m", encoder=hash_encoder.fingerprint)
    router = Router(journal, hash_encoder, Unsure())
    journal.record(EDITS, None, router.encode(EDITS))
    router.sync(journal)
    mello = Mello(router, hash_encoder, FactBase())

    def follow(script: Script, question: str = LEADS) -> Route:
        def say(text: str) -> str:
            return next(said for end, said in script.items() if text.rstrip().endswith(end))

        (route,) = asking(lambda told: mello.route([question], Audience(), told), say)
        return route

    return follow


def shown(route: Route) -> list[tuple[str, str]]:
    return [(hop.target, hop.source) for hop in route.chain]


def test_the_published_loop(loop: Callable[..., Route]) -> None:
    route = loop(
        {
            BEGIN: FIRST,
            f"{CITIZEN}\nTentative answer: Peru\nKnown fact: The country of citizenship of Ellie "
            "Kemper is Croatia.": f"Contradiction: yes. Answer: Croatia\n{SECOND} and so on",
            "Known fact: Who leads Croatia? Ana Horvat.": "Contradiction: yes. Answer: Ana Horvat\n"
            "Final answer: Ana Horvat\n\nQuestion:",
        }
    )
    assert shown(route) == [("Croatia", "edit 1"), ("Ana Horvat", "edit 2")]
    assert [hit.id for hit in route.hits] == [1, 2]


def test_what_no_edit_is_about_is_the_models_to_answer(loop: Callable[..., Route]) -> None:
    rounds = {
        BEGIN: "Where was Ellie Kemper born?\nTentative answer: Rome\nKnown fact:",
        "Rome\nKnown fact: none": f"Contradiction: no. Answer: Rome\n{SECOND}",
        "Known fact: Who leads Croatia? Ana Horvat.": "Contradiction: no. Answer: Ivo Novak\n"
        "Final answer: Ivo Novak",
    }
    assert not loop(rounds).chain  # it took nothing from an edit
    adopting = {end: said.replace("no. Answer: Ivo", "yes. Answer: Ana Horvat,") for end, said in
                rounds.items()}  # fmt: skip
    assert shown(loop(adopting)) == [
        ("Rome", BASE),
        ("Ana Horvat, Novak", "edit 2"),
        ("Ivo Novak", BASE),
    ]


def test_a_subquestion_that_comes_again_ends_the_loop(loop: Callable[..., Route]) -> None:
    same = f"Contradiction: yes. Answer: Croatia\nSubquestion: {FIRST}"
    again = {BEGIN: FIRST, "is Croatia.": same}
    assert shown(loop(again)) == [("Croatia", "edit 1")]


def test_there_are_at_most_four_rounds(loop: Callable[..., Route]) -> None:
    asked = iter(range(10))

    class Endless(dict[str, str]):
        def items(self) -> Any:
            say = f"Who leads Croatia in {next(asked)}?\nTentative answer: Ana Horvat"
            yield BEGIN, say
            yield "", f"Contradiction: no. Answer: Ana Horvat\nSubquestion: {say}"

    assert len(loop(Endless()).chain) == 4


@pytest.mark.parametrize(
    "said",
    ["", "Ellie Kemper is an actress.", "Who?", "Who?\nFinal answer: Ana Horvat", FIRST],
)
def test_a_model_that_leaves_the_form_is_told_of(
    loop: Callable[..., Route], caplog: pytest.LogCaptureFixture, said: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not loop({BEGIN: said, "": "no idea"}).chain
    assert "does not keep to the form of MeLLo" in caplog.text


def test_nothing_is_asked_where_the_hit_covers_the_question_or_nobody_is_known(
    loop: Callable[..., Route],
) -> None:
    assert [hit.id for hit in loop({}, "Who leads Croatia?").hits] == [2]
    assert not loop({}, "Tell me a joke, please.").hits


def test_a_model_is_wrapped_with_it(make_model: Callable[..., EditableModel]) -> None:
    model = make_model(multihop="mello")
    for edit in EDITS:
        model.edit(edit.prompt, edit.target, subject=edit.subject)
    assert not model.explain(LEADS).chain  # random weights keep to no form
    assert "Ana Horvat" in model.chat("Who leads Croatia?").text
    with pytest.raises(BadEdit, match="no multihop 'all'"):
        make_model(multihop="all")
