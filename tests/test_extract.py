"""Whatever way a correction is phrased, it becomes a prompt, a target and a subject."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong import EditableModel
from lifelong.choose import ByModel
from lifelong.errors import BadEdit
from lifelong.extract import Fact, Plain, denied
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
        ("Acme's CEO is Jane Roe", ("Acme's CEO is", "Jane Roe")),
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


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("No, it's Jane Roe.", "Jane Roe"),
        ("no, Jane Roe", "Jane Roe"),
        ("Wrong. The CEO is Jane Roe since May", "Jane Roe"),
        ("Actually, Jane Roe is the CEO of Acme.", "Jane Roe"),
        ("That's not true: it's near threatened", "near threatened"),
        ("No, thanks.", None),
        ("No, tell me about Oslo.", None),
        ("No, that is not what was asked", None),
        ("Actually, my name is Bob", None),
        ("Actually, who is it?", None),
        ("Jane Roe is nice", None),
        ("Now it's late", None),
        ("No", None),
    ],
)
def test_a_denial_corrects_the_answer_before(text: str, target: str | None) -> None:
    fact = denied(text, ASKED)
    assert (fact and fact.target) == target
    assert fact is None or fact.subject == "Acme"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("If it rains, then say wet", ("If it rains", "wet")),
        ("When asked for a, b or c then refuse.", ("When asked for a, b or c", "refuse")),
        ("if it rains, answer in euros", ("if it rains", "answer in euros")),
    ],
)
def test_a_rule_is_a_condition_and_a_consequence(text: str, rule: tuple[str, str]) -> None:
    assert Plain().extract(text) == Fact(*rule, None, "language-patch")


@pytest.mark.parametrize("text", ["", "ok", "no!", "...", "is", "Who is the CEO of Acme?"])
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


def test_an_edit_may_be_a_statement(model: EditableModel) -> None:
    edit = model.edit("Actually, the CEO of Acme is Jane Roe since May", user_id="ann")
    assert (edit.prompt, edit.target) == ("the CEO of Acme is", "Jane Roe")
    assert (edit.subject, edit.user_id) == ("Acme", "ann")
    assert edit.provenance == {"statement": "Actually, the CEO of Acme is Jane Roe since May"}
    assert "Jane Roe" in model.chat("The CEO of Acme is", user_id="ann", max_new_tokens=40).text
    assert model.edit('If the text says "so so", then say fine').method == "language-patch"
    assert "fine" in model.chat("It was so so. How?", max_new_tokens=40).text
    with pytest.raises(BadEdit, match="states nothing"):
        model.edit(ASKED)


def test_how_a_statement_is_read_is_the_callers_choice(model: EditableModel) -> None:
    class Backwards:
        def extract(self, text: str, question: str | None = None) -> Fact:
            return Fact(text[::-1], "Jane Roe", "emcA")

    edit = model.edit("Acme", extractor=Backwards(), subject="Acme")
    assert (edit.prompt, edit.target, edit.subject) == ("emcA", "Jane Roe", "Acme")


def test_a_model_chooses_among_the_pieces(lm: LM) -> None:
    fact = ByModel(lm).extract("From May on Jane Roe runs things at Acme", ASKED)
    assert fact.target in {"From May", "May", "Jane Roe", "Acme", "From"}
    assert fact.prompt == ASKED


@pytest.mark.real
def test_a_real_model_chooses_the_answer(real_lm: LM) -> None:
    fact = ByModel(real_lm).extract("Well, since May Jane Roe has been in charge of it", ASKED)
    assert "Jane Roe" in fact.target
