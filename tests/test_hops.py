"""Chains of hops: which are followed, which never are, and what is said of them."""

from collections.abc import Callable
from typing import Any

import pytest

from lifelong.asking import BASE, asking
from lifelong.clause import compose
from lifelong.facts import FactBase
from lifelong.hops import Hops
from lifelong.match import contains
from lifelong.router import Router
from lifelong.runtime import EditableModel
from lifelong.scope import CosineScope
from store import Audience, Edit, Journal, Reference

ALL = Audience()
LEADS = "Who leads the country of citizenship of Ellie Kemper?"
CITIZEN = ("The country of citizenship of Ellie Kemper is", "Croatia", "Ellie Kemper")
LEADER = ("Who leads Croatia?", "Ana Horvat", "Croatia")

Say = tuple[str, str, str]


@pytest.fixture
def model(make_model: Callable[..., EditableModel]) -> EditableModel:
    """A tiny Llama that follows chains."""
    return make_model(multihop=True)


@pytest.fixture
def hops(hash_encoder: Any) -> Callable[..., Hops]:
    """`hops(*says, facts=)`: over a store of edits (prompt, target, subject)."""

    def make(*says: Say, facts: tuple[Reference, ...] = ()) -> Hops:
        journal = Journal.open(":memory:", model="m", encoder=hash_encoder.fingerprint)
        edits = [Edit(prompt, target, subject) for prompt, target, subject in says]
        router = Router(journal, hash_encoder, CosineScope())
        journal.record(edits, None, router.encode(edits))
        router.sync(journal)
        return Hops(router, hash_encoder, FactBase(facts))

    return make


def told(hops: Hops, question: str, asker: Audience = ALL) -> list[str]:
    return [str(hop) for hop in hops.route([question], asker)[0].chain]


def test_a_chain_of_edits_is_followed_and_named(hops: Callable[..., Hops]) -> None:
    route = hops(CITIZEN, LEADER).route([LEADS])[0]
    assert [str(hop) for hop in route.chain] == [
        "Ellie Kemper -country of citizenship-> Croatia (edit 1)",
        "Croatia -leads-> Ana Horvat (edit 2)",
    ]
    assert [hit.id for hit in route.hits] == [1, 2]


def test_a_single_hop_question_is_the_routers(hops: Callable[..., Hops]) -> None:
    both = hops(CITIZEN, LEADER)
    for question in ("What is the country of citizenship of Ellie Kemper?", "Who leads Croatia?"):
        route = both.route([question])[0]
        assert not route.chain
        assert len(route.hits) == 1


