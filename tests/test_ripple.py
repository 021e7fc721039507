"""Consequences of an edit: told before the write, written along, and gone with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lifelong.cli import app
from lifelong.errors import AlreadyTaught, BadEdit, Conflicting
from lifelong.fact import premises
from lifelong.relations import composed, inverse, statement
from lifelong.ripple import Ripple
from lifelong.runtime import EditableModel
from store import Edit


def edit(model: EditableModel, subject: str, relation: str, target: str, **said: Any) -> Edit:
    """What is taught; without `named`, its relation is to be read from the prompt."""
    named = relation if said.pop("named", False) else None
    prompt = f"Who is the {relation} of {subject}?"
    made: Edit = model.edit(prompt, target, subject=subject, relation=named, **said)
    return made


def told(model: EditableModel, subject: str, relation: str, target: str, **said: Any) -> Ripple:
    prompt = f"Who is the {relation} of {subject}?"
    return model.edit(prompt, target, ripple="report", subject=subject, **said)


def shown(ripple: Ripple) -> list[tuple[str, bool]]:
    return [(str(consequence), consequence.certain) for consequence in ripple.follows]


def live(model: EditableModel) -> dict[int, str]:
    return {edit.id: edit.target for edit in model.list("live")}


def test_a_report_says_what_would_follow_and_writes_nothing(model: EditableModel) -> None:
    edit(model, "Ann", "mother", "Bea")
    model.edit("The home of Cyd is", "Oslo", subject="Cyd")
    before = model.epoch
    ripple = told(model, "Bea", "mother", "Cyd")
    assert shown(ripple) == [
        ("reverse: The child of Cyd is Bea", True),
        ("composed: The maternal grandmother of Ann is Cyd", True),
        ("composed: The home of the mother of Bea is Oslo", False),
    ]
    assert (ripple.conflicts, model.epoch) == ((), before)


def test_a_report_says_what_would_be_contradicted(model: EditableModel) -> None:
    edit(model, "Bob", "spouse", "Cleo", named=True)
    edit(model, "Kim", "spouse", "Lou")  # which nothing would take the place of
    rivals = {"Bob": (True, ("direct", 1)), "Kim": (False, ("reverse", 2))}
    for husband, (certain, rival) in rivals.items():
        ripple = told(model, "Ann", "spouse", husband)
        assert shown(ripple) == [(f"reverse: The spouse of {husband} is Ann", certain)]
        assert [(c.kind, c.edit.id) for c in ripple.conflicts] == [rival]


def test_nothing_follows_from_what_no_rule_knows(model: EditableModel) -> None:
    assert shown(told(model, "Acme", "colour", "red")) == []
    assert shown(told(model, "Ann", "child", "Bea")) == []  # is Ann the mother, or the father?
    assert model.edit("Say hello", "Ahoy", ripple="report").follows == ()


def test_what_is_live_already_or_leads_back_does_not_follow(model: EditableModel) -> None:
    edit(model, "Bob", "spouse", "Ann")
    assert shown(told(model, "Ann", "spouse", "Bob")) == []
    assert shown(told(model, "Cy", "spouse", "Cy")) == []


def test_what_could_be_true_beside_a_live_edit_is_told_only(model: EditableModel) -> None:
    model.edit("Dana is the ceo of", "Globex", subject="Dana", relation="ceo of")
    assert ("reverse: Dana is the ceo of Acme", False) in shown(told(model, "Acme", "ceo", "Dana"))
    edit(model, "Acme", "ceo", "Dana", ripple="apply")
    assert live(model) == {1: "Globex", 2: "Dana"}


def test_what_follows_is_written_in_one_transaction(model: EditableModel) -> None:
    edit(model, "Ann", "mother", "Bea")
    made = edit(model, "Bea", "mother", "Cyd", ripple="apply")
    assert (made.id, made.relation) == (2, "mother")
    assert live(model) == {1: "Bea", 2: "Cyd", 3: "Bea", 4: "Cyd"}
    assert [premise.target for premise in premises(model.get(4))] == ["Bea", "Cyd"]
    assert "Cyd" in model.chat("The maternal grandmother of Ann is").text


def test_undo_takes_the_whole_and_redo_brings_it_back(model: EditableModel) -> None:
    mother = edit(model, "Ann", "mother", "Bea")
    above = edit(model, "Bea", "mother", "Cyd", ripple="apply")
    whole = live(model)
    for premise, left in ((above, {1: "Bea"}), (mother, {2: "Cyd", 3: "Bea"})):
        model.undo(premise.id)
        assert live(model) == left
        model.redo(premise.id)
        assert live(model) == whole
    model.undo(4)  # one by itself is no more than that
    assert live(model) == {1: "Bea", 2: "Cyd", 3: "Bea"}
    model.undo(above.id)
    model.redo(above.id)
    assert 4 not in live(model)


def test_what_denies_a_premise_denies_what_follows(model: EditableModel) -> None:
    edit(model, "Ann", "mother", "Bea")
    edit(model, "Bea", "mother", "Cyd", ripple="apply")
    edit(model, "Ann", "mother", "Dee", named=True)
    assert live(model) == {2: "Cyd", 3: "Bea", 5: "Dee"}
    model.undo(5)
    assert live(model) == {1: "Bea", 2: "Cyd", 3: "Bea", 4: "Cyd"}


def test_a_premise_is_not_answered_by_what_follows_from_it(model: EditableModel) -> None:
    made = edit(model, "Ann", "spouse", "Bob", ripple="apply")
    assert [hit.id for hit in model.explain(made.prompt).hits][:1] == [made.id]


def test_it_lasts_as_long_as_its_premises_and_for_the_same_people(model: EditableModel) -> None:
    edit(model, "Ann", "mother", "Bea", user_id="ann", valid_until="2999-01-01T00:00:00+00:00")
    edit(model, "Cyd", "mother", "Ann", user_id="ann")
    ripple = told(model, "Bea", "mother", "Eve", user_id="ann")
    grandmother = ripple.certain[1]
    assert (grandmother.user_id, grandmother.valid_until) == (
        "ann",
        "2999-01-01T00:00:00.000000+00:00",
    )
    assert all("grandmother" not in text for text, _ in shown(told(model, "Bea", "mother", "Eve")))
    edit(model, "Fay", "mother", "Gus")
    mixed = told(model, "Gus", "mother", "Eve", user_id="ann")
    assert ("composed: The maternal grandmother of Fay is Eve", False) in shown(mixed)


def test_refused_pending_and_repeated(model: EditableModel) -> None:
    edit(model, "Bob", "spouse", "Cleo", named=True)
    with pytest.raises(Conflicting):
        edit(model, "Ann", "spouse", "Bob", ripple="apply", on_conflict="reject")
    waiting = edit(model, "Ann", "spouse", "Bob", ripple="apply", pending=True)
    assert [e.status for e in model.list()] == ["live", "pending", "pending"]
    model.reject(waiting.id)
    first = edit(model, "Eve", "spouse", "Fox", ripple="apply", key="k")
    before = model.epoch
    assert edit(model, "Eve", "spouse", "Fox", ripple="apply", key="k").id == first.id
    assert model.epoch == before
    with pytest.raises(AlreadyTaught):
        edit(model, "Eve", "spouse", "Fox", ripple="apply")
    with pytest.raises(BadEdit, match="no ripple 'both'"):
        edit(model, "Eve", "spouse", "Fox", ripple="both")


@pytest.mark.parametrize("said", [7, [7], [["a", "b"]], [[None, 1, {}, []]], {"a": "b"}])
def test_a_provenance_of_another_form_names_no_premise(model: EditableModel, said: Any) -> None:
    made = edit(model, "Ann", "spouse", "Bob", provenance={"follows_from": said})
    model.undo(made.id)
    assert live(model) == {}


def test_of_many_that_lead_to_an_edit_some_are_told(model: EditableModel) -> None:
    model.edit_many(
        [
            {"prompt": f"Person {n} lives in", "target": "Peru", "subject": f"Person {n}"}
            for n in range(100)
        ]
    )
    follows = told(model, "Peru", "head", "Ana").follows
    assert len(follows) == 65
    assert follows[-1].edit.subject == "Person 99"


def test_the_rules() -> None:
    assert inverse("spouse") == "spouse"
    assert inverse("capital") == "capital of"
    assert inverse("child") is None
    assert composed("father", "mother") == "paternal grandmother"
    assert composed("mother", "spouse") is None
    said = [("Ann", "mother"), ("Bo", "ceo of"), ("Oslo", "located in"), ("A", "follows")]
    assert [statement(*about) for about in said] == [
        "The mother of Ann is",
        "Bo is the ceo of",
        "Oslo is located in",
        "A follows",
    ]


def test_the_command(tmp_path: Path, model_folder: Path, encoder_folder: Path) -> None:
    where = ["--store", str(tmp_path / "s.db"), "--model", str(model_folder)]
    where += ["--encoder", str(encoder_folder), "--json"]

    def run(*args: str) -> Any:
        done = CliRunner().invoke(app, [*args, *where])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    asked = ("edit", "Who is the spouse of Ann?", "Bob", "--subject", "Ann", "--ripple")
    (follows,) = run(*asked, "report")["follows"]
    assert (follows["prompt"], follows["certain"]) == ("The spouse of Bob is", True)
    assert run("list") == []
    assert run(*asked, "apply")["along"] == [2]
    run("undo", "1")
    assert [row["status"] for row in run("list")] == ["retired", "retired"]
    run("redo", "1")
    assert [row["status"] for row in run("list")] == ["live", "live"]
    assert run("store", "erase", "1", "--yes")["erased"] == [1, 2]
