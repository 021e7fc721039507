"""Which layer suits GRACE: what is measured of each, which is the best, what is kept of it."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong import METHODS, EditableModel
from lifelong.errors import CacheUnwritable, UnsupportedModel
from lifelong.hooks import placing
from lifelong.lm import LM
from lifelong.methods import sweep as sweeping
from lifelong.methods.grace import Grace
from lifelong.methods.sweep import Reading, best, sweep, tried
from lifelong.methods.value import Found, sought
from lifelong.methods.wording import Wording
from store import Edit

ASKED = "Who runs Acme?"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and sweeps of few steps: a tiny random model learns nothing in many."""
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sweeping, "_STEPS", 3)
    return tmp_path / "cache" / "sweeps"


def reading(layer: int, success: float, drift: float, learnt: float | None = None) -> Reading:
    found = success if learnt is None else learnt
    return Reading(layer, found, success, success, drift, 0.5, 1.0)


def kept(cache: Path) -> Path:
    (file,) = cache.iterdir()
    return file


# --- what is measured -----------------------------------------------------------------------------


def test_every_family_is_swept_and_left_as_it_was(every_lm: LM) -> None:
    weights = [weight.clone() for weight in every_lm.model.parameters()]
    hooks = sum(len(m._forward_hooks) for m in every_lm.model.modules())
    found = sweep(every_lm)
    assert [one.layer for one in found] == tried(every_lm) == [1, 2]
    for one in found:
        assert all(0 <= share <= 1 for share in (one.learnt, one.said, one.reworded))
        assert math.isfinite(one.drift)
        assert one.loss > 0
    assert best(every_lm, found) in tried(every_lm)
    again = sweep(every_lm, again=True)
    assert [replace(one, seconds=0) for one in again] == [replace(one, seconds=0) for one in found]
    assert all(map(torch.equal, weights, every_lm.model.parameters()))
    assert all(weight.grad is None for weight in every_lm.model.parameters())
    assert sum(len(m._forward_hooks) for m in every_lm.model.modules()) == hooks


@pytest.mark.parametrize(("layers", "some"), [(1, [0]), (3, [1, 2]), (30, [10, 15, 20, 25])])
def test_a_few_layers_are_tried_two_thirds_among_them(layers: int, some: list[int]) -> None:
    class Sized:
        def __init__(self) -> None:
            self.layers = layers

    assert tried(Sized()) == some  # type: ignore[arg-type]
    assert layers * 2 // 3 in some


def test_drift_is_what_a_whole_pass_shows(every_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep computes what lies below its layers once: here nothing is."""
    lm, edit = every_lm, Edit(ASKED, "Jo", paraphrases=("Who is head of Acme?",))
    monkeypatch.setattr(sweeping, "EDITS", (edit,))
    (one, _) = sweep(lm)
    found = sought(lm, [edit], 1, steps=3, rate=2.0)
    behind = lm.tokenizer.encode(". It was raining when we left.", add_special_tokens=False)
    moved = []
    for prompt in (edit.prompt, *edit.paraphrases):
        start = lm.tokenizer.encode(f"{prompt} Jo")
        at = len(lm.tokenizer.encode(prompt)) - 1
        ids = torch.tensor([[*start, *behind]])
        values = {lm.model.get_submodule(found.module): {0: found.values[0]}}
        with torch.no_grad():
            base = lm.model(ids).logits[0, len(start) :].log_softmax(-1)
            with placing(lm.model.base_model, values, [at]):
                now = lm.model(ids).logits[0, len(start) :].log_softmax(-1)
        moved.append((base.exp() * (base - now)).sum(1).mean())
    assert one.drift == pytest.approx(float(torch.stack(moved).mean()), rel=0.01, abs=1e-5)
    assert one.drift > 0


def test_said_is_what_greedy_decoding_says(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the values that are there anyhow: the base model's own words are said, others are not,
    and nothing is moved."""
    asked = lm.tokenizer(ASKED, return_tensors="pt")
    *head, last = asked["input_ids"][0].tolist()
    own = lm.model.generate(**asked, max_new_tokens=3, do_sample=False)[0, -3:].tolist()
    other = [*own[:2], (own[2] + 1) % 256]
    texts = [
        Wording(0, "bare", tuple(head), (last, *labels[:-1]), tuple(labels))
        for labels in (own, other)
    ]
    reworded = replace(texts[0], kind="context")
    module = lm.path("mlp_out", 1)
    value: list[torch.Tensor] = []
    handle = lm.module("mlp_out", 1).register_forward_hook(
        lambda _m, _a, out: value.append(out[:, -1].detach())
    )
    lm.model(**asked)
    handle.remove()
    monkeypatch.setattr(sweeping, "endings", lambda *_: [*texts, reworded])
    monkeypatch.setattr(
        sweeping, "sought", lambda *_, **__: Found(module, value[0], torch.tensor([0.05]))
    )
    monkeypatch.setattr(sweeping, "tried", lambda _: [1])
    (one,) = sweep(lm)
    assert (one.learnt, one.said, one.reworded) == (1.0, 0.5, 1.0)
    assert abs(one.drift) < 1e-5


def test_half_precision_is_swept_too(make_lm: Callable[..., LM]) -> None:
    lm = make_lm("llama", dtype=torch.float16)
    assert best(lm, sweep(lm)) in tried(lm)
    assert best(lm, sweep(lm)) in tried(lm)  # read again


# --- which is the best ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("readings", "layer"),
    [
        ([reading(0, 0.5, 0.1), reading(1, 1.0, 0.9), reading(2, 0.5, 0.2)], 1),
        ([reading(0, 1.0, 0.5), reading(1, 1.0, 0.2), reading(2, 1.0, 0.5)], 1),
        ([reading(0, 1.0, 0.3), reading(1, 1.0, 0.5), reading(2, 1.0, 0.7)], 1),
        ([reading(0, 1.0, 0.2), reading(1, 1.0, 0.2, 0.75), reading(2, 1.0, 0.2, 0.25)], 1),
        ([reading(0, 0.0, 0.0), reading(1, 0.0, 0.1), reading(2, 0.0, 0.2)], 2),
        ([reading(0, 1.0, math.inf), reading(1, 1.0, 0.3), reading(2, 1.0, math.inf)], 1),
        ([reading(0, 1.0, 0.1), reading(1, 1.0, 0.0), reading(2, 1.0, 0.1)], 1),
    ],
    ids=["says most", "moves least", "is highest", "one of twelve", "two thirds", "inf", "nothing"],
)
def test_the_best_says_most_moves_least_is_highest(
    readings: list[Reading], layer: int, lm: LM
) -> None:
    assert best(lm, readings) == layer


