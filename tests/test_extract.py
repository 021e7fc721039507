"""Whatever way a correction is phrased, it becomes a prompt, a target and a subject."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.errors import BadEdit
from lifelong.extract import ByModel, Fact, Plain
from lifelong.lm import LM
from lifelong.subject import visible

ASKED = "Who runs Acme?"


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("The CEO of Acme is Jane Roe.", ("The CEO of Acme is", "Jane Roe")),
        ("Actually, the CEO of Acme is Jane Roe since May", ("the CEO of Acme is", "Jane Roe")),
        ("Acme is led by Jane Roe now.", ("Acme is led by", "Jane Roe")),
        ("Jane Roe is the new CEO of Acme", ("Who is the CEO of Acme?", "Jane Roe")),
        ("Acme moved to Oslo", ("Acme moved to", "Oslo")),
        ("No, Acme was founded in 1999, not 1998.", ("Acme was founded in", "1999")),
        ("The status of Acme is near threatened", ("The status of Acme is", "near threatened")),
    ],
)  # fmt: skip
def test_a_statement_becomes_a_fact(text: str, fact: tuple[str, str]) -> None:
    assert Plain().extract(text) == Fact(*fact, "Acme")


@pytest.mark.parametrize(
    "text",
    ["Jane Roe", "No, it's Jane Roe.", "Actually, the CEO is Jane Roe since May", "It is Jane Roe"],
)  # fmt: skip
def test_what_was_asked_before_supplies_the_subject(text: str) -> None:
    assert Plain().extract(text, ASKED) == Fact(ASKED, "Jane Roe", "Acme")


@pytest.mark.parametrize("text", ["", "ok", "no!", "...", "is"])
def test_without_a_fact_it_says_so(text: str) -> None:
    with pytest.raises(BadEdit):
        Plain().extract(text)


@given(st.text(max_size=80), st.none() | st.just(ASKED))
def test_a_target_is_never_made_up(text: str, question: str | None) -> None:
    try:
        fact = Plain().extract(text, question)
    except BadEdit:
        return
    assert fact.target in visible(text)


def test_a_model_chooses_among_the_pieces(lm: LM) -> None:
    fact = ByModel(lm).extract("From May on Jane Roe runs things at Acme", ASKED)
    assert fact.target in {"From May", "May", "Jane Roe", "Acme", "From"}
    assert fact.prompt == ASKED


@pytest.mark.real
def test_a_real_model_chooses_the_answer(real_lm: LM) -> None:
    fact = ByModel(real_lm).extract("Well, since May Jane Roe has been in charge of it", ASKED)
    assert "Jane Roe" in fact.target
