"""A store carried to another model and encoder: what was taught is there, what it was solved with
is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lifelong import METHODS, EditableModel
from lifelong.consolidate import Gate
from lifelong.methods.grace import Grace
from store import Journal, Reference, StoreMissing, WrongBase, WrongEncoder
from tests.conftest import HashEncoder
from tests.test_weights import Scribble, bits, same

CLOSED = Gate(perplexity=0.0)


class OtherEncoder(HashEncoder):
    dim = 256
    fingerprint = "hash-256-v2"

    def encode(self, texts: Any) -> Any:
        return -super().encode(texts)


@pytest.fixture(autouse=True)
def scribble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "scribble", Scribble())


@pytest.fixture
def old(make_model: Callable[..., EditableModel], tmp_path: Path) -> Path:
    """Every status, both tiers: 1 and 2 consolidated, 3 in memory, 4 to 6 made in the weights."""
    path = tmp_path / "old.db"
    with make_model("llama", store=path) as model:
        for subject in ("Acme", "Globex", "Initech"):
            model.edit(f"Who runs {subject}?", f"{subject} Roe", subject=subject)
        model.consolidate([1, 2], method="scribble", gate=None)
        for subject in ("Hooli", "Umbrella", "Vandelay"):
            model.edit(f"Who runs {subject}?", "Ann", subject=subject, method="scribble")
        model.undo(5)
        model.edit("Who runs Vandelay?", "Bo", subject="Vandelay")
        model.edit("Who runs Aperture?", "Cy", subject="Aperture", user_id="ann", tenant="red")
        model.wrong("Who runs Oscorp?", "Me.")
        model.add_facts([Reference("Acme", "country", "France")])
    return path


def test_all_edits_come_along(
    old: Path, make_model: Callable[..., EditableModel], tmp_path: Path
) -> None:
    model = make_model("gpt2", store=tmp_path / "new.db", encoder=OtherEncoder())
    moved = model.adopt(old, gate=None)
    assert moved.edits == tuple(range(1, 10))
    assert [(b.method, b.edits, b.accepted) for b in moved.batches] == [
        ("scribble", (1, 2), True),
        ("scribble", (4,), True),
    ]
    assert moved.refused == ()
    with Journal.read(old) as before:
        for was, now in zip(before.edits(), model._session.journal.edits(), strict=True):
            assert (now.prompt, now.target, now.status) == (was.prompt, was.target, was.status)
            assert now.audience == was.audience
    assert model._session.router.in_weights == [1, 2, 4]
    assert "Initech Roe" in model.chat("Who runs Initech?", max_new_tokens=20).text
    assert "Bo" in model.chat("Who runs Vandelay?", max_new_tokens=20).text
    assert [fact.subject for fact in model.facts()] == ["Acme"]
    ids, vectors = model._session.journal.vectors()
    encoded = model._session.router.encode(model._session.journal.get_many(ids.tolist()))
    np.testing.assert_allclose(vectors, encoded)
    assert model._session.journal.verify() == model.epoch


def test_what_the_new_weights_do_not_hold_stays_in_memory(
    old: Path, make_model: Callable[..., EditableModel], tmp_path: Path
) -> None:
    model = make_model("llama", store=tmp_path / "new.db", encoder=OtherEncoder())
    base = bits(model)
    moved = model.adopt(old, gate=CLOSED)
    assert [batch.accepted for batch in moved.batches] == [False, False]
    assert same(bits(model), base)
    assert "Acme Roe" in model.chat("Who runs Acme?", max_new_tokens=20).text
    assert model.get(4).method == "serac"  # it was made in the weights
    assert "Ann" in model.chat("Who runs Hooli?", max_new_tokens=20).text


def test_the_old_store_is_left_as_it_is_and_moving_twice_adds_nothing(
    old: Path, make_model: Callable[..., EditableModel], tmp_path: Path
) -> None:
    before = old.read_bytes()
    model = make_model("gpt2", store=tmp_path / "new.db", encoder=OtherEncoder())
    model.adopt(old, gate=None)
    epoch = model.epoch
    again = model.adopt(old, gate=None)
    assert (again.edits, again.batches, model.epoch) == ((), (), epoch)
    assert old.read_bytes() == before


def test_it_is_the_remedy_for_another_model_or_encoder(
    old: Path, make_model: Callable[..., EditableModel], tmp_path: Path
) -> None:
    with pytest.raises(WrongBase):
        make_model("gpt2", store=old)
    with pytest.raises(WrongEncoder):
        make_model("llama", store=old, encoder=OtherEncoder())
    model = make_model("llama", store=tmp_path / "new.db")
    with pytest.raises(StoreMissing):
        model.adopt(tmp_path / "none.db")


def test_what_acts_in_the_model_is_made_anew_or_remembered(
    make_model: Callable[..., EditableModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "grace", Grace(layer=2, steps=4, most=torch.inf))
    with make_model("llama", store=tmp_path / "old.db") as model:
        edit = model.edit("Who runs Acme?", "Ann", subject="Acme", method="grace")
    model = make_model("gpt2", store=tmp_path / "new.db")
    moved = model.adopt(tmp_path / "old.db", gate=None)
    assert (moved.edits, moved.batches, moved.refused) == ((edit.id,), (), ())
    (hit,) = model.explain("Who runs Acme?").hits
    assert hit.slot is not None
    assert hit.slot.module == "transformer.h.2.mlp.c_proj"
    monkeypatch.setitem(METHODS, "grace", Grace(layer=2, steps=1))
    other = make_model("gpt2", store=tmp_path / "other.db")
    other.adopt(tmp_path / "old.db", gate=None)
    assert other.get(1).method == "serac"
    assert "Ann" in other.chat("Who runs Acme?", max_new_tokens=20).text