def test_what_an_edit_was_taught_or_nobody_knows_costs_no_more(
    hops: Callable[..., Hops], hash_encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = hops(CITIZEN, LEADER)
    encoded: list[list[str]] = []
    encode = type(hash_encoder).encode
    monkeypatch.setattr(
        type(hash_encoder), "encode", lambda self, t: encoded.append(list(t)) or encode(self, t)
    )
    for question, texts in (("Who leads Croatia?", ["Who leads this?"]), ("Sing a song!", [])):
        encoded.clear()
        both.route([question], ALL, {})
        assert [text for call in encoded for text in call] == texts


def test_no_hop_is_looked_for_where_the_hits_words_are_the_questions(
    hops: Callable[..., Hops], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = hops(CITIZEN, LEADER)
    monkeypatch.setattr(both, "_starts", None)
    asked = "Of what country has Ellie Kemper citizenship?"
    assert [hit.id for hit in both.route([asked], ALL, {})[0].hits] == [1]
    with pytest.raises(TypeError):
        both.route([LEADS], ALL, {})


def test_a_hop_that_the_question_does_not_ask_for_is_not_taken(hops: Callable[..., Hops]) -> None:
    spouse = ("The one to whom Ana Horvat is in marriage is", "Bo", "Ana Horvat")
    assert told(hops(CITIZEN, LEADER, spouse), LEADS)[-1].endswith("Ana Horvat (edit 2)")


def test_a_question_without_an_entity_has_no_chain(hops: Callable[..., Hops]) -> None:
    assert told(hops(CITIZEN, LEADER), "Who leads the country of citizenship?") == []
    assert told(hops(CITIZEN, LEADER), "Tell me a joke, please.") == []


def test_a_fact_may_be_a_hop_but_never_all_of_them(hops: Callable[..., Hops]) -> None:
    leader = Reference("Croatia", "The one who leads Croatia is", "Ivo Novak", id=4)
    citizen = Reference("Ellie Kemper", CITIZEN[0], "Croatia", id=5)
    assert told(hops(CITIZEN, facts=(leader,)), LEADS)[-1].endswith("Ivo Novak (fact 4)")
    assert told(hops(facts=(citizen, leader)), LEADS) == []
    assert told(hops(LEADER, facts=(citizen, leader)), LEADS)[-1].endswith("(edit 1)")


def test_an_edit_takes_the_place_of_the_fact_it_corrects(hops: Callable[..., Hops]) -> None:
    fact = Reference("Ellie Kemper", CITIZEN[0], "Norway", id=1)
    norway = ("Who leads Norway?", "Kari Lund", "Norway")
    assert told(hops(CITIZEN, LEADER, norway, facts=(fact,)), LEADS)[-1].endswith("(edit 2)")


def test_another_name_leads_to_the_same_place(hops: Callable[..., Hops]) -> None:
    alias = Reference("Croatia", "alias", "Hrvatska", id=1)
    citizen = (CITIZEN[0], "Hrvatska", "Ellie Kemper")
    assert told(hops(citizen, LEADER), LEADS) == []
    assert told(hops(citizen, LEADER, facts=(alias,)), LEADS)[-1].endswith("(edit 2)")
    assert told(hops((CITIZEN[0], "the Croatia", "Ellie Kemper"), LEADER), LEADS)


def test_a_name_with_initials_leads_on(hops: Callable[..., Hops]) -> None:
    country = (CITIZEN[0], "A. A. Milne", "Ellie Kemper")
    assert told(hops(country, ("Who leads A. A. Milne?", "Ana", "A. A. Milne")), LEADS)


def test_cycles_and_self_reference_end(hops: Callable[..., Hops]) -> None:
    circle = hops(
        ("The boss of Ann is", "Bob", "Ann"),
        ("The boss of Bob is", "Ann", "Bob"),
        ("The boss of Cy is", "Cy", "Cy"),
    )
    chain = told(circle, "Who is the boss of the boss of Ann?")
    assert [hop.partition("> ")[2] for hop in chain] == ["Bob (edit 1)", "Ann (edit 2)"]
    assert (
        told(circle, "Who is the boss of the boss of the boss of the boss of the boss of Cy?") == []
    )


def test_of_two_objects_of_one_relation_the_newest_is_taken(hops: Callable[..., Hops]) -> None:
    two = hops(CITIZEN, LEADER, ("Who leads Croatia?", "Iva Matic", "Croatia"))
    assert told(two, LEADS)[-1].endswith("Iva Matic (edit 3)")


def test_a_place_with_ten_thousand_edits(hops: Callable[..., Hops]) -> None:
    many = [(f"Ticket {n} at Croatia's zoo costs", f"{n} cents", "Croatia") for n in range(10_000)]
    assert told(hops(CITIZEN, LEADER, *many), LEADS)[-1].endswith("Ana Horvat (edit 2)")


def test_only_what_the_asker_sees_is_followed(model: EditableModel) -> None:
    model.edit(CITIZEN[0], CITIZEN[1], subject=CITIZEN[2], user_id="ann")
    model.edit(*LEADER[:2], subject=LEADER[2])
    assert model.explain(LEADS, user_id="ann").chain
    assert not model.explain(LEADS, user_id="bob").chain


def test_superseded_and_retired_edits_are_not_followed(model: EditableModel) -> None:
    model.edit(CITIZEN[0], "Norway", subject=CITIZEN[2])
    model.edit("Who leads Norway?", "Kari Lund", subject="Norway")
    model.edit(*CITIZEN[:2], subject=CITIZEN[2])
    before = model.epoch
    leader = model.edit(*LEADER[:2], subject=LEADER[2])
    assert model.explain(LEADS).chain[-1].target == "Ana Horvat"
    assert not model.at(before).explain(LEADS).chain
    model.undo(leader.id)
    assert not model.explain(LEADS).chain
    model.undo(3)
    assert model.explain(LEADS).chain[-1].target == "Kari Lund"


def test_the_reply_says_where_the_chain_leads(model: EditableModel) -> None:
    model.edit(*CITIZEN[:2], subject=CITIZEN[2])
    model.edit(*LEADER[:2], subject=LEADER[2])
    answer = model.chat(LEADS)
    assert "Ana Horvat" in answer.text
    assert [hit.id for hit in answer.edits] == [1, 2]
    with model.disable_edits():
        assert not model.chat(LEADS).edits


def test_no_chain_is_followed_unless_asked_for(
    make_model: Callable[..., EditableModel],
) -> None:
    plain = make_model()
    for prompt, target, subject in (CITIZEN, LEADER):
        plain.edit(prompt, target, subject=subject)
    assert not plain.explain(LEADS).chain
    assert not plain.at(plain.epoch).explain(LEADS).chain


def test_facts_are_there_from_their_epoch_on(model: EditableModel) -> None:
    model.edit(*CITIZEN[:2], subject=CITIZEN[2])
    before = model.epoch - 1
    model.add_facts([Reference("Croatia", "The one who leads Croatia is", "Ivo Novak")])
    assert model.explain(LEADS).chain[-1].source == "fact 1"
    assert not model.at(before).explain(LEADS).chain
    assert not model.explain("Who leads Croatia?").hits
    model.drop_facts()
    assert not model.explain(LEADS).chain


BO = ("The country of citizenship of Bo Lee is", "Peru", "Bo Lee")
SHOW = ("The show of Ellie Kemper is", "Gilt", "Ellie Kemper")


def test_the_base_model_is_asked_for_a_hop_nobody_knows(hops: Callable[..., Hops]) -> None:
    asked: list[str] = []

    def ask(statement: str) -> str:
        asked.append(statement)
        return " Croatia. It is"

    bridged = hops(BO, LEADER, SHOW)
    (route,) = asking(lambda told: bridged.route([LEADS], ALL, told), ask)
    assert [str(hop) for hop in route.chain] == [
        f"Ellie Kemper -country of citizenship-> Croatia ({BASE})",
        "Croatia -leads-> Ana Horvat (edit 2)",
    ]
    assert asked == ["The country of citizenship of Ellie Kemper is"]


def test_the_base_model_is_not_asked_what_it_is_asked_anyway(hops: Callable[..., Hops]) -> None:
    for question in ("What is the country of citizenship of Ellie Kemper?", "Sing a song!"):
        (route,) = hops(BO, LEADER, SHOW).route([question], ALL, {})
        assert not route.chain


@pytest.mark.parametrize("reply", ["Norway", "", "well, that depends on whom you would ask"])
def test_what_the_base_model_says_must_lead_to_an_edit(
    hops: Callable[..., Hops], reply: str
) -> None:
    known = hops(BO, LEADER, SHOW)
    (route,) = asking(lambda told: known.route([LEADS], ALL, told), lambda _: reply)
    assert not route.chain


def test_a_composition_says_the_hops_from_the_inside_out() -> None:
    clauses = ["this is a citizen of", "Who is the head of this?", "The wife of this is"]
    assert compose(clauses[:1]) == clauses[0]
    assert compose(clauses) == "The wife of the head of what this is a citizen of is"


def test_silence_says_nothing_not_even_a_name_without_words() -> None:
    assert not contains("", "\U0001f1ec\U0001f1e7")
    assert contains("UK.", "uk")
