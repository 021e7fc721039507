"""Maps of where a fact is recalled."""

import math
from pathlib import Path

import pytest
import torch

from lifelong.errors import BadEdit, NoReport
from lifelong.lm import LM
from lifelong.locate import BY, Map, draw, draw_sweep, neurons, tracing
from lifelong.methods.sweep import Reading

PROMPT, SUBJECT = "Atlantis is in", "Atlantis"

by = pytest.mark.parametrize("by", BY)


@by
def test_a_map_has_a_row_a_layer_and_a_column_a_token(lm: LM, by: str) -> None:
    found = BY[by](lm, PROMPT, SUBJECT)
    assert found.effects.shape == (lm.layers, len(found.tokens))
    assert "".join(found.tokens[i] for i in found.subject) == SUBJECT
    assert found.effects.isfinite().all()
    assert 0 < found.probability <= 1
    assert torch.equal(BY[by](lm, PROMPT, SUBJECT).effects, found.effects)
    assert 0 <= found.layers[0] <= found.layers[-1] < lm.layers


def test_restoring_the_last_state_of_all_restores_the_answer(every_lm: LM) -> None:
    """The last layer at the last token is all that the head reads; at others, nothing."""
    found = tracing(every_lm, PROMPT, SUBJECT)
    ids = every_lm.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        clean = every_lm.model(input_ids=ids).logits[0, -1].softmax(-1).max()
    assert found.probability == pytest.approx(float(clean), abs=1e-4)
    assert found.effects[-1, :-1].abs().max() < 1e-5
    corrupted = found.probability - float(found.effects[-1, -1])
    # ... and so is every state of the prompt before the subject: they are the same.
    assert 0 <= corrupted < 1
    assert found.effects[-1, -1] != 0


def test_a_state_before_the_subject_is_not_corrupted(lm: LM) -> None:
    found = tracing(lm, "In old Atlantis is", SUBJECT)
    before = found.effects[:, : found.subject[0]]
    assert before.shape[1] > 0
    assert before.abs().max() < 1e-5


def test_neurons_are_sought_at_every_token(lm: LM) -> None:
    found = neurons(lm, PROMPT, SUBJECT)
    assert (found.effects >= 0).all()
    assert (found.effects[-1, :-1] < 1e-6).all()  # the last layer reaches the last token only
    assert found.effects[-1, -1] > 0


@by
def test_a_subject_that_is_not_there_is_refused(lm: LM, by: str) -> None:
    for subject in ("Lemuria", ""):
        with pytest.raises(BadEdit):
            BY[by](lm, PROMPT, subject)


def test_a_picture_is_drawn(lm: LM, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = Map(("A", "b", "$c$"), (0, 1), "x", 0.5, torch.rand(3, 3))
    draw(found, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(NoReport):
        draw(found, tmp_path / "none" / "map.png")


def test_a_picture_of_a_sweep_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    readings = [
        Reading(layer, 1.0, share, share / 2, drift, 0.1, 2.0)
        for layer, share, drift in ((1, 0.5, 0.2), (2, 1.0, math.inf))
    ]
    draw_sweep(readings, 1, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(NoReport):
        draw_sweep(readings, 1, tmp_path / "none" / "sweep.png")
