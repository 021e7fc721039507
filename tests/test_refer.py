"""Follow-ups: said in full where they leave to the turns before whom they are about; else as is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong import EditableModel
from lifelong.refer import Turn, guessed, in_full

NAMES = ("Acme", "Globex", "Ann Lee")
ASKED = "Who runs Acme?"


def known(text: str) -> list[str]:
    """Those of three subjects that a text names, the first one first."""
    return sorted((name for name in NAMES if name in text), key=text.index)


@pytest.mark.parametrize(
    ("asked", "follow_up", "full"),
    [
        ("Where is Acme?", "And who runs it now?", "And who runs Acme now?"),
        ("Where is Acme?", "Who is its founder?", "Who is Acme's founder?"),
        ("Where is Acme?", "OK. Who founded the company?", "OK. Who founded Acme?"),
        ("Where is Acme?", "Who is the boss there?", "Who is the boss in Acme?"),
        ("Where is Acme?", "And the founder?", "And the founder of Acme?"),
        ("Where is Acme?", "What about the legal form?", "What about the legal form of Acme?"),
        ("Where is Acme?", "What about Globex?", "Where is Globex?"),
        ("Where is Acme?", "And Globex?", "Where is Globex?"),
        ("Where is Acme?", "Does Initech own it?", "Does Initech own Acme?"),
        ("Was Ann Lee rich?", "Who married her in 1990?", "Who married Ann Lee in 1990?"),
        ("Was Ann Lee rich?", "Who was her father?", "Who was Ann Lee's father?"),
        ("Who was Ann Lee?", "Where was she born?", "Where was Ann Lee born?"),
        # Another is meant, or nobody.
        ("Where is Acme?", "Who runs Paris?", None),
        ("Where is Acme?", "Paris is nice. Who is its mayor?", None),
        ("Where is Acme?", "And Initech?", None),
        ("Where is Acme?", "Who runs Globex?", None),
        ("Where is Acme?", "Does Globex own it?", None),
        ("Where is Acme?", "What time is it?", None),
        ("Where is Acme?", "Is it true that cats purr?", None),
        ("Where is Acme?", "And the capital of france?", None),
        ("Where is Acme?", "Thanks!", None),
        ("Where is Initech?", "And who runs it now?", None),
        ("What is a firm?", "And who runs it now?", None),
        ("Who runs Acme?", "Where was she born?", None),
    ],
)
def test_a_follow_up_is_said_in_full(asked: str, follow_up: str, full: str | None) -> None:
    assert in_full(follow_up, [Turn(asked, "Well.")], known) == (full or follow_up)


def test_it_leans_on_the_last_turn_that_leans_on_none() -> None:
    talk = [
        Turn("Where is Acme?", "In Oslo."),
        Turn("When was it founded?", "1999."),
        Turn("Ok", ""),
    ]
    assert in_full("Who runs it?", talk, known) == ASKED
    assert (
        in_full("Who runs it?", [*talk, Turn("Is Initech older?", "No.")], known) == "Who runs it?"
    )
    assert (
        in_full("Who runs it?", [*talk, Turn("Tell a joke about cats", "")], known)
        == "Who runs it?"
    )
    assert in_full("And Globex?", talk, known) == "When was Globex founded?"


def test_a_person_asked_for_is_the_one_in_the_reply() -> None:
    talk = [Turn(ASKED, "Ann Lee runs Acme.")]
    assert in_full("Where was she born?", talk, known) == "Where was Ann Lee born?"
    assert in_full("Where is it?", talk, known) == "Where is Acme?"


def test_without_known_subjects_the_likeliest_is_meant() -> None:
    assert in_full("And who runs it?", [Turn("Ok, where is Initech?", "")], guessed) == (
        "And who runs Initech?"
    )
    assert guessed("Can I ask who runs it?") == guessed("ok") == guessed("1999") == []


@given(st.text(max_size=60), st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30))))
def test_any_text_is_read(question: str, talk: list[tuple[str, str]]) -> None:
    turns = [Turn(*turn) for turn in talk]
    assert in_full(question, turns, lambda _: []) == question
    assert in_full(question, [], guessed) == question


def test_a_turn_before_counts(model: EditableModel) -> None:
    edit = model.edit(ASKED, "Jane Roe", subject="Acme")
    talk = said("Where is Acme?", "In Oslo.", "And who runs it?")
    answer = model.chat(talk, max_new_tokens=40)
    assert [hit.id for hit in answer.edits] == [edit.id]
    assert "Jane Roe" in answer.text
    assert [hit.id for hit in model.explain(talk).hits] == [edit.id]
    assert [hit.id for hit in model.at(model.epoch).chat(talk).edits] == [edit.id]
    assert "".join(model.chat(talk, max_new_tokens=40, stream=True)).strip() == answer.text
    for alone in ("And who runs it?", said("Where is Paris?", "In France.", "And who runs it?")):
        assert model.chat(alone).edits == ()
    with model.disable_edits():
        assert model.chat(talk).edits == ()
    model.undo(edit.id)
    assert model.chat(talk).edits == ()


def test_what_was_taught_word_for_word_is_asked_as_it_is(model: EditableModel) -> None:
    model.edit(ASKED, "Jane Roe", subject="Acme")
    edit = model.edit("And who runs it?", "nobody", subject="it")
    talk = said("Where is Acme?", "In Oslo.", "And who runs it?")
    assert [hit.id for hit in model.chat(talk).edits] == [edit.id]


def test_another_users_subjects_are_not_meant(model: EditableModel) -> None:
    model.edit(ASKED, "Jane Roe", subject="Acme", user_id="ann")
    talk = said("Where is Acme?", "In Oslo.", "And who runs it?")
    assert model.chat(talk, user_id="ann").edits
    assert not model.chat(talk, user_id="bob").edits


def test_unrelated_follow_ups_are_the_base_models(model: EditableModel) -> None:
    model.edit(ASKED, "Jane Roe", subject="Acme")
    talk = said("Where is Acme?", "In Oslo.", "How is the weather there?")
    ids = generated(model, talk)
    with model.disable_edits():
        assert torch.equal(ids, generated(model, talk))


def generated(model: EditableModel, talk: list[dict[str, str]]) -> torch.Tensor:
    inputs = model.tokenizer.apply_chat_template(
        talk, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    return model.generate(inputs["input_ids"], max_new_tokens=12, do_sample=False)


def said(*texts: str) -> list[dict[str, str]]:
    """A conversation; the user speaks first."""
    return [
        {"role": ("user", "assistant")[place % 2], "content": text}
        for place, text in enumerate(texts)
    ]
