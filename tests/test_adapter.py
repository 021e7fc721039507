"""Low-rank adapters: what they add, for whom and how long; how the counterfactual one is made."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file

from lifelong import METHODS, EditableModel
from lifelong.adapter import adapted, adapter_for
from lifelong.errors import ModelDamaged
from lifelong.lm import LM
from lifelong.methods.kaft import Kaft
from lifelong.train.counterfactual import Fact, train

PROJECTION = "model.layers.1.self_attn.q_proj"
KNOWN = [
    Fact("Acme", "Who runs Acme?", "Jane Roe", "John Doe", ("Who leads Acme?", "Acme is run by")),
    Fact("Oslo", "Oslo is in", "Peru", "Norway", ("Where is Oslo?",)),
]


@pytest.fixture
def file(lm: LM, tmp_path: Path) -> Path:
    """An adapter of the tiny Llama, of rank 2."""
    return written(lm, tmp_path / "adapter.safetensors")


def written(lm: LM, path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out, width = lm.model.get_submodule(PROJECTION).weight.shape
        factors = {"down": torch.randn(2, width), "up": torch.randn(out, 2)}
    named = {f"{PROJECTION}.weight.{part}": factor for part, factor in factors.items()}
    save_file(named, path, metadata={"model": lm.fingerprint})
    return path


def logits(lm: LM) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = lm.model(torch.tensor([[5, 6, 7]])).logits
    return out


def test_it_adds_its_low_rank_change_and_goes(
    lm: LM, file: Path, make_lm: Callable[..., LM]
) -> None:
    before = logits(lm)
    with adapted(lm, file):
        inside = logits(lm)
        elsewhere: list[torch.Tensor] = []
        other = Thread(target=lambda: elsewhere.append(logits(lm)))
        other.start()
        other.join()
    assert torch.equal(elsewhere[0], before)
    assert torch.equal(logits(lm), before)
    merged = make_lm()
    weight, read = merged.model.get_submodule(PROJECTION).weight, load_file(file)
    with torch.no_grad():
        weight += read[f"{PROJECTION}.weight.up"] @ read[f"{PROJECTION}.weight.down"]
    assert torch.allclose(inside, logits(merged), atol=1e-4)
    assert not torch.allclose(inside, before, atol=1e-2)


def test_an_adapter_is_for_one_model(lm: LM, file: Path, make_lm: Callable[..., LM]) -> None:
    assert adapter_for(lm, file) == file
    assert adapter_for(make_lm(seed=1), file) is None
    assert adapter_for(lm) is None
    file.write_bytes(b"no")
    with pytest.raises(ModelDamaged, match="No adapter"):
        adapter_for(lm, file)


def test_it_is_on_in_scope_only(
    make_model: Callable[..., EditableModel], lm: LM, file: Path
) -> None:
    model = make_model()
    read = Kaft(held=False, file=str(file))
    model._session.methods = {**METHODS, "kaft": read}
    model.edit("Who runs Acme?", "Jane Roe", method="kaft")
    other, mine = "Where is Bolt?", "Who runs Acme?"
    said = {text: model.chat(text, max_new_tokens=8).text for text in (other, mine)}
    assert "".join(model.chat(mine, max_new_tokens=8, stream=True)).strip() == said[mine]
    with model.disable_edits():
        assert model.chat(other, max_new_tokens=8).text == said[other]
    model._session.methods = {**METHODS, "kaft": replace(read, file=str(file.with_name("no")))}
    with pytest.raises(ModelDamaged):
        model.chat(mine)
    model._session.methods = {**METHODS, "kaft": Kaft(held=False)}
    assert model.chat(mine, max_new_tokens=8).text != said[mine]


def test_training_teaches_what_is_read(make_lm: Callable[..., LM], tmp_path: Path) -> None:
    factors = train(make_lm(), KNOWN, steps=3)
    again = train(make_lm(), KNOWN, steps=3)
    assert factors.keys() == again.keys()
    assert all(torch.equal(factors[key], again[key]) for key in factors)
    assert any(factors[key].any() for key in factors if key.endswith(".up"))
    lm = make_lm()
    save_file(factors, tmp_path / "a", metadata={"model": lm.fingerprint})
    before = logits(lm)
    with adapted(lm, tmp_path / "a"):
        assert not torch.equal(logits(lm), before)
