"""What single weight methods promise beside what all of them do (test_conformance.py)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lifelong.errors import BadSetting, UnsupportedModel
from lifelong.hooks import tracing
from lifelong.lm import LM
from lifelong.methods import METHODS, WeightMethod
from lifelong.methods.ft_constrained import FtConstrained, _lines, _Texts
from lifelong.methods.knowledge_neurons import KnowledgeNeurons, attribution
from lifelong.methods.memit_csk import MemitCsk
from lifelong.methods.ultraedit import BATCH, UltraEdit
from lifelong.methods.wording import asked
from lifelong.weights import Weights
from store import Delta, Edit, StoredPatch

EDITS = [
    Edit("The capital of Atlantis is", "Rome", subject="Atlantis"),
    Edit("Lemuria lies in the", "South", subject="Lemuria"),
]

WRITERS = [method for method in METHODS.values() if isinstance(method, WeightMethod)]


def stored(patch: Delta, *live: int) -> StoredPatch:
    return StoredPatch(1, patch, live, frozenset(live), live)


def loss(lm: LM, edit: Edit) -> float:
    """Mean NLL of the target's tokens."""
    prompt = lm.tokenizer.encode(edit.prompt)
    ids = torch.tensor([lm.tokenizer.encode(f"{edit.prompt} {edit.target}")])
    with torch.no_grad():
        said = lm.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return -float(said.gather(1, ids[0, len(prompt) :, None]).mean())


@pytest.mark.parametrize("method", WRITERS, ids=lambda method: method.name)
def test_a_family_without_a_layout_is_refused_by_name(method: WeightMethod, lm: LM) -> None:
    with pytest.raises(UnsupportedModel, match="LAYOUTS"):
        method.propose(replace(lm, layout=None), EDITS, ())


# --- UltraEdit ------------------------------------------------------------------------------------


def test_ultraedit_changes_what_opens_and_fills_the_mlps(every_lm: LM) -> None:
    names = UltraEdit().propose(every_lm, EDITS, ()).factors
    gated = every_lm.layout is not None and every_lm.layout.mlp_gate is not None
    assert {every_lm.path("mlp_in", layer) + ".weight" for layer in (1, 2)} <= set(names)
    assert (every_lm.path("mlp_gate", 1) + ".weight" in names) if gated else len(names) == 2


def test_ultraedit_loses_no_text_of_the_last_batch(lm: LM) -> None:
    many = [Edit(f"The capital of Land{i} is", "Rome", subject=f"Land{i}") for i in range(BATCH)]
    many.append(Edit("Lemuria lies in the", "South", subject="Lemuria"))
    for factors in UltraEdit().propose(lm, many, ()).factors.values():
        assert set(factors.owner) == set(range(len(many)))
        assert (np.abs(factors.u).sum(0) > 0).all()


def test_ultraedit_writes_a_single_token(make_lm: Callable[..., LM]) -> None:
    """Nothing varies over one row: that must be no NaN, and no change of nothing either."""
    lm = make_lm("llama", template=None)
    edit = Edit("Atlantis is ", "X", subject="Atlantis")
    for factors in UltraEdit().propose(lm, [edit], ()).factors.values():
        assert factors.u.shape[1] == 1
        assert np.isfinite(factors.u).all()
        assert np.abs(factors.u).max() > 0


def test_ultraedits_statistics_are_those_of_what_is_live(lm: LM) -> None:
    method = UltraEdit()
    first = method.propose(lm, EDITS, ())
    third = [Edit("Who runs Acme?", "Jane", subject="Acme")]
    alone, after, undone = (
        method.propose(lm, third, live) for live in ((), (stored(first, 0, 1),), (stored(first),))
    )
    assert alone == undone
    assert alone != after


# --- constrained fine-tuning ----------------------------------------------------------------------


def test_a_constrained_change_is_no_longer_than_it_may_be(lm: LM) -> None:
    method, weights = FtConstrained(size=0.02, steps=10), Weights(lm)
    (name, factors), *_ = method.propose(lm, EDITS, ()).factors.items()
    size = np.linalg.norm(factors.change((0, 1))) / float(weights._copy(name).norm())
    assert 0.015 < size < 0.02001