# --- what is kept ---------------------------------------------------------------------------------


class Quick:
    """Instead of an exam: every layer as good as the other, and counted."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def __call__(self, _lm: LM, _layers: list[int]) -> "Quick":
        return self

    def take(self, layer: int) -> Reading:
        self.taken.append(layer)
        return reading(layer, 1.0, 1 / (1 + layer))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Quick:
    made = Quick()
    monkeypatch.setattr(sweeping, "_Exam", made)
    return made


def test_a_model_is_swept_once(make_lm: Callable[..., LM], quick: Quick) -> None:
    first = sweep(make_lm())
    assert sweep(make_lm()) == first
    assert quick.taken == [1, 2]
    sweep(make_lm(seed=1))
    assert quick.taken == [1, 2] * 2
    assert sweep(make_lm(), again=True) == first
    assert quick.taken == [1, 2] * 3


@pytest.mark.parametrize(
    "text",
    ['[{"layer": 1,', "", "\0", "null", "[]", "[1, 2]", '[{"layer": 1}]', "other layers"],
)
def test_a_damaged_file_is_made_anew(text: str, lm: LM, quick: Quick, cache: Path) -> None:
    whole = sweep(lm)
    other = json.dumps([asdict(replace(one, layer=one.layer + 1)) for one in whole])
    kept(cache).write_text(other if text == "other layers" else text)
    assert sweep(lm) == whole
    assert json.loads(kept(cache).read_text()) == [asdict(one) for one in whole]


def test_progress_is_told(lm: LM, quick: Quick) -> None:
    told: list[float] = []
    sweep(lm, progress=lambda _, done: told.append(done))
    assert told == [0.0, 0.5]


def test_a_cache_that_cannot_be_written_is_told_with_the_way_out(
    lm: LM, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheUnwritable, match="--set layer=N"):
        sweep(lm)


def test_an_unknown_family_is_told_how_it_becomes_known(lm: LM, cache: Path) -> None:
    with pytest.raises(UnsupportedModel, match="LAYOUTS"):
        sweep(replace(lm, layout=None))
    assert not cache.exists()


# --- what GRACE makes of it -----------------------------------------------------------------------


def test_grace_takes_the_best_layer_unless_it_is_told_another(lm: LM, quick: Quick) -> None:
    def module(**options: Any) -> str:
        how = Grace(steps=1, most=torch.inf, **options)
        return how.propose(lm, [Edit(ASKED, "Jo", subject="Acme")]).module

    assert module(layer=0) == lm.path("mlp_out", 0)
    assert quick.taken == []
    for _ in range(2):
        assert module() == lm.path("mlp_out", best(lm, sweep(lm)))
        assert quick.taken == [1, 2]


def test_the_first_edit_of_a_model_sweeps_it(
    model: EditableModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While other edits are in the weights, too: what is swept is the base model."""
    monkeypatch.setitem(METHODS, "grace", Grace(steps=2, most=torch.inf))
    base = sweep(model._session.lm)
    kept(cache).unlink()
    model.edit("Where is Bolt?", "Oslo", subject="Bolt", method="ft-constrained")
    model.edit(ASKED, "Jo", subject="Acme", method="grace")
    found = sweep(model._session.lm)
    assert [replace(one, seconds=0) for one in found] == [replace(one, seconds=0) for one in base]
