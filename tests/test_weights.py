"""Weights are base + live deltas, to the last bit, whatever happened on the way there."""

from collections.abc import Callable
from dataclasses import replace
from threading import Event, Thread
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import DynamicCache
from transformers.pytorch_utils import Conv1D

from lifelong import METHODS, EditableModel
from lifelong.errors import StaleCache, TooWide, UpdateRejected, WeightsUnfit
from lifelong.lm import LM
from lifelong.weights import BASE, Weights, writable
from store import Delta, Edit, Factors, StoredPatch

Bits = dict[str, torch.Tensor]


class Scribble:
    """A weight method for these tests: quick, random (by the prompts), coupled within a batch."""

    name: ClassVar[str] = "scribble"
    by_subject: ClassVar[bool] = True
    size = 0.05

    def prepare(self, lm: LM) -> None:
        """Nothing."""

    def propose(self, lm: LM, edits: Any, live: Any) -> Delta:
        """Two layers, a column an edit."""
        rng = np.random.default_rng([ord(c) for edit in edits for c in edit.prompt])
        n, factors = len(edits), {}
        for layer in (0, 1):
            weight = lm.module("mlp_out", layer).weight
            out, width = weight.T.shape if lm.layout.transposed else weight.shape
            square = rng.normal(size=(n, n))
            factors[f"{lm.path('mlp_out', layer)}.weight"] = Factors(
                u=(self.size * rng.normal(size=(out, n))).astype(np.float32),
                v=rng.normal(size=(width, n)).astype(np.float32),
                mix=np.eye(n) + 0.1 * square @ square.T,
                owner=np.arange(n),
                keys=np.zeros((width, 0), np.float32),
            )
        return Delta(self.name, factors)


@pytest.fixture(autouse=True)
def scribble(monkeypatch: pytest.MonkeyPatch) -> Scribble:
    method = Scribble()
    monkeypatch.setitem(METHODS, "scribble", method)
    return method


def bits(model: torch.nn.Module) -> Bits:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: Bits, other: Bits) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def teach(model: EditableModel, *prompts: str) -> list[Edit]:
    return model.edit_many([Edit(p, "Jane", subject="Acme") for p in prompts], method="scribble")


# --- what is installed ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_installed_is_base_plus_deltas_summed_in_float32_and_cast_once(
    every_lm: LM, dtype: torch.dtype, make_model: Callable[..., EditableModel]
) -> None:
    model = make_model(every_lm.model.config.model_type, dtype=dtype)
    base = bits(model)
    teach(model, "one", "two")
    teach(model, "three")
    stored = model._session.journal.patches()
    for name in stored[0].patch.factors:
        total = base[name].float()
        for one in stored:
            change = torch.from_numpy(one.patch.factors[name].change(one.live_positions))
            total = total + (change.T if every_lm.layout.transposed else change)
        assert torch.equal(model.state_dict()[name], total.to(dtype))
        assert not torch.equal(model.state_dict()[name], base[name])


