"""Small real things for the tests: random-weight twins of every supported family, a byte tokenizer,
a hash encoder. Nothing is downloaded; tests marked `real` use the models that packages ship."""

import importlib.util
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads would only wait for each other
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pytest
import torch
from hypothesis import settings
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import store.file
from lifelong.compaction import Consolidating
from lifelong.encoder import Encoder, SentenceEncoder, Vectors, load_encoder
from lifelong.lm import LM
from lifelong.models import NAMED, load_model
from lifelong.runtime import UNASKED, UNWATCHED, EditableModel
from lifelong.watch import Monitoring

# What fails once fails again; `pytest --hypothesis-profile=explore` looks further.
settings.register_profile("lifelong", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, derandomize=False)
settings.load_profile("lifelong")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 256 + len(SPECIAL)

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
PLAIN = SIZE | {"intermediate_size": 64}
GATED = PLAIN | {"num_key_value_heads": 2, "head_dim": 8}
# Untied, because a random model with tied embeddings and Gemma's scale repeats its last token.
GEMMA = GATED | {
    "sliding_window": 64,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "tie_word_embeddings": False,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GATED,
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4},
    "qwen2": GATED,
    "qwen3": GATED,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "gpt_neox": PLAIN,
    "mistral": GATED,
    "phi": PLAIN,
}


def byte_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """One token a byte, three special tokens; encodes and decodes any text without loss."""
    alphabet = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        pad_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        padding_side="left",
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_lm(
    family: str = "llama",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    template: str | None = CHATML,
) -> LM:
    """A random-weight twin, 3 layers wide 32; the same seed gives the same weights."""
    config = AutoConfig.for_model(
        family,
        **FAMILIES[family],
        vocab_size=VOCABULARY,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.2,  # with the usual 0.02 a model this small repeats one token
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return LM.of(model.eval(), byte_tokenizer(template))


class HashEncoder:
    """Words and letter trigrams, hashed into signed buckets: alike texts, alike vectors."""

    dim = 256
    fingerprint = "hash-256-v1"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(n, 256) float32, unit rows."""
        rows = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.casefold()) or [""]:
                padded = f" {word} "
                row[_bucket(word)] += _sign(word)
                for start in range(len(padded) - 2):
                    row[_bucket(padded[start : start + 3])] += 0.3 * _sign(
                        padded[start : start + 3]
                    )
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def _bucket(gram: str) -> int:
    return zlib.crc32(gram.encode()) % HashEncoder.dim


def _sign(gram: str) -> float:
    return 1.0 if zlib.adler32(gram.encode()) & 16 else -1.0


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """`make_tokenizer(template)`: a byte tokenizer with this chat template (None: no chat)."""
    return byte_tokenizer


@pytest.fixture(scope="session")
def make_lm() -> Callable[..., LM]:
    """`make_lm(family, seed=, dtype=, template=)`: a fresh twin, to be changed at will."""
    return tiny_lm


@pytest.fixture(scope="session")
def lm() -> LM:
    """One tiny Llama for all tests: do not change it."""
    return tiny_lm("llama")


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each supported model type in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def every_lm(family: str) -> LM:
    """A twin of each family in turn: do not change it."""
    return tiny_lm(family)


@pytest.fixture(scope="session")
def twin() -> Callable[..., LM]:
    """`twin(family)`: the plain twin to compare with, made once: do not change it."""
    return cache(tiny_lm)


@pytest.fixture(scope="session")
def hash_encoder() -> HashEncoder:
    """An encoder without weights."""
    return HashEncoder()


@pytest.fixture
def make_model(hash_encoder: HashEncoder) -> Iterator[Callable[..., EditableModel]]:
    """`make_model(family, store=, monitor=, multihop=, encoder=, consolidating=, seed=, dtype=,
    template=)`: a twin that takes corrections, in memory unless told otherwise; closed when the
    test is over."""
    made: list[EditableModel] = []

    def make(
        family: str = "llama",
        *,
        store: Any = ":memory:",
        monitor: Monitoring = UNWATCHED,
        multihop: Any = False,
        encoder: Encoder = hash_encoder,
        consolidating: Consolidating = UNASKED,
        **twin: Any,
    ) -> EditableModel:
        lm = tiny_lm(family, **twin)
        made.append(
            EditableModel(
                lm.model,
                lm.tokenizer,
                store=store,
                encoder=encoder,
                multihop=multihop,
                monitor=monitor,
                consolidating=consolidating,
            )
        )
        return made[-1]

    yield make
    for model in made:
        EditableModel.close(model)


class Server:
    """A server of a tiny model on a port of its own: `url`, its `app`, its `model`."""

    def __init__(self, app: Any) -> None:
        import uvicorn

        self.app = app
        config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5)
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._server.run)
        self._thread.start()
        while not (self._server.started and app.state.service.loaded):
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    @property
    def model(self) -> EditableModel:
        return self.app.state.service.model  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Undo whatever stands or waits, the newest first."""
        for edit in self.model.journal.edits()[::-1]:
            if self.model.get(edit.id).status in ("live", "superseded", "pending", "proposed"):
                self.model.undo(edit.id)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def serve(
    hash_encoder: HashEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """`serve(store, **settings)`: a server of a tiny model, stopped when the module is over."""
    from lifelong.serve.app import build
    from lifelong.serve.settings import Settings

    servers: list[Server] = []

    def start(store: Any = ":memory:", **settings: Any) -> Server:
        def open_model() -> EditableModel:
            lm = tiny_lm()
            return EditableModel(lm.model, lm.tokenizer, store=store, encoder=hash_encoder)

        settings.setdefault("keys", tmp_path_factory.mktemp("serve") / "keys.json")
        app = build(Settings(model_id="tiny", **{"drain_seconds": 5.0} | settings), open_model)
        servers.append(Server(app))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def model(make_model: Callable[..., EditableModel]) -> EditableModel:
    """A tiny Llama that takes corrections, without any so far."""
    return make_model()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama on disk, for what takes a model by name."""
    folder, lm = tmp_path_factory.mktemp("tiny"), tiny_lm("llama")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder on disk: the mean of a random vector a word."""
    known = "? who what which is the chief capital head of runs leads where this tell me".split()
    vocabulary = {word: place for place, word in enumerate(known)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(0).standard_normal((len(known), 64), np.float32)
    folder = tmp_path_factory.mktemp("words")
    SentenceTransformer(modules=[StaticEmbedding(words, vectors)], device="cpu").save(str(folder))
    return folder


@pytest.fixture
def rollback_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite without a write-ahead log: it looks at the file before it reads, and notices ruin.

    With one, it reads on from memory for as long as nobody commits.
    """
    monkeypatch.setattr(store.file, "safe_journal_mode", lambda version: "delete")


@pytest.fixture(scope="session")
def real_lm() -> LM:
    """SmolLM2-135M-Instruct: do not change it."""
    _needs("smollm2-135m")
    return LM.of(*load_model("smollm2-135m", progress=False))


@pytest.fixture(scope="session")
def real_encoder() -> SentenceEncoder:
    """all-MiniLM-L6-v2."""
    _needs("minilm")
    return load_encoder("minilm", progress=False)


def _needs(name: str) -> None:
    row = NAMED[name]
    if importlib.util.find_spec(row.package) is None:
        pytest.skip(f"{name} is not installed: {row.install}")
