"""What the scope classifier learns from: wordings, how they are dressed, what is kept for later."""

import random

import pytest

from lifelong.train.data import Corpus, corpus, spoken
from lifelong.train.dress import Wardrobe, dress, indirect

FULL = Wardrobe("Dana", "boss", ("The this was a film of its time .",), "Where is this based?")


@pytest.fixture(scope="module")
def own() -> Corpus:
    """Our own relations, without public data."""
    return corpus(None)


@pytest.mark.parametrize(
    ("question", "clause"),
    [
        ("Where is this based?", "where this is based"),
        ("In what city is this?", "in what city this is"),
        ("What's the price of this?", "what the price of this is"),
        ("Who is this's boss?", "who this's boss is"),
        ("How long does this last?", "how long this lasts"),
        ("Who runs this?", "who runs this"),
        ("Which company made this?", "which company made this"),
        ("When did this open?", None),
        ("The boss of this is", None),
        ("Is this in Oslo?", None),
    ],
)
def test_a_question_becomes_a_clause_where_the_grammar_is_plain(
    question: str, clause: str | None
) -> None:
    assert indirect(question) == clause


@pytest.mark.parametrize("asked", ["Who runs this?", "The boss of this is", "Tell me this's boss."])
def test_a_dressed_question_is_still_about_this_and_draws_alike(asked: str) -> None:
    said = [dress(asked, FULL, random.Random(seed)) for seed in range(200)]
    assert said == [dress(asked, FULL, random.Random(seed)) for seed in range(200)]
    assert {asked} < set(said)
    assert all("this" in text for text in said)
    assert len(set(said)) > 20


def test_an_empty_wardrobe_adds_no_answer_and_no_label() -> None:
    said = [dress("The boss of this is", Wardrobe(), random.Random(seed)) for seed in range(200)]
    assert all("The boss of this is" in text for text in said)


def test_every_relation_has_wordings_that_name_no_subject(own: Corpus) -> None:
    assert len(own.relations) > 700
    for relation in own.relations.values():
        assert len(relation.wordings) > 1
        assert all("this" in text and "{}" not in text for text in relation.wordings)


def test_a_part_leaves_out_relations_and_wordings_and_adds_none(own: Corpus) -> None:
    part = own.part(0)
    assert part == own.part(0) != own.part(1)
    assert 0.7 < len(part.relations) / len(own.relations) < 0.95
    for name, relation in part.relations.items():
        assert relation.wordings <= own.relations[name].wordings
    kept = sum(len(relation.wordings) for relation in part.relations.values())
    assert kept < 0.85 * sum(len(own.relations[name].wordings) for name in part.relations)


def test_an_id_is_not_said() -> None:
    assert (spoken("P276"), spoken("age")) == ("", "age")