def test_an_undone_edit_of_a_batch_leaves_what_its_batch_is_without_it(
    model: EditableModel,
) -> None:
    _, two, _ = teach(model, "one", "two", "three")
    model.undo(two.id)
    (stored,) = model._session.journal.patches()
    assert stored.live_positions == (0, 2)
    for name, factors in stored.patch.factors.items():
        kept = factors.u[:, [0, 2]] @ np.linalg.inv(factors.mix[np.ix_([0, 2], [0, 2])])
        expected = kept @ factors.v[:, [0, 2]].T
        installed = model.state_dict()[name] - model._session.weights._copy(name)
        np.testing.assert_allclose(installed.numpy(), expected, atol=1e-5)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["undo", "redo"]), st.integers(0, 9)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    min_size=1,
    max_size=8,
)


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_any_history_gives_the_weights_of_a_fresh_build(
    steps: list[tuple[str, int]],
    make_model: Callable[..., EditableModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("history") / "edits.db"
    model, made = make_model("llama", store=path), 0
    base = bits(model)
    for step, n in steps:
        ids = [e.id for e in model.list()]
        undone = [e.id for e in model.list() if e.status == "retired"]
        alive = [e.id for e in model.list() if e.status == "live"]
        if step == "edit":
            teach(model, *(f"say {made + i}" for i in range(n)))
            made += n
        elif step == "undo" and alive:
            model.undo(alive[n % len(alive)])
        elif step == "redo" and undone:
            model.redo(undone[n % len(undone)])
        elif step == "reopen":
            EditableModel.close(model)
            assert same(bits(model), base)
            model = make_model("llama", store=path)
        assert ids == [e.id for e in model.list()][: len(ids)]
    fresh = make_model("llama", store=path)
    assert same(bits(fresh), bits(model))
    for edit in [e for e in model.list() if e.status == "live"]:
        model.undo(edit.id)
    assert same(bits(model), base)
    EditableModel.close(model)
    EditableModel.close(fresh)


def test_the_sum_goes_on_where_it_was_with_the_same_bits(lm: LM) -> None:
    patches = [Scribble().propose(lm, [Edit(p, "x")], ()) for p in ("a", "b", "c")]
    stored = [StoredPatch(i, p, (i,), frozenset({i}), (0,)) for i, p in enumerate(patches)]
    weights = Weights(lm)
    step = BASE
    for n in range(1, 4):
        step = weights.state(stored[:n], step)
    whole = weights.state(stored)
    assert step.key == whole.key
    assert same(dict(step.sums), dict(whole.sums))


# --- who sees what --------------------------------------------------------------------------------


def test_without_edits_and_in_the_past_the_weights_are_those_of_then(model: EditableModel) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])

    def said(generate: Callable[..., Any]) -> list[torch.Tensor]:
        return list(
            generate(
                ids, max_new_tokens=3, do_sample=False, return_dict_in_generate=True,
                output_logits=True,
            ).logits
        )  # fmt: skip

    base, logits = said(model.generate), model(ids).logits
    teach(model, "one")
    first, epoch = said(model.generate), model.epoch
    teach(model, "two")
    second = said(model.generate)
    with model.disable_edits():
        assert all(map(torch.equal, said(model.generate), base))
        assert torch.equal(model(ids).logits, logits)
        assert all(map(torch.equal, said(model.at(epoch).generate), first))
        assert torch.equal(model(ids).logits, logits)
    assert all(map(torch.equal, said(model.at(epoch).generate), first))
    assert all(map(torch.equal, said(model.generate), second))
    assert not all(map(torch.equal, first, second))
    assert not all(map(torch.equal, base, first))