def test_constrained_tuning_learns_behind_true_prefixes(lm: LM) -> None:
    """Every target token is predicted behind those before it, from the model's own logits."""
    texts = [t for t in asked(lm, EDITS) if t.kind == "bare"]
    told = _Texts(lm, 1, [(*t.head, *t.tail) for t in texts], [t.labels for t in texts])
    found = float(told.loss(lambda _, out: out).detach())
    assert found == pytest.approx(np.mean([loss(lm, edit) for edit in EDITS]), abs=1e-3)


def test_kept_text_holds_a_constrained_change_back(make_lm: Callable[..., LM]) -> None:
    """In small steps: in large ones a change that is held swings from one side to the other."""

    def moves(weight: float) -> float:
        lm = make_lm("llama")
        method = FtConstrained(weight=weight, size=0.3, rate=0.02, steps=40)
        kept, weights = _Texts(lm, method.layer(lm), *zip(*_lines(lm), strict=True)), Weights(lm)
        patch = method.propose(lm, EDITS, ())
        with torch.no_grad():
            before = kept.loss(lambda _, out: out)
            with weights.held(weights.state([stored(patch, 0, 1)])):
                return abs(float(kept.loss(lambda _, out: out) - before))

    assert moves(100.0) < 0.5 * moves(0.0)


def test_constrained_tuning_says_the_targets(make_lm: Callable[..., LM]) -> None:
    lm = make_lm("gpt2")
    before = [loss(lm, edit) for edit in EDITS]
    weights = Weights(lm)
    patch = FtConstrained(size=0.5).propose(lm, EDITS, ())
    with weights.held(weights.state([stored(patch, 0, 1)])):
        assert all(loss(lm, e) < b - 0.5 for e, b in zip(EDITS, before, strict=True))


# --- MEMIT_CSK ------------------------------------------------------------------------------------


def test_common_sense_is_written_at_a_part_of_the_statement() -> None:
    edit = Edit("Hungry people eat small stones:", "False", subject="people")
    found = [MemitCsk(span=span).where(edit) for span in ("subject", "verb", "object")]
    assert found == ["people", "eat", "small stones"]
    assert MemitCsk().where(Edit("Who runs Acme?", "Ann", subject="Acme")) == "Acme"
    with pytest.raises(BadSetting, match="adverb"):
        MemitCsk(span="adverb").where(edit)


# --- knowledge neurons ----------------------------------------------------------------------------


def test_attributions_add_up_to_what_the_neurons_give(every_lm: LM) -> None:
    """Completeness: over one layer, P with the activations less P with none of them."""
    ids, answer = every_lm.tokenizer.encode("Lemuria lies"), 70
    _, carried = attribution(every_lm, ids, len(ids) - 1, answer)

    def probability(layer: int | None) -> float:
        def nothing(entered: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
            assert layer is not None
            module = every_lm.module("mlp_out", layer)
            weight = module.weight if every_lm.layout.transposed else module.weight.T
            last = out[:, -1] - entered[:, -1] @ weight
            return torch.cat([out[:, :-1], last[:, None]], dim=1)

        after = {} if layer is None else {every_lm.module("mlp_out", layer): nothing}
        with torch.no_grad(), tracing(after=after):
            logits = every_lm.model(input_ids=torch.tensor([ids])).logits[0, -1]
        return float(logits.softmax(-1)[answer])

    for layer in range(every_lm.layers):
        difference = probability(None) - probability(layer)
        assert float(carried[layer].sum()) == pytest.approx(difference, abs=2e-3, rel=0.2)


def test_only_the_columns_of_a_facts_neurons_change(every_lm: LM) -> None:
    patch = KnowledgeNeurons().propose(every_lm, EDITS[:1], ())
    columns = 0
    for factors in patch.factors.values():
        change = factors.change((0,))
        columns += int((np.abs(change).sum(0) > 0).sum())
    assert 2 <= columns <= 5


def test_a_neuron_of_many_facts_is_no_facts_own(lm: LM) -> None:
    many = [replace(EDITS[0], target=target) for target in ("Rome", "Oslo", "Bern")]
    found = KnowledgeNeurons(common=0.4)._known(lm, [*many, EDITS[1]])
    assert all(2 <= len(neurons) <= 5 for _, _, neurons in found)  # where none is left, the first
    assert list(found[0][2])[:2] == list(found[1][2])[:2]
