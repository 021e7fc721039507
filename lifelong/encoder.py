"""Sentences -> unit vectors.

A vector depends on its text and the encoder, and in its last bits on the batch it was made in:
padding and batch size change the order of sums. So the journal stores the vector of an edit beside
the edit, and nothing is recomputed on replay. A text keeps its vector while it is in the cache.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from sentence_transformers import SentenceTransformer

from lifelong.errors import ModelDamaged
from lifelong.models import Report, digest, loading, resolve

Vectors = NDArray[np.float32]


ADAPTER = files("lifelong").joinpath("trained/scope.safetensors")  # made by `lifelong train scope`
HEAD = "head."  # keys there that are no factors of the adapter


class Encoder(Protocol):
    """Anything that turns texts into comparable vectors."""

    @property
    def fingerprint(self) -> str:
        """Changes when the vectors would."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(n, dim) float32, rows of length 1."""
        ...


class SentenceEncoder:
    """A sentence-transformers model in a local folder, with a bounded cache; safe for threads."""

    def __init__(
        self, folder: Path, *, device: torch.device | str = "cpu", cached: int = 4096
    ) -> None:
        """Load `folder`; keep the vectors of the last `cached` texts. Raises ModelDamaged."""
        self._folder = folder
        with loading(folder):
            self._model = SentenceTransformer(
                str(folder),
                device=str(device),
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            ).eval()
        dim = self._model.get_embedding_dimension()
        if dim is None:
            raise ModelDamaged(
                f"The encoder in {folder} does not say how long its vectors are.",
                "Use another one.",
            )
        self.dim = dim
        self.adapted = False
        self.head: Mapping[str, torch.Tensor] = {}  # what `scope` reads the vectors with
        self.fingerprint = digest(_reading(self._model), self._model)
        self._cached = cached
        self._known: OrderedDict[str, Vectors] = OrderedDict()
        self._at_the_cache = Lock()
        self._at_the_model = Lock()  # its tokenizer is not safe to share

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(n, dim) float32 unit rows in the order of `texts`; long texts are cut by the encoder."""
        rows = self._recall(texts)
        new = [text for text in dict.fromkeys(texts) if text not in rows]
        if new:
            rows |= zip(new, self._compute(new), strict=True)
            self._remember({text: rows[text] for text in new})
        return (
            np.stack([rows[text] for text in texts])
            if texts
            else np.empty((0, self.dim), np.float32)
        )

    def adapt(self, factors: Mapping[str, torch.Tensor]) -> None:
        """Add `up @ down` to the weights that `factors` name; the fingerprint changes with them.

        Keys are parameter names of the transformer with `.up` (out, rank) and `.down` (rank, in).
        """
        weights = dict(self.transformer.named_parameters())
        with self._at_the_model, self._at_the_cache, torch.no_grad():
            for name in sorted({key.rpartition(".")[0] for key in factors}):
                change = factors[f"{name}.up"] @ factors[f"{name}.down"]
                weights[name].add_(change.to(weights[name]))
            self._known.clear()
        self.adapted = True
        self.fingerprint = digest(_reading(self._model), self._model)

    @cached_property
    def plain(self) -> "SentenceEncoder":
        """The same without an adapter, loaded when it is first asked for."""
        return SentenceEncoder(self._folder, device=self._model.device, cached=self._cached)

    @property
    def transformer(self) -> Any:
        """The transformer inside, as transformers knows it."""
        return self._model[0].auto_model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._model.tokenizer

    def _compute(self, texts: list[str]) -> Vectors:
        with self._at_the_model, torch.inference_mode():
            vectors = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    def _recall(self, texts: Sequence[str]) -> dict[str, Vectors]:
        with self._at_the_cache:
            found = {text: self._known[text] for text in texts if text in self._known}
            for text in found:
                self._known.move_to_end(text)
        return found

    def _remember(self, rows: Mapping[str, Vectors]) -> None:
        with self._at_the_cache:
            for text, row in rows.items():
                self._known[text] = row.copy()  # a row of a large batch would keep the batch alive
            while len(self._known) > self._cached:
                self._known.popitem(last=False)


def plain(encoder: Encoder) -> Encoder:
    """`encoder` as it was before it learnt what relations are: what is a text about?"""
    if isinstance(encoder, SentenceEncoder) and encoder.adapted:
        return encoder.plain
    return encoder


def load_encoder(
    name: str,
    *,
    cache: Path | None = None,
    progress: bool | Report = True,
    device: torch.device | str = "cpu",
) -> SentenceEncoder:
    """The encoder of a name that `models.resolve` knows, with the scope weights made for it.

    Raises ModelMissing, ModelDamaged.
    """
    encoder = SentenceEncoder(resolve(name, cache=cache, progress=progress), device=device)
    with as_file(ADAPTER) as path, safe_open(path, framework="pt") as adapter:
        if adapter.metadata()["encoder"] == encoder.fingerprint:
            weights = {key: adapter.get_tensor(key) for key in adapter.keys()}
            heads = {key for key in weights if key.startswith(HEAD)}
            encoder.adapt({key: weights[key] for key in weights.keys() - heads})
            encoder.head = {key.removeprefix(HEAD): weights[key] for key in heads}
    return encoder


def _reading(model: SentenceTransformer) -> dict[str, Any]:
    """What shapes a vector besides the weights: the stages, how they pool, where a text is cut."""
    stages = [(type(stage).__name__, getattr(stage, "pooling_mode", None)) for stage in model]
    return {"stages": stages, "max_seq_length": model.max_seq_length}
