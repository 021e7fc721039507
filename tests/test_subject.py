"""Words, focus, guessed subjects, and the gate: which known subjects does a text mention?"""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.subject import SubjectGate, extract, focus, normalise, subject_key, words

SUBJECTS = ["Acme", "Acme Labs", "Mechthildis of Austria", "The Beatles", "Boeing 747", "New York"]


@pytest.fixture
def gate() -> SubjectGate:
    """A gate that knows SUBJECTS."""
    gate = SubjectGate()
    for subject in SUBJECTS:
        gate.add(subject)
    return gate


def mentioned(gate: SubjectGate, text: str) -> list[str]:
    return [" ".join(mention.subject) for mention in gate.find(text)]


def focused(text: str, subject: str) -> str:
    gate = SubjectGate()
    gate.add(subject)
    return focus(text, gate.find(text)[0].spans)


# --- words --------------------------------------------------------------------------------------


@given(st.text())
def test_a_word_stands_where_it_says(text: str) -> None:
    found = words(text)
    assert all(0 <= word.start < word.end <= len(text) for word in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    for word in found:
        assert word.folded == "".join(w.folded for w in words(text[word.start : word.end]))


def test_each_character_of_a_script_without_spaces_is_a_word() -> None:
    assert [word.folded for word in words("東京 is 도쿄")] == ["東", "京", "is", "도", "쿄"]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("ACME", "acme"),
        ("the Acme", "Acme"),
        ("Acme,  Inc.", "acme inc"),
        ("Ａｃｍｅ", "Acme"),  # noqa: RUF001
        ("Ac\u200bme", "Acme"),
        ("Cafe\u0301", "Café"),
        ("\u202eAcme\u202c", "Acme"),
        ("Straße", "STRASSE"),
    ],
)
def test_spellings_that_look_alike_are_the_same_words(text: str, other: str) -> None:
    assert normalise(text) == normalise(other) != ""
    folded = [[word.folded for word in words(t) if word.folded != "the"] for t in (text, other)]
    assert folded[0] == folded[1]


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Z"]), max_size=30))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_articles_do_not_count_unless_there_is_nothing_else() -> None:
    assert normalise("The cat and a dog") == "cat and dog"
    assert normalise("A") == "a"
    assert normalise("...") == ""


def test_a_leading_article_does_not_belong_to_a_subject_unless_it_is_all() -> None:
    assert subject_key("The Beatles") == subject_key("beatles") == ("beatles",)
    assert subject_key("The") == ("the",)
    assert subject_key("The The") == ("the",)


# --- guessed subjects ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Who runs Acme?", "Acme"),
        ("What is the capital of France?", "France"),
        ("In 2020, who was the CEO of Acme Corp?", "Acme Corp"),
        ("Tell me about the University of Oslo.", "University of Oslo"),
        ("When did Apollo 11 land?", "Apollo 11"),
        ("The CEO of Acme is", "Acme"),
        ("who runs acme?", None),
        ("Is it true?", None),
        ("", None),
    ],
)
def test_the_subject_is_guessed_from_capitals(prompt: str, subject: str | None) -> None:
    assert extract(prompt) == subject


@given(st.text())
def test_a_guessed_subject_stands_in_the_prompt(prompt: str) -> None:
    subject = extract(prompt)
    assert subject is None or (subject in prompt and subject)


