"""Conflicts are found before the write, and the caller says what becomes of the edit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lifelong.errors import BadEdit, Conflicting
from lifelong.relations import back, is_order, is_single, relation_of
from lifelong.runtime import EditableModel
from store import Edit

DATA = Path(__file__).parents[1] / "../shared/data/conflicts"


def taught(model: EditableModel, *facts: tuple[str, str, str]) -> EditableModel:
    """With edits (subject, relation, target), their relations named."""
    for subject, relation, target in facts:
        model.edit(asking(subject, relation), target, subject=subject, relation=relation)
    return model


def asking(subject: str, relation: str) -> str:
    return f"Who is the {relation} of {subject}?"


def found(model: EditableModel, subject: str, relation: str, target: str) -> list[tuple[str, int]]:
    """(kind, id) for an edit whose relation stands in its prompt only."""
    edit = Edit(asking(subject, relation), target, subject)
    return [(conflict.kind, conflict.edit.id) for conflict in model.conflicts(edit)]


def test_a_second_value_of_one_fact_is_a_direct_conflict(model: EditableModel) -> None:
    taught(model, ("Acme", "ceo", "Dana"), ("Globex", "ceo", "Zed"))
    assert found(model, "Acme", "ceo", "Kim") == [("direct", 1)]
    assert found(model, "Initech", "ceo", "Dana") == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("Dana", "ceo of", "Acme"), ("Acme", "ceo", "Kim")),
        (("Acme", "ceo", "Dana"), ("Kim", "ceo of", "Acme")),
        (("Ann", "mother", "Bea"), ("Bea", "child", "Cid")),
        (("Bea", "child", "Cid"), ("Ann", "mother", "Bea")),
        (("Goya", "notable work", "Saturn"), ("Saturn", "creater", "Strauss")),
        (("Ann", "spouse", "Bob"), ("Bob", "spouse", "Cleo")),
    ],
)
def test_the_same_relation_read_backwards_is_a_reverse_conflict(
    model: EditableModel, first: tuple[str, str, str], second: tuple[str, str, str]
) -> None:
    taught(model, first)
    assert found(model, *second) == [("reverse", 1)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("Acme", "ceo", "Dana"), ("Dana", "ceo of", "Acme")),
        (("Ann", "mother", "Bea"), ("Bea", "child", "Ann")),
        (("Ann", "spouse", "Bob"), ("Bob", "spouse", "Ann")),
        (("Ann", "mother", "Bea"), ("Bea", "mother", "Cleo")),
        (("Ann", "mother", "Bea"), ("Bea", "spouse", "Cid")),
        (("Acme", "ceo", "Dana"), ("Dana", "flavour", "Kim")),
    ],
)
def test_what_agrees_is_no_conflict(
    model: EditableModel, first: tuple[str, str, str], second: tuple[str, str, str]
) -> None:
    taught(model, first)
    assert found(model, *second) == []


def test_a_relation_that_leads_back_to_its_start_is_a_cycle(model: EditableModel) -> None:
    taught(model, ("Ann", "mother", "Bea"), ("Bea", "mother", "Cleo"), ("Cleo", "mother", "Dee"))
    assert found(model, "Dee", "mother", "Ann") == [("cycle", 3)]
    assert found(model, "Cleo", "mother", "Ann") == [("direct", 3), ("cycle", 2)]
    assert found(model, "Dee", "mother", "Eve") == []
    taught(model, ("Dee", "mother", "Ann"))  # a cycle that is there does not hang the search
    assert found(model, "Zoe", "mother", "Ann") == []


def test_a_near_duplicate_needs_the_subject_and_like_words(model: EditableModel) -> None:
    model.edit("Who runs Acme now?", "Dana")
    near, far = (
        model.conflicts(Edit(prompt, "Kim"))
        for prompt in ("Say who runs Acme now?", "Who runs Globex now?")
    )
    assert [(conflict.kind, conflict.edit.id) for conflict in near] == [("near-duplicate", 1)]
    assert 0.7 <= near[0].score < 1
    assert far == []
    assert model.conflicts(Edit("When was Acme founded?", "1999")) == []


def test_an_edit_is_refused_waits_or_takes_the_place(model: EditableModel) -> None:
    taught(model, ("Ann", "mother", "Bea"))
    asked = asking("Bea", "child")
    epoch = model.epoch
    with pytest.raises(Conflicting, match=r"reverse, edit 1: .* -> Bea"):
        model.edit(asked, "Cid", on_conflict="reject")
    assert model.epoch == epoch
    waiting = model.edit(asked, "Cid", on_conflict="review")
    assert (waiting.status, model.review()) == ("pending", [waiting])
    assert [conflict.edit.id for conflict in model.conflicts(waiting.id)] == [1]
    for policy in ("reject", "review"):
        assert model.edit(f"Where is {policy}?", "Here", on_conflict=policy).status == "live"  # type: ignore[arg-type]
    replaced = model.edit(asking("Ann", "mother"), "Eve", subject="Ann", relation="mother")
    assert (replaced.status, model.get(1).status) == ("live", "superseded")
    with pytest.raises(BadEdit, match="no policy"):
        model.edit(asked, "Dan", on_conflict="maybe")  # type: ignore[arg-type]


def test_conflicts_are_those_of_its_audience(model: EditableModel) -> None:
    model.edit("Who runs Acme?", "Dana", tenant="red")
    for tenant, others in (("red", [1]), ("blue", [])):
        asked = Edit("Who runs Acme?", "Kim", user_id="ann", tenant=tenant)
        assert [conflict.edit.id for conflict in model.conflicts(asked)] == others
    assert model.conflicts(Edit("Who runs Acme?", "Kim")) == []


@pytest.mark.parametrize(
    ("prompt", "relation"),
    [
        ("Who is the mother of Ann?", "mother"),
        ("The creater of Ann is", "creator"),
        ("Who was Ann's spouse?", "spouse"),
        ("Where does the mother of Ann live?", None),
        ("Ann", None),
    ],
)
def test_a_relation_is_read_from_a_plain_prompt_only(prompt: str, relation: str | None) -> None:
    assert relation_of(Edit(prompt, "Bea", subject="Ann")) == relation


def test_relations_know_the_way_back() -> None:
    assert back("child") == {"mother", "father", "parent"}
    assert back("ceo") == {"ceo of"}
    assert back("flavour") == frozenset()
    assert is_single("prime minister")
    assert not is_single("child")
    assert is_order("parent company")
    assert not is_order("spouse")


@pytest.mark.parametrize("name", ["coverage", "reverse"])
def test_pairs_that_contradict_each_other_are_found(
    make_model: Callable[..., EditableModel], name: str
) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is missing")
    text = (DATA / f"{name}-edit-dev.jsonl").read_text(encoding="utf-8")
    cases = [json.loads(line)["edits"] for line in text.splitlines()[:40]]
    hits = 0
    for first, second in cases:
        model = make_model()
        model.edit_many([_edit(first)])
        hits += [c.edit.id for c in model.conflicts(_edit(second))] == [1]
    assert hits == len(cases)


def _edit(edit: dict[str, dict[str, str]]) -> Edit:
    subject = edit["subject"]["label"]
    return Edit(
        edit["relation"]["query"].format(subject), edit["new_object"]["label"], subject=subject
    )
