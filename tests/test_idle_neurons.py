"""Idle neurons: what is overwritten, when it fires, and whose it is after an undo."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.activations import ACT2FN

from lifelong import METHODS, EditableModel, moments, sample
from lifelong.errors import UpdateRejected
from lifelong.hooks import tracing
from lifelong.lm import LM
from lifelong.methods.idle_neurons import IdleNeurons, _least, _neurons, _states
from lifelong.methods.keys_values import Search
from lifelong.methods.wording import wordings
from lifelong.weights import Weights
from store import Delta, Edit, StoredPatch

FEW = Search(steps=6, rate=1.0, clamp=1.0)
METHOD = IdleNeurons(search=FEW, rounds=0)
EDITS = [
    Edit("The capital of Atlantis is", "Rome", subject="Atlantis"),
    Edit("Lemuria lies in the", "South", subject="Lemuria"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("LIFELONG_CACHE", str(cache))
    monkeypatch.setitem(METHODS, "idle-neurons", METHOD)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def stored(id: int, patch: Delta, live: tuple[int, ...]) -> StoredPatch:
    places = tuple(range(len(next(iter(patch.factors.values())).owner)))
    return StoredPatch(id, patch, places, frozenset(live), places)


def proposed(lm: LM, edits: list[Edit], *before: StoredPatch) -> Delta:
    METHOD.prepare(lm)
    return METHOD.propose(lm, edits, before)


def taken(patch: Delta) -> dict[str, list[int]]:
    """The neurons that it overwrites, by the output matrix they write with."""
    return {
        name: factors.v.argmax(0).tolist()
        for name, factors in patch.factors.items()
        if not factors.keys.size
    }


def test_one_neuron_an_edit_is_overwritten_and_no_other(every_lm: LM) -> None:
    patch = proposed(every_lm, EDITS)
    ((out, neurons),) = taken(patch).items()
    assert len(set(neurons)) == len(EDITS)
    for name, factors in patch.factors.items():
        change = factors.change({0, 1})
        rows = change.T if name == out else change
        assert set(np.flatnonzero(np.abs(rows).sum(1))) == set(neurons)


def test_the_idlest_neurons_are_taken(every_lm: LM) -> None:
    ((out, neurons),) = taken(proposed(every_lm, EDITS)).items()
    writes = {
        every_lm.path("mlp_out", layer) + ".weight": moments.moment(
            every_lm, layer
        ).matrix.diagonal()
        * _neurons(every_lm, "mlp_out", layer).double().square().sum(1)
        for layer in METHOD.layers(every_lm)
    }
    assert set(neurons) == set(writes[out].argsort()[:2].tolist())
    assert writes[out].sort().values[:2].sum() == min(
        w.sort().values[:2].sum() for w in writes.values()
    )


def test_a_neuron_is_as_active_as_its_rows_say(every_lm: LM) -> None:
    """Whichever way round the matrices are kept, with a gate or without, with a bias or without."""
    lm, weights = every_lm, Weights(every_lm)
    patch = proposed(lm, EDITS)
    ((out, neurons),) = taken(patch).items()
    layer = next(n for n in METHOD.layers(lm) if lm.path("mlp_out", n) in out)
    texts = wordings(lm, EDITS)
    own = _states(lm, [t for t in texts if t.kind != "essence"], layer).view(2, -1, lm.hidden)
    near, one = METHOD._reads(lm, layer, own, torch.zeros(0, lm.hidden))
    config = lm.model.config.to_dict()
    kinds = ("hidden_activation", "hidden_act", "activation_function")
    act = ACT2FN[next(config[kind] for kind in kinds if config.get(kind))]
    module = lm.model.get_submodule(out.removesuffix(".weight"))
    for text in (t for t in texts if t.kind == "bare"):
        row = [*text.head, text.tail[0]]
        x = sample.read(lm, lm.path("mlp_in", layer), [row])[-1].double()
        s = near[text.edit] @ x
        expected = act(METHOD.sharp / (1 - METHOD.rim) * (s - METHOD.rim * one @ x))
        if lm.layout and lm.layout.mlp_gate:
            expected = expected * s
        seen: list[torch.Tensor] = []
        with (
            weights.held(weights.state([stored(1, patch, (0, 1))])),
            torch.no_grad(),
            tracing(after={module: lambda entered, _, seen=seen: seen.append(entered[0, -1])}),
        ):
            lm.model(input_ids=torch.tensor([row]))
        active = seen[0][neurons[text.edit]]
        torch.testing.assert_close(active.double(), expected, atol=1e-3, rtol=1e-3)


def test_least_gives_what_is_wanted_and_moves_ordinary_text_least() -> None:
    random = torch.Generator().manual_seed(0)
    usual = torch.randn(500, 24, generator=random).double()
    spread = usual.T @ usual / 500
    states = 5 * torch.randn(3, 6, 24, generator=random).double()
    wanted = torch.tensor([1.0, 1, 0, 0, 0, 0]).double().expand(3, 6)
    w = _least(torch.linalg.cholesky(spread), states, wanted, 1e9)
    torch.testing.assert_close((states @ w[:, :, None])[:, :, 0], wanted, atol=1e-5, rtol=0)
    # What any other w with the same answers adds is across it, seen by ordinary text.
    _, _, free = torch.linalg.svd(states[0])
    torch.testing.assert_close(
        free[6:] @ spread @ w[0], torch.zeros(18, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_a_batch_that_finds_no_idle_neurons_is_refused(lm: LM) -> None:
    METHOD.prepare(lm)
    with pytest.raises(UpdateRejected, match="idle neurons"):
        replace(METHOD, share=0.01).propose(lm, EDITS, ())


@pytest.mark.parametrize("live", [(0, 1), (1,), ()])
def test_a_neuron_belongs_to_its_edit_even_while_it_is_undone(
    lm: LM, live: tuple[int, ...]
) -> None:
    first = proposed(lm, EDITS)
    ((out, neurons),) = taken(first).items()
    again = taken(
        proposed(lm, [Edit("Who runs Acme?", "Jo", subject="Acme")], stored(1, first, live))
    )
    assert not set(neurons) & set(again.get(out, []))


@pytest.mark.parametrize("replay", [False, True])
def test_a_redo_finds_its_neuron_free(
    make_model: Callable[..., EditableModel], replay: bool
) -> None:
    model = make_model("llama")
    ids = [model.edit(e.prompt, e.target, subject=e.subject, method="idle-neurons") for e in EDITS]
    model.undo(ids[0].id, replay=replay)
    model.edit("Who runs Acme?", "Jo", subject="Acme", method="idle-neurons")
    model.redo(ids[0].id)
    patches = model._session.deltas()
    neurons = [(name, n) for one in patches for name, ns in taken(one.patch).items() for n in ns]
    assert len(neurons) == len(set(neurons)) == 3


def test_states_of_ordinary_text_are_kept_for_each_layer(lm: LM) -> None:
    METHOD.prepare(lm)
    for layer in METHOD.layers(lm):
        assert sample.sample(lm, lm.path("mlp_in", layer)).shape[1] == lm.hidden


def test_other_text_is_hardly_moved(real_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real model, where subjects stand apart."""
    monkeypatch.undo()  # the user's own cache: what is measured once a model takes a while
    lm, weights = real_lm, Weights(real_lm)
    method = IdleNeurons()
    method.prepare(lm)
    edit = Edit("The mother tongue of Danielle Darrieux is", "English", subject="Danielle Darrieux")
    patch = method.propose(lm, [edit], ())
    weights.check(patch)

    def following(text: str) -> torch.Tensor:
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([lm.tokenizer.encode(text)])).logits[0, -1]
        return logits.log_softmax(-1)

    others = ["The mother tongue of Thomas Joannes is", "Two and two are", "The capital of Peru is"]
    before = [following(text) for text in others]
    with weights.held(weights.state([stored(1, patch, (0,))])):
        after = [following(text) for text in others]
        said = lm.tokenizer.decode(following(edit.prompt).argmax())
    assert said.strip() == "English"
    for now, was in zip(after, before, strict=True):
        assert float((was.exp() * (was - now)).sum()) < 0.01
