"""The shelf: a few bytes an edit, and the same answers as with all of them in memory."""

import random
from collections import defaultdict
from collections.abc import Callable

import pytest

from lifelong import postings, shelf
from lifelong.postings import Postings
from lifelong.router import Router
from lifelong.runtime import EditableModel

QUESTIONS = [
    "Who runs Acme Robotics?",
    "Who runs Robotic Acme?",
    "Where is Bolt?",
    "Who leads Cog Works?",
    "What is the time?",
]


@pytest.mark.parametrize("unsorted", [0, 3, 10_000])
def test_postings_are_a_multimap(monkeypatch: pytest.MonkeyPatch, unsorted: int) -> None:
    monkeypatch.setattr(postings, "_UNSORTED", unsorted)
    chance, found = random.Random(0), Postings()
    expected = defaultdict[int, set[int]](set)
    hashes = [-(2**63), -1, 0, 1, 2**63 - 1, *(chance.getrandbits(62) for _ in range(20))]
    for _ in range(500):
        hashed, value = chance.choice(hashes), chance.randrange(30)
        found.add(hashed, value)
        expected[hashed].add(value)
        assert found.get(hashed) == expected[hashed]
    found.sort_in()
    assert all(found.get(hashed) == expected[hashed] for hashed in [*hashes, 7])


def teach(model: EditableModel) -> None:
    for target in ("Dana", "Eve"):
        model.edit("Who runs Acme Robotics?", target)
        model.edit("Where is Bolt?", target)
    model.edit("Who leads Cog Works?", "Al")
    model.edit("What is it?", "Nothing")
    model.undo(2)
    model.undo(4)
    model.redo(2)


def test_what_is_not_kept_is_read(
    make_model: Callable[..., EditableModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = make_model()
    teach(kept)
    monkeypatch.setattr(shelf, "KEPT", 1)
    monkeypatch.setattr(shelf, "_CHUNK", 2)
    model = make_model()
    teach(model)
    s = model._session
    anew = Router.build(s.journal, s.encoder, s.scope)
    assert len(anew._shelf._kept) <= 1
    expected = kept._session.router.route(QUESTIONS)
    assert any(route.hits for route in expected)
    assert s.router.route(QUESTIONS) == anew.route(QUESTIONS) == expected


def test_a_subject_without_a_live_edit_is_not_known(model: EditableModel) -> None:
    model.edit("Who runs Acme Robotics?", "Dana")
    known = model._session.router._shelf
    assert ("acme", "robotics") in known
    assert known.find("Who runs Acme Robotics?") != []
    model.undo(1)
    assert ("acme", "robotics") not in known
    assert known.find("Who runs Acme Robotics?") == []