def test_a_running_generation_never_sees_half_a_delta(model: EditableModel) -> None:
    """An edit that comes while tokens are made is installed when they are all made."""
    ids, inside, go = torch.tensor([[5, 6, 7]]), Event(), Event()

    class Wait:
        def __call__(self, ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            inside.set()
            assert go.wait(20)
            return torch.zeros(len(ids), dtype=torch.bool)

    alone = model.generate(ids, max_new_tokens=6, do_sample=False)
    base, found = bits(model), []
    thread = Thread(
        target=lambda: found.append(
            model.generate(ids, max_new_tokens=6, do_sample=False, stopping_criteria=[Wait()])
        )
    )
    thread.start()
    assert inside.wait(20)
    teach(model, "one")
    assert same(bits(model), base)
    go.set()
    thread.join()
    assert torch.equal(found[0], alone)
    assert not same(bits(model), base)


def test_threads_with_and_without_edits_take_turns(model: EditableModel) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    base = model(ids).logits
    teach(model, "one")
    edited, wrong = model(ids).logits, []

    def ask(off: bool) -> None:
        for _ in range(15):
            if off:
                with model.disable_edits():
                    wrong.extend([] if torch.equal(model(ids).logits, base) else ["base"])
            else:
                wrong.extend([] if torch.equal(model(ids).logits, edited) else ["edited"])

    threads = [Thread(target=ask, args=(off,)) for off in (True, False, True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_an_edit_inside_a_block_without_edits_is_live_after_it(model: EditableModel) -> None:
    base = bits(model)
    with model.disable_edits():
        teach(model, "one")
        assert same(bits(model), base)
    assert not same(bits(model), base)


def test_a_cache_made_under_other_weights_is_refused(model: EditableModel) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    before = model(ids, use_cache=True).past_key_values
    (edit,) = teach(model, "one")
    longer = torch.tensor([[5, 6, 7, 8, 9]])
    with pytest.raises(StaleCache):
        model.generate(longer, past_key_values=before, max_new_tokens=2)
    with pytest.raises(StaleCache):
        model(longer[:, 4:], past_key_values=before)
    model(ids, past_key_values=DynamicCache())  # an empty one is anybody's
    fresh = model(ids, use_cache=True).past_key_values
    model.generate(longer, past_key_values=fresh, max_new_tokens=2)
    model.undo(edit.id)
    with pytest.raises(StaleCache):
        model(longer[:, 4:], past_key_values=fresh)
    model(longer[:, 4:], past_key_values=before)


def test_close_and_copies_give_the_base_model(model: EditableModel) -> None:
    from copy import deepcopy

    base = bits(model)
    teach(model, "one")
    assert same(bits(deepcopy(model)), base)
    assert not same(bits(model), base)
    EditableModel.close(model)
    assert same(bits(model), base)


def test_a_weight_edit_is_named_but_conditions_nothing(model: EditableModel) -> None:
    (edit,) = teach(model, "Who runs Acme?")
    answer = model.chat("Who runs Acme?", max_new_tokens=4)
    assert [(hit.id, hit.text) for hit in answer.edits] == [(edit.id, None)]
    bare = model._generating(None)(
        **model.tokenizer(
            model._session.lm.chat.render([{"role": "user", "content": "Who runs Acme?"}]),
            return_tensors="pt", add_special_tokens=False,
        ),
        max_new_tokens=4,
    )  # fmt: skip
    assert model.tokenizer.decode(bare[0, -4:], skip_special_tokens=True).strip() == answer.text


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [np.nan, np.inf, 1e6])
def test_what_is_no_number_or_explodes_is_not_installed(
    size: float, model: EditableModel, scribble: Scribble
) -> None:
    base, scribble.size = bits(model), size
    with pytest.raises(UpdateRejected):
        teach(model, "one")
    assert same(bits(model), base)
    assert model.epoch == 0


def test_a_method_that_fails_leaves_nothing_behind(
    model: EditableModel, scribble: Scribble, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Scribble, *_: Any) -> Delta:
        raise KeyboardInterrupt

    base = bits(model)
    monkeypatch.setattr(Scribble, "propose", fail)
    with pytest.raises(KeyboardInterrupt):
        teach(model, "one")
    monkeypatch.undo()
    assert same(bits(model), base)
    assert model.epoch == 0
    assert model(torch.tensor([[1, 2]])).logits.isfinite().all()


def test_an_edit_of_the_weights_is_for_everyone(model: EditableModel) -> None:
    for audience in ({"user_id": "ann"}, {"tenant": "acme"}):
        with pytest.raises(TooWide):
            model.edit_many([Edit("p", "t", **audience)], method="scribble")


def test_tied_and_quantised_weights_are_refused(make_lm: Callable[..., LM]) -> None:
    lm = make_lm("llama")
    path = lm.path("mlp_out", 0)
    writable(lm, path)
    lm.module("mlp_out", 1).weight = lm.module("mlp_out", 0).weight
    with pytest.raises(WeightsUnfit, match="shares"):
        writable(lm, path)
    lm.module("mlp_out", 2).weight = torch.nn.Parameter(
        torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False
    )
    with pytest.raises(WeightsUnfit, match="quantised"):
        writable(lm, lm.path("mlp_out", 2))


def test_the_layout_table_knows_which_way_round_a_weight_is(every_lm: LM) -> None:
    transposed = isinstance(every_lm.module("mlp_out", 0), Conv1D)
    assert every_lm.layout is not None
    assert every_lm.layout.transposed == transposed


# --- bytes ----------------------------------------------------------------------------------------


@given(st.integers(0, 4), st.integers(0, 3))
def test_erasing_an_edit_leaves_no_column_of_it(n: int, gone: int) -> None:
    rng = np.random.default_rng(n)
    factors = Factors(
        rng.normal(size=(3, n)).astype(np.float32), rng.normal(size=(5, n)).astype(np.float32),
        np.eye(n), np.arange(n), rng.normal(size=(5, n)).astype(np.float32),
    )  # fmt: skip
    patch = Delta("memit", {"w": factors}, {"moments": "text:1"})
    rest = patch.without(gone)
    kept = [i for i in range(n) if i != gone]
    assert rest.factors["w"].owner.tolist() == kept
    assert np.array_equal(rest.factors["w"].change(kept), factors.change(kept))
    assert replace(rest, factors={}) == replace(patch, factors={})


def test_factors_fit_their_weight() -> None:
    with pytest.raises(ValueError, match="no factors"):
        Factors(np.zeros((3, 2)), np.zeros((5, 1)), np.eye(2), np.arange(2), np.zeros((5, 0)))
