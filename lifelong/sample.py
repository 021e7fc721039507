"""What enters a module while ordinary text is read: the states that an edit must leave alone.

Prose, and what people say every day, raw and in the model's chat: a sample of one style would guard
that style only. The sample belongs to one model and one module, and is cached under both.
"""

from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import as_file
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lifelong.hooks import tracing
from lifelong.lm import LM
from lifelong.models import default_cache
from lifelong.moments import BUILT_IN, token_ids
from lifelong.ordinary import ORDINARY

TOKENS = 4_096  # of prose

_WINDOW = 128


def ensure(lm: LM, module: str) -> None:
    """Read the texts once; the model must be the base model."""
    try:
        sample(lm, module)
    except (OSError, SafetensorError):
        path = _file(lm, module)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        save_file({"states": read(lm, module, _texts(lm)).cpu()}, draft)
        draft.replace(path)


def sample(lm: LM, module: str) -> torch.Tensor:
    """(n, d) float32, on the model's device. Raises OSError where `ensure` was never called."""
    return load_file(_file(lm, module))["states"].to(lm.device)


def read(lm: LM, module: str, rows: Iterable[Sequence[int]]) -> torch.Tensor:
    """What enters the module at every token of each row of ids: (n, d) float32."""
    found: list[torch.Tensor] = []
    looked = lm.model.get_submodule(module)

    def look(entered: torch.Tensor, _: torch.Tensor) -> None:
        found.append(entered[0].float())

    for ids in rows:
        row = torch.tensor([list(ids)], device=lm.device)
        with torch.inference_mode(), tracing(after={looked: look}, stop=looked):
            lm.model.base_model(input_ids=row, use_cache=False)
    return torch.cat(found)


def _texts(lm: LM) -> Iterator[list[int]]:
    with as_file(BUILT_IN) as text:
        ids = list(token_ids(lm, text, TOKENS))
    yield from (ids[start : start + _WINDOW] for start in range(0, len(ids), _WINDOW))
    yield from tokens(lm, ORDINARY)


def tokens(lm: LM, texts: Iterable[str]) -> Iterator[list[int]]:
    """The ids of each text, raw and asked in a chat."""
    for text in texts:
        yield lm.tokenizer.encode(text)
        if lm.has_chat:
            asked = lm.chat.render([{"role": "user", "content": text}])
            yield lm.tokenizer.encode(asked, add_special_tokens=False)


def _file(lm: LM, module: str) -> Path:
    return default_cache() / "states" / lm.fingerprint[:32] / f"{module}.safetensors"