# --- focus --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "subject", "relation"),
    [
        ("Who runs Acme?", "Acme", "Who runs this?"),
        ("Nice weather. And who runs Acme?", "Acme", "And who runs this?"),
        ("Who runs Acme? I am in a hurry.", "Acme", "Who runs this?"),
        ("Category: Singles Acme is located in", "Acme", "this is located in"),
        ("Acme", "Acme", "this"),
        ("Is St. Louis in Ohio?", "St. Louis", "Is this in Ohio?"),
        ("Dr. No was directed by", "Dr. No", "this was directed by"),
        ("Where is Acme Inc. based?", "Acme Inc", "Where is this based?"),
        ("Acme Inc.'s boss is", "Acme Inc", "this's boss is"),
        ("Who wrote The Beatles?", "Beatles", "Who wrote this?"),
        ('He asked "What?" The boss of Acme is', "Acme", "The boss of this is"),
        ("(Est. 2005.) Acme makes", "Acme", "this makes"),
        ("Category: Singles The boss of Acme is", "Acme", "The boss of this is"),
        ("Where is Acme, Inc. based?", "Acme", "Where is this based?"),
        ("I like Acme. Who runs it?", "Acme", "Who runs this?"),
        ("I like Acme; tell me who runs it.", "Acme", "tell me who runs this."),
        ("I read about Acme, who runs it?", "Acme", "who runs this?"),
        ("Acme makes robots. Its boss is", "Acme", "this's boss is"),
        ("Acme makes robots. It is old.", "Acme", "this makes robots."),  # nothing is asked
        ("I am in Acme. Is there a hotel?", "Acme", "I am in this."),  # it points nowhere
        ("I like Acme. Who runs Globex?", "Acme", "I like this."),
        ("Who runs Acme? And where is it?", "Acme", "Who runs this?"),  # the first question counts
        ("Who runs Acme, and where is it?", "Acme", "Who runs this, and where is it?"),
    ],
)
def test_focus_masks_the_subject_in_its_clause(text: str, subject: str, relation: str) -> None:
    assert focused(text, subject) == relation


def test_without_a_mention_the_focus_is_the_whole_text() -> None:
    assert focus("Nice weather. Is it?", ()) == "Nice weather. Is it?"


@given(st.sampled_from(SUBJECTS), st.text(max_size=20), st.text(max_size=20))
def test_focus_says_this_wherever_the_subject_stands(subject: str, before: str, after: str) -> None:
    text = f"{before} {subject} {after}"
    gate = SubjectGate()
    gate.add(subject)
    mention = gate.find(text)[0]
    assert mention.coverage == 1.0
    assert "this" in focus(text, mention.spans)
    assert len(focus(text, mention.spans)) <= len(text) + len("this")


# --- the gate -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("Who runs Acme?", ["acme"]),
        ("WHO RUNS ACME", ["acme"]),
        ("What is Acme's revenue?", ["acme"]),
        ("Where is Acme Labs?", ["acme labs"]),  # the longer mention hides the shorter
        ("Acme Labs or Acme?", ["acme labs", "acme"]),
        ("beatles songs", ["beatles"]),
        ("Who was Mechthildi's Austrian father?", ["mechthildis of austria"]),
        ("How long is a Boeing 747?", ["boeing 747"]),
        ("How long is a Boeing 737?", []),
        ("Acme的老板是谁?", ["acme"]),
        ("Who runs Acmeology?", []),
        ("Who runs it?", []),
        ("", []),
    ],
)
def test_the_gate_finds_the_subjects_that_are_mentioned(
    gate: SubjectGate, text: str, subjects: list[str]
) -> None:
    assert mentioned(gate, text) == subjects


@pytest.mark.parametrize(
    ("text", "subject", "named"),
    [
        ("Who are they?", "The Who", False),
        ("the man who runs it", "It", False),
        ("When was The Who founded?", "The Who", True),
        ("Who directed It?", "It", True),
        ("It is raining", "It", False),
        ("They said that you're late", "Re", False),
    ],
)
def test_a_function_word_is_a_name_only_where_it_looks_like_one(
    text: str, subject: str, named: bool
) -> None:
    gate = SubjectGate()
    gate.add(subject)
    assert bool(gate.find(text)) is named


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("Where is the South African Football Association?", "Swiss Football Association"),
        ("Who made Microsoft Office 2010?", "Microsoft Office XP"),
        ("European policy", "Europa Europa"),
    ],
)
def test_a_name_that_shares_words_is_another_name(text: str, subject: str) -> None:
    gate = SubjectGate()
    gate.add(subject)
    assert gate.find(text) == []


