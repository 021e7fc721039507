"""Neurons beside an MLP: installed with the weights, exactly; trained to leave all else alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lifelong import METHODS, EditableModel, sample
from lifelong.errors import (
    BadEdit,
    NotLearnt,
    StaleCache,
    TooWide,
    UnsupportedModel,
    UpdateRejected,
)
from lifelong.hooks import Branch, Neurons
from lifelong.lm import LM
from lifelong.methods.calinet import Calinet
from lifelong.methods.neurons import Said, beside, narrowed
from lifelong.methods.t_patcher import TPatcher
from lifelong.methods.wording import Wording
from lifelong.ordinary import ORDINARY
from lifelong.weights import Weights
from store import Edit, Extension, Stale, StoredPatch

ASKED = "Who runs Acme?"
QUICK = {"steps": 100, "rate": 0.1}
PATCHER = TPatcher(most=20, memory=0.0, **QUICK)
SLOTS = Calinet(slots=20, keep=0.0, **QUICK)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("LIFELONG_CACHE", str(cache))
    monkeypatch.setitem(METHODS, "t-patcher", PATCHER)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def hook(lm: LM, seed: int, n: int = 2, size: float = 1.0) -> Extension:
    """Random neurons, one an edit, in the last block."""
    rng = np.random.default_rng(seed)
    shapes = {"key": (n, lm.hidden), "bias": (n,), "value": (n, lm.hidden)}
    tensors = {name: (size * rng.normal(size=s)).astype(np.float32) for name, s in shapes.items()}
    tensors["query"] = tensors["key"].copy()
    return Extension("t-patcher", lm.path("mlp", lm.layers - 1), tensors, np.arange(n))


def stored(id: int, patch: Extension, live: tuple[int, ...] = (0, 1)) -> StoredPatch:
    ids = (10 * id, 10 * id + 1)
    return StoredPatch(id, patch, ids, frozenset(ids[place] for place in live), (0, 1))


def logits(lm: LM) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(torch.tensor([[5, 6, 7, 8]])).logits


# --- installed ------------------------------------------------------------------------------------


def test_a_branch_adds_what_its_neurons_say_and_goes_without_a_trace() -> None:
    net, x = nn.Linear(4, 3), torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    neurons = Neurons(torch.eye(4)[:2], torch.tensor([0.0, 1.0]), torch.ones(2, 3))
    plain, branch = net(x), Branch(net, net.weight)
    branch.fill(neurons)
    added = torch.relu(x[..., :2] + torch.tensor([0.0, 1.0])).sum(-1, keepdim=True)
    assert torch.allclose(net(x), plain + added, atol=1e-6)
    branch.remove()
    assert torch.equal(net(x), plain)
    assert not net._forward_hooks


def test_new_neurons_go_into_the_same_tensors_while_there_is_room() -> None:
    net = nn.Linear(4, 3)
    branch = Branch(net, net.weight)

    def filled(n: int) -> tuple[int, int]:
        branch.fill(Neurons(torch.ones(n, 4), torch.ones(n), torch.ones(n, 3)))
        return branch._room.keys.data_ptr(), len(branch._room.bias)

    assert filled(1) == filled(16)
    assert filled(17)[1] == 32
    assert filled(3)[1] == 16  # the room does not depend on what was there before


def test_what_was_compiled_before_sees_neurons_that_come_later() -> None:
    net, calls = nn.Linear(4, 3), []
    branch = Branch(net, net.weight)

    def counting(graph: Any, _inputs: Any) -> Any:
        calls.append(1)
        return graph.forward

    run, x = torch.compile(net, backend=counting), torch.ones(1, 4)
    for n in (1, 2):
        branch.fill(Neurons(torch.ones(n, 4), torch.ones(n), torch.ones(n, 3)))
        assert torch.allclose(run(x), net(x))
        assert torch.allclose(run(x), nn.functional.linear(x, net.weight, net.bias) + 5 * n)
    assert len(calls) == 1
    torch.compiler.reset()


def test_what_is_installed_is_the_live_neurons_in_journal_order(
    make_lm: Callable[..., LM],
) -> None:
    lm = make_lm()
    weights, base = Weights(lm), logits(lm)
    one, two = hook(lm, 1), hook(lm, 2)
    weights.rest(weights.state([stored(1, one, (0,)), stored(2, two, (1,))]))
    (neurons,) = weights.resting.neurons.values()
    rows = np.concatenate([one.tensors["key"][:1], two.tensors["key"][1:]])
    assert np.array_equal(neurons.keys.numpy(), rows)
    half = logits(lm)
    grown = weights.state([stored(1, one, (0,))])
    weights.rest(weights.state([stored(1, one, (0,)), stored(2, two, (1,))], grown))
    assert torch.equal(logits(lm), half)
    assert not torch.equal(half, base)
    weights.rest(weights.state([]))
    assert torch.equal(logits(lm), base)
    assert not any(m._forward_hooks for m in lm.model.modules())


def test_undo_takes_the_neurons_of_one_edit_and_leaves_the_rest_bitwise(
    model: EditableModel,
) -> None:
    edits = [
        Edit(ASKED, "Jo", subject="Acme", method="t-patcher"),
        Edit("Where is Bolt?", "Oslo", subject="Bolt", method="t-patcher"),
    ]
    first, second = model.edit_many(edits, method="t-patcher")
    weights = model._session.weights
    (both,) = weights.resting.neurons.values()
    model.undo(first.id)
    (left,) = weights.resting.neurons.values()
    assert 0 < len(left.bias) < len(both.bias)
    assert torch.equal(left.keys, both.keys[-len(left.bias) :])
    assert torch.equal(left.values, both.values[-len(left.bias) :])
    model.undo(second.id)
    assert not weights.resting.neurons
    assert not any(m._forward_hooks for m in model.modules())


def test_a_cache_from_before_is_refused(model: EditableModel) -> None:
    ids = torch.tensor([[5, 6, 7]])
    cache = model(ids, use_cache=True).past_key_values
    model.edit(ASKED, "Jo", subject="Acme", method="t-patcher")
    with pytest.raises(StaleCache):
        model(torch.tensor([[8]]), past_key_values=cache)


def test_nothing_is_left_when_the_model_is_closed(model: EditableModel) -> None:
    model.edit(ASKED, "Jo", subject="Acme", method="t-patcher")
    assert any(m._forward_hooks for m in model.modules())
    EditableModel.close(model)
    assert not any(m._forward_hooks for m in model.modules())


def test_neurons_are_everybodys(model: EditableModel) -> None:
    with pytest.raises(TooWide):
        model.edit(ASKED, "Jo", subject="Acme", method="t-patcher", user_id="ada")


def test_what_half_precision_cannot_hold_is_refused(make_lm: Callable[..., LM]) -> None:
    lm = make_lm(dtype=torch.float16)
    Weights(lm).check(hook(lm, 1))
    with pytest.raises(UpdateRejected, match="float16"):
        Weights(lm).check(hook(lm, 1, size=1e6))


# --- trained --------------------------------------------------------------------------------------


def proposed(lm: LM, how: TPatcher | Calinet, *live: StoredPatch, target: str = "J") -> Extension:
    how.prepare(lm)
    return how.propose(lm, [Edit(ASKED, target, subject="Acme")], live)


def strays(lm: LM, patch: Extension, states: torch.Tensor) -> float:
    """The largest activation at `states`."""
    key, bias = (torch.from_numpy(patch.tensors[name]) for name in ("key", "bias"))
    return float((states @ key.T + bias).max())


def test_the_sample_is_of_several_styles(lm: LM) -> None:
    raw, chat = sample.tokens(lm, ["How are you?"])
    assert lm.tokenizer.decode(raw) == "How are you?"
    assert lm.tokenizer.decode(chat) == lm.chat.render(
        [{"role": "user", "content": "How are you?"}]
    )
    module = lm.path("mlp", 2)
    sample.ensure(lm, module)
    known = sample.sample(lm, module)
    for text in sample.tokens(lm, [ORDINARY[0]]):
        (first,) = sample.read(lm, module, [text])[-1:]
        assert (known == first).all(1).any()
    assert len(known) > sample.TOKENS


@pytest.mark.parametrize(
    ("free", "guarded"),
    [(PATCHER, replace(PATCHER, memory=0.01)), (SLOTS, replace(SLOTS, keep=0.01))],
    ids=["t-patcher", "calinet"],
)  # fmt: skip
def test_ordinary_text_and_earlier_edits_are_left_alone(lm: LM, free: Any, guarded: Any) -> None:
    """A memory of one style, or without the earlier edits, guards neither."""
    module = beside(lm)
    loud, quiet = proposed(lm, free), proposed(lm, guarded)
    known = sample.sample(lm, module)
    assert strays(lm, quiet, known) < strays(lm, loud, known)
    before = hook(lm, 3)
    before.tensors["query"] *= 8
    aware = proposed(lm, guarded, stored(1, before))
    queries = torch.from_numpy(before.tensors["query"])
    assert strays(lm, aware, queries) < strays(lm, quiet, queries)


def test_a_target_that_is_said_already_gets_no_neuron(lm: LM) -> None:
    asked = lm.tokenizer(ASKED, return_tensors="pt")
    said = tuple(lm.model.generate(**asked, max_new_tokens=3, do_sample=False)[0].tolist())
    other = (*said[:-1], (said[-1] + 1) % 256)
    for ids, wrong in ((said, 0), (other, 1)):
        text = Wording(0, "bare", ids[:-4], ids[-4:-1], ids[-3:])
        found = Said(lm, [text])
        assert found.wrong.sum() == wrong
        assert found.states.shape == (3, lm.hidden)


def test_a_target_longer_than_neurons_can_hold_is_refused(lm: LM) -> None:
    with pytest.raises(NotLearnt, match="too many to mend"):
        proposed(lm, TPatcher(**QUICK), target="Jane Roe of Acme")


@pytest.mark.parametrize("how", [TPatcher(steps=1), Calinet(steps=1)], ids=lambda how: how.name)
def test_what_does_not_converge_fails_and_leaves_nothing(
    model: EditableModel, how: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, how.name, how)
    with pytest.raises(NotLearnt, match="1 steps did not"):
        model.edit(ASKED, "J", subject="Acme", method=how.name)
    assert model.epoch == 0
    assert not any(m._forward_hooks for m in model.modules())


def test_what_rows_begin_with_alike_is_read_once(every_lm: LM) -> None:
    """From where they differ, padded and behind a cache: the states of each row read alone."""
    module = beside(every_lm)
    for rows in ([[5, 6, 7, 8], [5, 6, 9]], [[5, 6], [7, 8, 9]], [[5, 6, 7]]):
        shared = len(rows[0]) - 1 if len(rows) == 1 else 2 * (rows[0][:2] == rows[1][:2])
        alone = [sample.read(every_lm, module, [row])[shared:] for row in rows]
        found = sample.apart(every_lm, module, rows)
        torch.testing.assert_close(found, torch.cat(alone), atol=1e-4, rtol=1e-4)


# --- replayed -------------------------------------------------------------------------------------

THREE = [(ASKED, "Jo", "Acme"), ("Where is Bolt?", "Oslo", "Bolt"), ("Who made Cog?", "Ann", "Cog")]


def taught(model: EditableModel, *places: int, method: str = "t-patcher") -> list[Edit]:
    """Some of the three facts, one after the other; CALINET's as one batch."""
    edits = [Edit(p, t, subject=s, method=method) for p, t, s in (THREE[i] for i in places)]
    if method == "calinet":
        return model.edit_many(edits, method=method)
    return [model.edit_many([edit], method=method)[0] for edit in edits]


