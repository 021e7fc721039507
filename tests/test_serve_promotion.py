"""How a correction is heard in a chat, and how it spreads from its author to all."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lifelong.runtime import EditableModel
from lifelong.serve import heard
from lifelong.serve.metrics import Metrics
from lifelong.serve.promotion import Canary, Promotion
from lifelong.serve.settings import Settings
from store import Edit

CHIEF = "Who is the chief of Acme?"
NEAR = "Who is the chief of Acme, please?"


# -- heard ---------------------------------------------------------------------------------------


def after(said: str, question: str = CHIEF, answer: str = "Bob Smith is.") -> list[dict[str, str]]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": said},
    ]


@pytest.mark.parametrize(
    ("said", "target"),
    [
        ("No, it's Jane Roe.", "Jane Roe"),
        ("No, it is Jane Roe", "Jane Roe"),
        ("Wrong, Jane Roe.", "Jane Roe"),
        ("Actually, the chief is Jane Roe.", "Jane Roe"),
        ("That's wrong, it is Jane Roe now.", "Jane Roe"),
        ("You are mistaken: it's 42.", "42"),
        ("Nope. Jane Roe", "Jane Roe"),
    ],
)
def test_a_correction_is_heard(said: str, target: str) -> None:
    fact = heard.correction(after(said))
    assert fact is not None
    assert (fact.prompt, fact.target) == (CHIEF, target)


@pytest.mark.parametrize(
    "said",
    [
        "No",
        "No, thanks.",
        "No, I meant the other one",
        "No idea, tell me",
        "No, is it Jane Roe?",
        "Actually, tell me about Oslo?",
        "Nobody knows that.",
        "It's Jane Roe.",
        "Thanks! Jane Roe told me so.",
        "No, it's Bob Smith.",
        "No, ignore\nall that: it's Jane Roe.",
        "No, it's " + "Jane Roe and " * 40,
    ],
)
def test_other_talk_is_not_taken_for_one(said: str) -> None:
    assert heard.correction(after(said)) is None


def test_only_the_users_own_last_word_on_his_own_question_counts() -> None:
    turns = after("No, it's Jane Roe.")
    assert heard.correction(turns[2:]) is None
    assert heard.correction(turns[1:]) is None
    assert heard.correction([*turns, {"role": "assistant", "content": "Is it?"}]) is None
    turns[2]["role"] = "system"
    assert heard.correction(turns) is None


def test_what_was_asked_is_confirmed_by_yes_alone() -> None:
    fact = heard.correction(after("No, it's Jane Roe."))
    assert fact is not None
    turns = [{"role": "assistant", "content": heard.asking(fact)}, {"role": "user", "content": ""}]
    for said, counts in [("Yes.", True), ("ok!", True), ("yes, please", True), ("no", False),
                         ("yes, but it is Ann", False), ("", False)]:  # fmt: skip
        turns[1]["content"] = said
        found = heard.confirmed(turns)
        assert (found is not None) == counts
        assert found is None or found[:2] == fact[:2]
    assert heard.confirmed([{"role": "user", "content": heard.asking(fact)}, turns[1]]) is None


# -- promotion -----------------------------------------------------------------------------------

Promote = Callable[..., Promotion]


@pytest.fixture
def promote(model: EditableModel) -> Iterator[Promote]:
    """`promote(**settings)`: what promotes the edits of `model`."""
    made: list[Promotion] = []

    def make(**settings: Any) -> Promotion:
        made.append(Promotion(model, Settings(**settings), Metrics()))
        return made[-1]

    yield make
    for promotion in made:
        promotion.close()


def told(model: EditableModel, user: str, tenant: str | None = "a", target: str = "Jane") -> Edit:
    return model.edit(CHIEF, target, user_id=user, tenant=tenant)


def hears(model: EditableModel, tenant: str | None = "a") -> bool:
    return "Jane" in model.chat(CHIEF, user_id="somebody", tenant=tenant, max_new_tokens=24).text


def test_the_canary_keeps_what_breaks_nothing(model: EditableModel, promote: Promote) -> None:
    model.edit("Where is Acme?", "Oslo", locality=["What is the time?"])
    outcome = promote().widen(told(model, "ann"), "everyone", "reviewed")
    assert outcome.breach is None
    assert outcome.before.right == outcome.after.right == {1: True}
    assert list(outcome.after.kept) == ["What is the time?"]
    assert hears(model, "b")
    reasons = [event.body.get("reason") for event in model.history(outcome.edit.id)]
    assert reasons == [None, "reviewed (before: 1 of 1 right, 0 stray)"]


def test_a_breach_makes_the_edit_its_authors_again(model: EditableModel, promote: Promote) -> None:
    edit = model.edit(CHIEF, "Jane", user_id="ann", tenant="a", locality=[NEAR])
    outcome = promote().widen(edit, "tenant", "reviewed")
    assert outcome.breach == f"the answer to {NEAR!r} changed"
    assert not hears(model)
    assert "Jane" in model.chat(CHIEF, user_id="ann", tenant="a", max_new_tokens=24).text
    assert "canary" in str(model.history(edit.id)[-1].body["reason"])


def test_what_a_breach_is() -> None:
    fine = Canary({1: True, 2: False}, {"q": "Yes."}, frozenset())
    assert fine.breach(fine) is None
    assert fine.breach(Canary({2: False}, {"q": "yes"}, frozenset())) is None  # 1 was replaced
    assert fine.breach(Canary({1: True, 2: True}, {"q": "Yes."}, frozenset())) is None
    assert "no longer" in str(fine.breach(Canary({1: False}, {}, frozenset())))
    assert "changed" in str(fine.breach(Canary({}, {"q": "No."}, frozenset())))
    assert "fires on" in str(fine.breach(Canary({}, {}, frozenset({"Good morning."}))))


def test_what_waits_goes_live_through_the_same_door(model: EditableModel, promote: Promote) -> None:
    edit = model.edit(CHIEF, "Jane", user_id="ann", tenant="a", pending=True)
    outcome = promote().widen(edit, "tenant", "reviewed")
    assert outcome.edit.status == "live"
    assert hears(model)
    assert not hears(model, "b")


def test_a_quorum_is_of_users_of_one_tenant(model: EditableModel, promote: Promote) -> None:
    promotion = promote(quorum=2)
    first = told(model, "ann")
    promotion.consider(first, trusted=False)
    promotion.consider(told(model, "ann2", "b"), trusted=False)
    promotion.consider(told(model, "bob", target="Jim"), trusted=False)
    promotion._thread.submit(int).result()
    assert not hears(model)
    promotion.consider(told(model, "cid"), trusted=False)
    promotion._thread.submit(int).result()
    assert hears(model)
    assert not hears(model, "b")
    assert model.get(first.id).user_id is None  # the first who said so


def test_a_trusted_role_needs_nobody_else(model: EditableModel, promote: Promote) -> None:
    promotion = promote()
    promotion.consider(told(model, "ann"), trusted=True)
    promotion._thread.submit(int).result()
    assert hears(model)
    assert not hears(model, "b")


def test_what_was_undone_meanwhile_is_not_promoted(model: EditableModel, promote: Promote) -> None:
    promotion, edit = promote(), told(model, "ann")
    model.undo(edit.id)
    promotion.consider(edit, trusted=True)
    promotion._thread.submit(int).result()
    assert not hears(model)
    assert model.get(edit.id).status == "retired"
