"""The probes that are made from an edit."""

import pytest

from lifelong.evaluate.derived import derived, negated, prefixed, proposed, requests
from lifelong.evaluate.records import Case, Probe
from store import Edit


def test_every_edit_gets_its_derived_probes() -> None:
    edits = (Edit("Acme is based in", "Oslo"), Edit("Who runs Acme?", "Ada"))
    made = Case(1, edits, (), (("Oslo", "Christiania"), ("Ada",)), (("Rome", "Roma"), ()))
    assert derived(made, seed=3) == (
        Probe("prefixed", prefixed("Acme is based in", 3), ("Oslo", "Christiania"), 0),
        Probe("negated", "Acme is not based in", ("Oslo", "Christiania"), 0),
        Probe("residual", "Acme is based in", ("Rome", "Roma"), 0),
        Probe("yes", "Is it true that acme is based in Oslo?", ("Oslo", "Christiania"), 0),
        Probe("no", "Is it true that acme is based in Rome?", ("Oslo", "Christiania"), 0),
        Probe("prefixed", prefixed("Who runs Acme?", 3), ("Ada",), 1),
        Probe("yes", "Who runs Acme? Is it Ada?", ("Ada",), 1),
    )


def test_only_a_chat_is_asked_for_more_than_the_fact() -> None:
    made = Case(1, (Edit("Who runs Acme?", "Ada", "Acme"),), (), (("Ada",),), (("Bob",),))
    chat, raw = ({p.kind for p in derived(made, chat=chat)} for chat in (True, False))
    assert chat - raw == {"yes", "no", "part"}


def test_the_sentence_before_a_prompt_depends_on_seed_and_prompt() -> None:
    assert prefixed("Acme is in", 0) == prefixed("Acme is in", 0)
    assert prefixed("Acme is in", 0).endswith(". Acme is in")
    assert len({prefixed("Acme is in", seed) for seed in range(50)}) > 4
    assert len({prefixed(f"{i} is in", 0).removesuffix(f"{i} is in") for i in range(50)}) > 4


@pytest.mark.parametrize(
    ("prompt", "denied"),
    [
        ("The mother tongue of Ada is", "The mother tongue of Ada is not"),
        ("Acme is located in", "Acme is not located in"),
        ("Ada was a citizen of", "Ada was not a citizen of"),
        ("The city that is home to Acme is in", "The city that is home to Acme is not in"),
        ("Where is Acme? ", None),
        ("Who is the head of", None),
        ("What is the twin city of Bern? It is", None),
        ("Ada speaks the language", None),
        ("Ada is poor, but Kim owns", None),
        ("Ada is one of the many people in", None),
        ("Paris", None),
    ],
)
def test_only_a_statement_that_ends_in_a_copula_is_denied(prompt: str, denied: str | None) -> None:
    assert negated(prompt) == denied


def test_an_answer_is_proposed_in_the_prompts_words() -> None:
    assert proposed(Edit("Who runs Acme? ", "Ada", "Acme"), "Ada") == "Who runs Acme? Is it Ada?"
    asked = proposed(Edit("The head of Acme is", "Ada", "Acme"), "Kim")
    assert asked == "Is it true that the head of Acme is Kim?"
    named = Edit("Acme is run by", "Ada", "Acme")
    assert proposed(named, "Ada") == "Is it true that Acme is run by Ada?"


def test_requests_have_the_fact_as_one_part() -> None:
    assert list(requests(Edit("Who runs Acme?", "Ada", "Acme"))) == [
        "Write two sentences about Acme, saying who runs Acme.",
        "Who runs Acme? And what else is known about it?",
    ]
    assert list(requests(Edit("The capital of Acme is", "Bern", "Acme", "P36"))) == [
        "Write two sentences about Acme: the capital, and why it is known.",
        "Tell me about Acme. Mention the capital and one more thing.",
    ]
    (one,) = requests(Edit("Acme is run by", "Ada", "Acme"))
    assert one == "Write two sentences about Acme. One of them begins: Acme is run by"
    assert list(requests(Edit("Who runs it?", "Ada"))) == []
