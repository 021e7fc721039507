"""Sentences -> unit vectors: shapes, the cache, threads, what identifies an encoder."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from lifelong.encoder import Encoder, SentenceEncoder, load_encoder
from lifelong.errors import ModelDamaged, ModelMissing
from lifelong.models import resolve

WORDS = ["capital", "france", "germany", "of", "the", "what", "is", "who", "wrote", "hamlet"]
MINILM = "f20e8d160a63f19b3ca9b3ad9749df6fe4a21926450cef1898e75be860df7892"
TEXTS = ["what is the capital of france", "who wrote hamlet", "what is the capital of germany"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A random BERT, 2 layers wide 32, as a plain model folder (mean pooling)."""
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bert = BertModel(BertConfig(vocab_size=len(words), intermediate_size=64, **size))
    bert.save_pretrained(tmp_path)
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def encoder(folder: Path) -> SentenceEncoder:
    return SentenceEncoder(folder, cached=4)


def _count(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that reach the model from now on."""
    seen: list[str] = []
    compute: Callable[[list[str]], np.ndarray] = encoder._compute

    def counted(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return compute(texts)

    monkeypatch.setattr(encoder, "_compute", counted)
    return seen


def test_rows_are_unit_float32_in_order(encoder: SentenceEncoder) -> None:
    rows = encoder.encode(TEXTS)
    assert rows.shape == (3, encoder.dim) == (3, 32)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert np.array_equal(encoder.encode(TEXTS[::-1]), rows[::-1])


def test_no_texts_no_rows(encoder: SentenceEncoder) -> None:
    assert encoder.encode([]).shape == (0, 32)


def test_a_text_is_encoded_once(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _count(encoder, monkeypatch)
    first = encoder.encode([TEXTS[0], TEXTS[0], TEXTS[1]])
    assert np.array_equal(first[0], first[1])
    encoder.encode(TEXTS)
    assert seen == TEXTS


def test_the_cache_is_bounded_and_drops_the_oldest(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.encode(WORDS[:4])
    encoder.encode(WORDS[:1])  # now the youngest
    encoder.encode(WORDS[4:6])
    seen = _count(encoder, monkeypatch)
    encoder.encode([WORDS[0], WORDS[4], WORDS[5]])
    assert seen == []
    encoder.encode([WORDS[1]])
    assert seen == [WORDS[1]]
    assert encoder.encode(WORDS).shape == (10, 32)  # more at once than the cache holds


def test_a_returned_row_is_the_callers(encoder: SentenceEncoder) -> None:
    before = encoder.encode(TEXTS)
    kept = before.copy()
    before[:] = 0
    assert np.array_equal(encoder.encode(TEXTS), kept)


def test_a_batch_changes_last_bits_at_most(folder: Path) -> None:
    alone = np.concatenate([SentenceEncoder(folder).encode([text]) for text in TEXTS])
    assert np.allclose(SentenceEncoder(folder).encode(TEXTS), alone, atol=1e-6)


def test_threads_share_an_encoder(encoder: SentenceEncoder) -> None:
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda text: encoder.encode([text])[0], texts))
    assert np.allclose(np.stack(rows), encoder.encode(texts), atol=1e-6)


def test_the_fingerprint_follows_the_weights(folder: Path) -> None:
    first = SentenceEncoder(folder)
    assert first.fingerprint == SentenceEncoder(folder).fingerprint
    bert = BertModel.from_pretrained(folder)
    with torch.no_grad():
        bert.embeddings.word_embeddings.weight[7, 3] += 1e-3
    bert.save_pretrained(folder)
    assert SentenceEncoder(folder).fingerprint != first.fingerprint


def test_an_encoder_without_weights_or_config_is_damaged(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(ModelDamaged, match="cannot be read"):
        SentenceEncoder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelDamaged, match="cannot be read"):
        load_encoder(str(folder))


def test_an_unknown_encoder_is_missing() -> None:
    with pytest.raises(ModelMissing):
        load_encoder("owner/unheard-of")


def test_alike_texts_have_alike_hashes(hash_encoder: Encoder) -> None:
    france, hamlet, germany = hash_encoder.encode(TEXTS)
    assert france @ germany > 0.6 > 0.3 > france @ hamlet
    assert np.array_equal(hash_encoder.encode(TEXTS[1:2])[0], hamlet)
    assert hash_encoder.encode([""]).shape == (1, hash_encoder.dim)


@pytest.mark.real
def test_minilm_knows_a_paraphrase(real_encoder: SentenceEncoder) -> None:
    rows = real_encoder.encode(
        ["What is the capital of France?", "Which city is France's capital?", "Who wrote Hamlet?"]
    )
    assert rows.shape == (3, 384)
    assert rows[0] @ rows[1] > 0.9
    assert rows[0] @ rows[2] < 0.3


@pytest.mark.real
def test_minilm_has_its_pinned_fingerprint_until_the_scope_adapter_changes_it(
    real_encoder: SentenceEncoder,
) -> None:
    bare = SentenceEncoder(resolve("minilm"))
    assert bare.fingerprint == MINILM
    assert not bare.adapted
    assert real_encoder.adapted
    assert real_encoder.fingerprint != MINILM


@pytest.mark.real
@pytest.mark.usefixtures("real_encoder")
def test_an_adapter_adds_its_low_rank_change_and_nothing_else() -> None:
    encoder = SentenceEncoder(resolve("minilm"))
    before = {n: p.detach().clone() for n, p in encoder.transformer.named_parameters()}
    name = "encoder.layer.0.attention.self.query.weight"
    up, down = torch.ones(384, 1), torch.full((1, 384), 0.5)
    encoder.adapt({f"{name}.up": up, f"{name}.down": down})
    after = dict(encoder.transformer.named_parameters())
    assert torch.equal(after[name], before[name] + 0.5)
    assert all(torch.equal(after[n], before[n]) for n in before if n != name)
