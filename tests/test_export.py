"""Edited weights for others: what PEFT and transformers load answers as the edited model does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lifelong import METHODS, EditableModel
from lifelong.errors import BadSetting, NothingToExport
from tests.test_weights import Scribble, bits, teach

IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture(autouse=True)
def scribble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "scribble", Scribble())


def test_a_checkpoint_is_the_edited_model(model: EditableModel, tmp_path: Path) -> None:
    one, two = teach(model, "one", "two")
    model.undo(one.id)
    model.edit("Who runs Acme?", "Jane")
    assert model.export(tmp_path) == [two.id]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(plain(IDS).logits, model(IDS).logits)
    assert all(torch.equal(tensor, bits(model)[name]) for name, tensor in bits(plain).items())
    with model.disable_edits():
        assert not torch.equal(plain(IDS).logits, model(IDS).logits)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # in PEFT
@pytest.mark.parametrize("family", ["llama", "gpt2"])  # both ways round
def test_an_adapter_makes_peft_answer_as_the_edited_model(
    family: str, make_model: Callable[..., EditableModel], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    model, base = make_model(family), make_model(family)
    plain = base(IDS).logits
    teach(model, "one", "two")
    model.undo(teach(model, "three", "four")[0].id)
    assert model.export(tmp_path, "peft-lora") == [1, 2, 4]
    EditableModel.close(base)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, atol=1e-4, rtol=1e-4)
    assert (loaded(IDS).logits - plain).abs().max() > 1e-2
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert {min(tensor.shape) for tensor in tensors.values()} == {3}


def test_what_cannot_be_exported_is_told(model: EditableModel, tmp_path: Path) -> None:
    with pytest.raises(NothingToExport):
        model.export(tmp_path / "a", "peft-lora")
    with pytest.raises(BadSetting, match="gguf"):
        model.export(tmp_path / "b", "gguf")
    assert list(tmp_path.iterdir()) == []
