"""The gates of methods without a subject: which prompts they let through."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong import EditableModel
from lifelong.gates import GATES, _distance, gate_of
from lifelong.methods import METHODS
from store import Edit

LIKE = "what is like < good > ?"


def let(method: str, known: str, asked: str, cosine: float = 0.0) -> float:
    """The score of one edit."""
    edit = Edit(known, "t", method=method)
    return float(GATES[method].score(asked, [edit], np.array([cosine], np.float32))[0])


def test_every_method_with_a_gate_is_one_without_a_subject() -> None:
    assert GATES.keys() == {name for name, method in METHODS.items() if not method.by_subject}
    assert gate_of(Edit(LIKE, "t", method="memprompt")) is GATES["memprompt"]
    assert gate_of(Edit(LIKE, "t", "good", method="memprompt")) is None
    assert gate_of(Edit(LIKE, "t")) is None


@pytest.mark.parametrize(
    ("known", "asked", "fires"),
    [
        (LIKE, "What is like < fast > ?", True),
        (LIKE, "what is like fast?", True),
        (LIKE, "What's like fast?", True),
        (LIKE, 'what is like "a hard day\'s night"?', True),
        (LIKE, "what is akin to < fast > ?", False),
        (LIKE, "what is like ?", False),
        (LIKE, "what is like the very best film of all ?", False),
        ("< good > means what ?", "fast means what?", True),
        ("what has a < good > like ring to it ?", "what has a fast like ring to it", True),
        ("How do I look?", "how do I look", True),
        ("How do I look?", "How do i loook", True),
        ("How do I look?", "How do I cook?", False),
        (LIKE, "what is unlike < fast > ?", False),
        ("How do I look?", "How do I look today?", False),
    ],
)
def test_a_question_is_known_again_with_another_argument(
    known: str, asked: str, fires: bool
) -> None:
    assert (let("memprompt", known, asked) > 0.5) == fires


def test_a_question_is_known_again_by_its_meaning() -> None:
    assert let("memprompt", LIKE, "Which word resembles < fast > ?", 0.91) > 0.5
    assert let("memprompt", LIKE, "Which word resembles < fast > ?", 0.89) == 0
    assert GATES["memprompt"].asked(LIKE) == "what is like this ?"


@pytest.mark.parametrize(
    ("condition", "asked", "cosine", "fires"),
    [
        ("If asked about the weather", "Will it rain?", 0.5, True),
        ("If asked about the weather", "Will it rain?", 0.3, False),
        ("If asked about Acme", "What does Acme sell?", 0.5, True),
        ("If asked about Acme", "What does Globex sell?", 0.9, False),
        ('When the text says "so so"', "It was so so, really.", 0.0, True),
        ('When the text says "so so"', "It was good.", 0.9, False),
    ],
)
def test_a_condition_applies(condition: str, asked: str, cosine: float, fires: bool) -> None:
    assert (let("language-patch", condition, asked, cosine) > 0.5) == fires


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_the_distance_is_levenshteins(one: str, other: str) -> None:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        swapped = distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(swapped, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    assert _distance(one, other) == distance(len(one), len(other))


def test_a_gate_decides_for_its_own_edits_only(model: EditableModel) -> None:
    like = model.edit(LIKE, "by like I mean a synonym", method="memprompt")
    loud = model.edit('If the text says "loud"', "answer in capitals", method="language-patch")
    runs = model.edit("Who runs Acme?", "Jane Roe")
    for asked, wanted in [
        ("What is like < fast > ?", like),
        ("Why so loud?", loud),
        ("Who runs Acme?", runs),
        ("Who runs Globex?", None),
        ("what is unlike the weather", None),
    ]:
        hits = model.explain(asked).hits
        assert [hit.id for hit in hits] == ([wanted.id] if wanted else []), asked
    model.undo(like.id)
    assert not model.explain("What is like < fast > ?").hits
    model.redo(like.id)
    assert model.explain("What is like < fast > ?").hits
