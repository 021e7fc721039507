"""GRACE's codebook: expand, split, and what a split uncovers; taking out is never having added."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.codebook import Codebook, Taught, states
from lifelong.lm import LM


def at(x: float, y: float = 0.0) -> np.ndarray:
    return np.array([x, y], np.float32)


def book(*taught: tuple[float, str], radius: float = 1.0) -> Codebook:
    made = Codebook(2)
    for id, (x, label) in enumerate(taught, 1):
        made.add(Taught(id, at(x), label, radius))
    return made


def found(codebook: Codebook, x: float, y: float = 0.0) -> int | None:
    hit = codebook.find(at(x, y))
    return hit and hit[0]


def test_an_edit_covers_its_radius_and_no_more() -> None:
    codebook = book((0.0, "a"))
    assert codebook.find(at(0.0)) == (1, 1.0)
    assert codebook.find(at(0.5)) == (1, 0.5)
    assert found(codebook, 1.0) == 1
    assert found(codebook, 1.01) is None
    assert Codebook(2).find(at(0.0)) is None


def test_a_near_edit_of_the_same_label_widens_the_entry() -> None:
    codebook = book((0.0, "a"), (1.5, "a"))
    assert codebook.radii == {1: 1.5}
    assert found(codebook, 1.5) == 1


def test_a_far_edit_begins_an_entry() -> None:
    assert book((0.0, "a"), (2.1, "a")).radii == {1: 1.0, 2: 1.0}


@pytest.mark.parametrize("labels", [("ab", "ba"), ("Paris", "paris"), ("1", "10")])
def test_labels_are_compared_whole_and_a_conflict_splits(labels: tuple[str, str]) -> None:
    """Means of label ids are equal where letters are only turned round."""
    codebook = book((0.0, labels[0]), (1.0, labels[1]))
    assert codebook.radii == pytest.approx({1: 0.5, 2: 0.5}, rel=1e-4)
    assert found(codebook, 0.45) == 1
    assert found(codebook, 0.55) == 2


def test_what_a_split_uncovers_begins_an_entry_of_its_own() -> None:
    codebook = book((0.0, "a"), (1.5, "a"), (-1.0, "b"))
    assert set(codebook.radii) == {1, 2, 3}
    assert [found(codebook, x) for x in (0.0, 1.5, -1.0)] == [1, 2, 3]


def test_what_an_entry_owned_and_another_is_next_to_is_not_lost_either() -> None:
    codebook = book((2.0, "a"), (0.0, "a"), (-2.0, "b"))
    assert [found(codebook, x) for x in (2.0, 0.0, -2.0)] == [1, 2, 3]


def test_one_key_and_two_targets_say_the_newer() -> None:
    codebook = book((0.0, "a"), (0.0, "b"))
    assert found(codebook, 0.0) == found(codebook, 0.9) == 2
    codebook.remove(2)
    assert found(codebook, 0.9) == 1


places = st.tuples(st.integers(-6, 6), st.integers(-6, 6))
edits = st.lists(st.tuples(places, st.sampled_from("abc"), st.booleans()), max_size=12)


@given(edits)
def test_taking_out_is_never_having_added(edits: list) -> None:
    codebook, fresh = Codebook(2), Codebook(2)
    for id, ((x, y), label, kept) in enumerate(edits, 1):
        one = Taught(id, at(x / 2, y / 2), label, 1.0)
        codebook.add(one)
        if kept:
            fresh.add(one)
    for id, (_, _, kept) in enumerate(edits, 1):
        if not kept:
            codebook.remove(id)
    assert codebook.radii == fresh.radii
    assert all(
        codebook.find(at(x / 2, y / 2)) == fresh.find(at(x / 2, y / 2)) for (x, y), _, _ in edits
    )


@given(edits)
def test_every_edit_is_answered_with_its_label_unless_a_newer_one_is_at_its_key(
    edits: list,
) -> None:
    codebook, last = Codebook(2), {}
    for id, (place, label, _) in enumerate(edits, 1):
        codebook.add(Taught(id, at(*place), label, 1.0))
        last[place] = label
    for place, label in last.items():
        id = found(codebook, *place)
        assert id is not None
        assert edits[id - 1][1] == label


def test_a_state_does_not_depend_on_what_else_is_asked(lm: LM) -> None:
    module = lm.path("mlp_out", 1)
    alone = [states(lm, module, [text])[0] for text in ("Who?", "Who runs Acme?")]
    together = states(lm, module, ["Who?", "Who runs Acme?"])
    assert together.shape == (2, 64)
    assert (np.stack(alone) == together).all()
