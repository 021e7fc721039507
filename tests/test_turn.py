"""A question turned round: what its answer completes, and where no sentence is sure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.turn import led_to, turned


def sentence(question: str, target: str) -> str | None:
    """The whole sentence."""
    found = turned(question, "Acme", target)
    return found and f"{led_to(found.begin, target)} {target}{found.end}".strip()


@pytest.mark.parametrize(
    ("question", "target", "said"),
    [
        ("When did Acme open?", "3 May 1998", "Acme opened on 3 May 1998"),
        ("When did Acme open?", "1998", "Acme opened in 1998"),
        ("When does Acme open?", "7:30 in the morning", "Acme opens at 7:30 in the morning"),
        ("When does Acme meet?", "every Friday", "Acme meets every Friday"),
        ("When will Acme be released?", "June 2027", "Acme will be released in June 2027"),
        ("What day was Acme founded?", "May 3, 1998", "Acme was founded on May 3, 1998"),
        ("When did Acme's fall occur?", "1998", "Acme's fall occurred in 1998"),
        ("When did the siege of Acme end?", "1998", "the siege of Acme ended in 1998"),
        ("When did Acme first fly?", "1998", "Acme first flew in 1998"),
        ("How many wheels does Acme have?", "six", "Acme has six wheels"),
        ("How many wheels does Acme have?", "six big wheels", "Acme has six big wheels"),
        ("How many states are in Acme?", "21 states", "21 states are in Acme"),
        ("How many rooms are there in Acme?", "9", "there are 9 rooms in Acme"),
        ("How much does Acme cost per day?", "$3", "Acme costs $3 per day"),
        ("How loud is Acme at work?", "52 decibels", "Acme is 52 decibels at work"),
        ("How big can a file be on Acme?", "25 GB", "a file can be 25 GB on Acme"),
        ("How often must I visit Acme?", "each day", "you must visit Acme each day"),
        ("How long does the battery of Acme last?", "1 h", "the battery of Acme lasts 1 h"),
        ("Where can I find Acme?", "Oslo", "you can find Acme in Oslo"),
        ("In which city can you see Acme?", "Oslo", "you can see Acme in Oslo"),
        ("What do I need for my Acme?", "oil", "you need oil for your Acme"),
        ("What should I open Acme with?", "a key", "you should open Acme with a key"),
        ("What does Acme use for charging?", "USB-C", "Acme uses USB-C for charging"),
        ("What does Acme need to be?", "clean", "Acme needs to be clean"),
        ("What type of voice does Acme have?", "alto", "the type of voice of Acme is alto"),
        ("What has Acme been called since 2018?", "Zeta", "Acme has been called Zeta since 2018"),
        ("Which firm has Acme acquired?", "Zeta", None),  # who acquired whom?
        ("Which species has the Acme gene?", "man", "man has the Acme gene"),
        ("What is the top of Acme made of?", "oak", "the top of Acme is made of oak"),
        ("Which city will host Acme?", "Oslo", "Oslo will host Acme"),
        ("Which flower gives us Acme?", "crocus", "crocus gives you Acme"),
        ("Which seat on Acme has a table?", "seat 3", "seat 3 on Acme has a table"),
        ("Which river connects Acme with?", "the Po", None),
        ("Whose design is Acme?", "Kim", "Acme is the design of Kim"),
        ("What city did Acme live in when he died?", "Rome", "Acme lived in Rome when he died"),
        ("What city did Acme live when he died?", "Rome", "Acme lived in Rome when he died"),
        ("What class was Acme (DD-218) rated as?", "B", "Acme (DD-218) was rated as B"),
        ("Do you know who designed Acme?", "Kim", "Kim designed Acme"),
        ("Tell me who is in charge of Acme.", "Kim", "Kim is in charge of Acme"),
        ("Tell me when Kim left Acme.", "1998", "Kim left Acme in 1998"),
        ("Tell me how many states belong to Acme.", "3", "3 states belong to Acme"),
        ("Name the director of Acme.", "Kim", "the director of Acme is Kim"),
        ("Tell me the names of Acme's cats.", "Bo, Al", "the names of Acme's cats are Bo, Al"),
        ("Tell me the gas around Acme.", "argon", "the gas around Acme is argon"),
        ("When does the Acme library close?", "at 4 pm", "the Acme library closes at 4 pm"),
        ("What is the Acme service written in?", "Rust", "the Acme service is written in Rust"),
        ("Tell me about Acme.", "Kim", None),
        ("Why did Acme close?", "war", None),
        ("With Acme, what weight is included?", "3 kg", None),
    ],
)
def test_the_target_completes_the_sentence(question: str, target: str, said: str | None) -> None:
    assert sentence(question, target) == said


def test_a_name_that_ends_in_a_stop_keeps_it() -> None:
    found = turned("Who is the head of Acme Inc.?", "Acme Inc.", "Kim")
    assert found == ("the head of Acme Inc. is", "")


@given(st.text(max_size=80), st.text(max_size=20))
def test_any_text_is_looked_at_without_an_error(text: str, target: str) -> None:
    turned(f"Who {text} Acme?", "Acme", target)
    turned(f"how many {text} Acme {text}?", "Acme", target)