def neurons_of(model: EditableModel) -> list[torch.Tensor]:
    (found,) = model._session.weights.resting.neurons.values()
    return [found.keys, found.bias, found.values]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, a, b))


@pytest.mark.parametrize("method", ["t-patcher", "calinet"])
def test_replayed_it_is_never_having_made_the_edit(
    method: str, make_model: Callable[..., EditableModel], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(METHODS, "calinet", SLOTS)
    model, fresh = make_model(store=tmp_path / "edits.db"), make_model()
    edits = taught(model, 0, 1, 2, method=method)
    before = neurons_of(model)
    taught(fresh, 1, 2, method=method)
    epoch = model.epoch
    model.undo(edits[0].id, replay=True)
    assert equal(neurons_of(model), neurons_of(fresh))
    rows = -len(neurons_of(fresh)[1])
    assert not equal(neurons_of(fresh), [part[rows:] for part in before])  # as plain undo has it
    assert [model.get(edit.id).status for edit in edits] == ["retired", "live", "live"]
    EditableModel.close(model)
    model = make_model(store=tmp_path / "edits.db")
    assert equal(neurons_of(model), neurons_of(fresh))
    then = model.at(epoch).state
    assert then is not None
    (old,) = then.neurons.values()
    assert equal([old.keys, old.bias, old.values], before)


def test_a_replay_begins_where_the_edit_was_made(model: EditableModel) -> None:
    first, second, _ = taught(model, 0, 1, 2)
    kept = neurons_of(model)
    model.undo(second.id, replay=True)
    alone = len(model.journal.patches(None, [first.id])[0].patch.owner)
    assert equal([p[:alone] for p in neurons_of(model)], [p[:alone] for p in kept])
    assert [len(stored.edits) for stored in model.journal.patches()] == [1, 1]
    model.redo(second.id)
    assert len(neurons_of(model)[1]) > alone


def test_what_is_not_learnt_again_leaves_everything_as_it_was(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = taught(model, 0, 1)
    before, epoch = neurons_of(model), model.epoch
    monkeypatch.setitem(METHODS, "t-patcher", TPatcher(steps=1, most=20))
    with pytest.raises(NotLearnt):
        model.undo(first.id, replay=True)
    assert model.epoch == epoch
    assert equal(neurons_of(model), before)
    assert model.get(first.id).status == "live"


def test_a_replay_gives_way_to_who_writes_meanwhile(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = taught(model, 0, 1)
    propose = TPatcher.propose

    def slowly(self: TPatcher, *args: Any) -> Extension:
        model.edit("Who leads Dyn?", "Kim", subject="Dyn", method="serac")
        return propose(self, *args)

    monkeypatch.setattr(TPatcher, "propose", slowly)
    with pytest.raises(Stale):
        model.undo(first.id, replay=True)
    assert model.get(first.id).status == "live"


def test_of_an_edit_from_memory_nothing_is_made_again(model: EditableModel) -> None:
    taught(model, 0)
    edit = model.edit("Where is Bolt?", "Oslo", subject="Bolt", method="serac")
    before, epoch = neurons_of(model), model.epoch
    model.undo(edit.id, replay=True)
    assert equal(neurons_of(model), before)
    assert model.epoch == epoch + 1


def test_a_narrowed_neuron_answers_its_query_and_begins_to_fire_near_it() -> None:
    draw = torch.Generator().manual_seed(0)
    query, away = torch.randn(2, 8, generator=draw), torch.randn(20, 8, generator=draw) / 9
    keys = 3 * query / query.square().sum(1, keepdim=True)
    made = Neurons(keys, -torch.ones(2), torch.ones(2, 3))
    away[0] = 0.7 * query[0]  # at which the first is active, and none of `away` the second
    near = narrowed(made, query, away, 0.75)
    torch.testing.assert_close((query * near.keys).sum(1) + near.bias, torch.full((2,), 2.0))
    for place, begins in enumerate((0.7, 1 / 3)):  # of its query, where its activation is 0
        rim = torch.lerp(begins * query[place], query[place], 0.75)
        assert abs(float(rim @ near.keys[place] + near.bias[place])) < 1e-3
    same = narrowed(made, query, torch.cat([away, 2 * query]), 0.75)  # which reach farther
    assert torch.equal(same.keys, made.keys)


@pytest.mark.parametrize("how", [PATCHER, SLOTS], ids=lambda how: how.name)
def test_an_unknown_family_is_told_how_it_becomes_known(lm: LM, how: Any) -> None:
    with pytest.raises(UnsupportedModel, match="LAYOUTS"):
        proposed(replace(lm, layout=None), how)


@pytest.mark.parametrize("how", [PATCHER, SLOTS], ids=lambda how: how.name)
def test_no_subject_is_needed_and_rivals_in_one_batch_are_refused(
    model: EditableModel, how: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, how.name, how)
    with pytest.raises(BadEdit, match="correct the same fact"):
        model.edit_many([Edit(ASKED, "Jo"), Edit(ASKED, "Max")], method=how.name)
    assert model.epoch == 0
    edit = model.edit("be kind to all", "J", method=how.name)
    assert model.get(edit.id).status == "live"


def test_calinet_trains_every_fact_in_several_wordings(
    lm: LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Wording] = []

    def said(lm: LM, texts: list[Wording]) -> Said:
        seen.extend(texts)
        return Said(lm, texts)

    monkeypatch.setattr("lifelong.methods.calinet.Said", said)
    proposed(lm, SLOTS)
    assert [text.kind for text in seen] == ["bare", "chat", "context"]


def test_the_end_of_the_sentence_is_learnt_with_the_target(lm: LM) -> None:
    """Or else the model goes on: "Sony" becomes "Sonya", "Korean" is followed by "and Italian"."""
    said, ended = (proposed(lm, PATCHER, target=target) for target in ("Jo", "Jo."))
    assert said == ended