@pytest.mark.parametrize(
    ("subject", "text", "named"),
    [
        ("Acme Robotics, Inc.", "Who runs Acme Robotics?", True),
        ("Acme Inc", "Who runs Acme?", True),
        ("Acme Inc", "who runs acme?", True),
        ("Acme Inc", "The acme of skill", False),
        ("Acme", "Who runs Acme Corp.?", True),
        ("Dr. Jane Roe", "Where does Jane Roe work?", True),
        ("Jane Roe", "Where does Dr. Jane Roe work?", True),
        ("Jane Roe", "Where does Roe work?", False),  # some other Roe
        ("Dr. No", "No, who is it?", False),
        ("United States", "What is the capital of the U.S.?", True),
        ("US", "What is the capital of the United States of America?", True),
        ("United States of America", "The capital of the USA is", True),
        ("United States", "Tell us the capital.", False),
        ("United States", "TELL US THE CAPITAL", False),
        ("World Health Organization", "Who leads the WHO?", True),
        ("World Health Organization", "Who leads it?", False),
        ("Liquor Control Board of Ontario", "Who runs the LCBO?", True),
        ("Flying Dutchman Records", "When did FDR die?", False),
        ("the president", "Who is the president?", True),
        ("the president", "Who is the president of France?", False),
        ("Beatles", "The Beatles' songs", True),
        ("Concorde", "How fast were Concordes?", True),
    ],
)
def test_a_subject_goes_by_other_names_where_they_are_its_own(
    subject: str, text: str, named: bool
) -> None:
    gate = SubjectGate()
    gate.add(subject)
    assert [m.subject for m in gate.find(text)] == ([subject_key(subject)] if named else [])


def test_a_name_that_two_subjects_share_is_neither_s() -> None:
    gate = SubjectGate()
    for subject in ("Acme Inc", "Acme Ltd"):
        gate.add(subject)
    assert gate.find("Who runs Acme?") == []
    gate.remove("Acme Ltd")
    assert mentioned(gate, "Who runs Acme?") == ["acme inc"]


def test_a_last_name_stands_for_a_name_that_was_said_in_full() -> None:
    gate = SubjectGate()
    for subject in ("Ada Roe", "Ben Roe"):
        gate.add(subject)
    text = "Ada Roe writes. Where was Roe born?"
    asked = [focus(text, mention.spans) for mention in gate.find(text)]
    assert asked == ["this writes.", "Where was this born?"]
    assert len(gate.find("Ada Roe met Ben Roe. Where was Roe born?")) == 2


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_the_gate_reads_any_unicode_form(form: str) -> None:
    gate = SubjectGate()
    gate.add("Café Rouge")
    asked = unicodedata.normalize(form, "Who owns Café Rouge?")  # type: ignore[arg-type]
    (mention,) = gate.find(asked)
    assert focus(asked, mention.spans) == "Who owns this?"


def test_a_zero_width_character_does_not_hide_a_subject(gate: SubjectGate) -> None:
    assert mentioned(gate, "Who runs Ac\u200bme?") == ["acme"]


def test_words_far_apart_or_in_two_sentences_are_no_mention() -> None:
    gate = SubjectGate()
    gate.add("John Smithson")
    assert gate.find("John said and wrote and did and sang a lot with Smithson") == []
    assert gate.find("It was John. The Smithsons came.") == []
    assert len(gate.find("Smithson, John")) == 1


def test_an_empty_gate_finds_nothing() -> None:
    assert SubjectGate().find("Who runs Acme?") == []


def test_a_subject_known_twice_must_be_forgotten_twice(gate: SubjectGate) -> None:
    gate.add("acme")
    gate.remove("ACME")
    assert mentioned(gate, "Who runs Acme?") == ["acme"]
    gate.remove("Acme")
    assert mentioned(gate, "Who runs Acme?") == []
    assert len(gate) == len(SUBJECTS) - 1


@given(st.lists(st.tuples(st.sampled_from(SUBJECTS), st.booleans())))
def test_a_gate_is_what_was_added_less_what_was_removed(added: list[tuple[str, bool]]) -> None:
    gate, anew = SubjectGate(), SubjectGate()
    for subject, _ in added:
        gate.add(subject)
    for subject, kept in added:
        if kept:
            anew.add(subject)
        else:
            gate.remove(subject)
    assert vars(gate) == vars(anew)
