"""Second moments of keys: what an MLP's output matrix already answers to.

    C = mean of k k^T      k: the input of `mlp_out` at every token of some text

Methods that write into a matrix keep its answers to common keys by weighing with C. It belongs to
one model, one layer and one text, and is cached under all three. Computed as a stream: the text is
never in memory as a whole.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from itertools import chain, islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lifelong.errors import MomentsMissing
from lifelong.hooks import tracing
from lifelong.lm import LM
from lifelong.models import Report, default_cache

TOKENS = 40_000  # of the text that are read, unless told otherwise
BUILT_IN = files("lifelong").joinpath("train/plain.txt")

_WINDOW, _BATCH = 128, 8
_PER_KEY = 4  # tokens a dimension of the keys, below which C says little
_CHOSEN = "chosen"  # names the text that this model's methods use


@dataclass(frozen=True, eq=False)
class Moment:
    """C (in, in) of one layer over `tokens` tokens of the text `text` (a hash)."""

    text: str
    tokens: int
    matrix: torch.Tensor  # float64

    @property
    def id(self) -> str:
        """What a patch notes about the statistics it was solved with."""
        return f"{self.text}:{self.tokens}"


def measure(
    lm: LM,
    layers: Sequence[int],
    text: Path,
    *,
    tokens: int = TOKENS,
    progress: Report | None = None,
) -> list[Moment]:
    """C of every layer over the first `tokens` tokens of a text file; from now on methods use it.

    The model must be the base model, with no edit installed. Raises MomentsMissing, OSError.
    """
    name, folder = _hash(text, tokens), _folder(lm)
    missing = [layer for layer in layers if not _file(folder, layer, name).is_file()]
    if missing:
        sums, seen = _stream(lm, missing, token_ids(lm, text, tokens), tokens, progress)
        if seen < (need := _PER_KEY * len(next(iter(sums.values())))):
            raise MomentsMissing(
                f"{text} has {seen} tokens; {need} are needed.", "Give a longer text."
            )
        folder.mkdir(parents=True, exist_ok=True)
        for layer, total in sums.items():
            facts = {"text": name, "tokens": str(seen)}
            _write_whole(_file(folder, layer, name), {"moment": (total / seen).float()}, facts)
    (folder / _CHOSEN).write_text(name)
    return [_read(_file(folder, layer, name)) for layer in layers]


def ensure(lm: LM, layers: Sequence[int]) -> None:
    """Measure what is missing of `layers`, over the chosen text or the built-in one.

    The model must be the base model. Raises MomentsMissing.
    """
    folder = _folder(lm)
    if not all(_file(folder, layer, _chosen(folder)).is_file() for layer in layers):
        with as_file(BUILT_IN) as text:
            measure(lm, layers, text)


def moment(lm: LM, layer: int) -> Moment:
    """C of one layer over the chosen text. Raises MomentsMissing where it was never measured."""
    folder = _folder(lm)
    return _read(_file(folder, layer, _chosen(folder)))


def _stream(
    lm: LM,
    layers: Sequence[int],
    ids: Iterator[int],
    tokens: int,
    progress: Report | None,
) -> tuple[dict[int, torch.Tensor], int]:
    """Sums of k k^T by layer, and of how many keys."""
    sums: dict[int, torch.Tensor] = {}
    seen = 0

    def adder(layer: int) -> Callable[[torch.Tensor, torch.Tensor], None]:
        def add(entered: torch.Tensor, _: torch.Tensor) -> None:
            keys = entered.flatten(0, -2).float()
            total = (keys.T @ keys).double()
            sums[layer] = sums[layer] + total if layer in sums else total

        return add

    after = {lm.module("mlp_out", layer): adder(layer) for layer in layers}
    while rows := len(window := list(islice(ids, _WINDOW * _BATCH))) // _WINDOW:
        batch = torch.tensor(window[: rows * _WINDOW], device=lm.device).view(rows, _WINDOW)
        with torch.no_grad(), tracing(after=after, stop=lm.module("block", max(layers))):
            lm.model.base_model(input_ids=batch, use_cache=False)
        seen += rows * _WINDOW
        if progress is not None:
            progress("reading the text for second moments", seen / tokens)
    return sums or {layer: torch.zeros(1, 1) for layer in layers}, seen


def token_ids(lm: LM, text: Path, tokens: int) -> Iterator[int]:
    """The first `tokens` tokens of a text file, as a stream."""
    with text.open(encoding="utf-8") as lines:
        rows: Iterable[list[int]] = (
            lm.tokenizer.encode(line, add_special_tokens=False) for line in lines if line.strip()
        )
        yield from islice(chain.from_iterable(rows), tokens)


def _hash(text: Path, tokens: int) -> str:
    with text.open("rb") as stream:
        return f"{hashlib.file_digest(stream, 'sha256').hexdigest()[:16]}-{tokens}"


def _folder(lm: LM) -> Path:
    return default_cache() / "moments" / lm.fingerprint[:32]


def _file(folder: Path, layer: int, name: str) -> Path:
    return folder / f"{layer}-{name}.safetensors"


def _chosen(folder: Path) -> str:
    chosen = folder / _CHOSEN
    return chosen.read_text() if chosen.is_file() else "none"


def _write_whole(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, str]) -> None:
    draft = path.with_suffix(".part")
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, draft, facts)
    draft.replace(path)


def _read(path: Path) -> Moment:
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            matrix = file.get_tensor("moment").double()
            return Moment(facts["text"], int(facts["tokens"]), matrix)
    except (OSError, SafetensorError, LookupError, ValueError) as exc:
        raise MomentsMissing(
            f"The second moments in {path} cannot be read ({exc}).",
            "Run `lifelong stats` with any text file.",
        ) from exc
