"""What enters a module while ordinary text is read: the states that an edit must leave alone.

Prose, and what people say every day, raw and in the model's chat: a sample of one style would guard
that style only. The sample belongs to one model and one module, and is cached under both.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib.resources import as_file
from itertools import takewhile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence

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


def apart(lm: LM, module: str, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """The same from where the rows differ, (n, d): what they begin with alike is read once."""
    columns = zip(*(row[:-1] for row in rows), strict=False)
    alike = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    rest = [torch.tensor(row[len(alike) :]) for row in rows]
    mask = pad_sequence([torch.ones_like(row) for row in rest], batch_first=True).bool()
    ids = pad_sequence(rest, batch_first=True)  # behind the rows, where nothing looks
    found: list[torch.Tensor] = []
    looked = lm.model.get_submodule(module)
    run = partial(lm.model.base_model, use_cache=True)
    with torch.inference_mode():
        past = None
        if alike:
            past = run(input_ids=torch.tensor([alike], device=lm.device)).past_key_values
            past.batch_repeat_interleave(len(rows))
        with tracing(after={looked: lambda entered, _: found.append(entered)}, stop=looked):
            run(input_ids=ids.to(lm.device), past_key_values=past)
    return found[0][mask.to(lm.device)].float()


def about(lm: LM, module: str, prompts: Sequence[str]) -> torch.Tensor:
    """What enters the module while these prompts are read, raw and asked in a chat: (n, d)."""
    rows = list(tokens(lm, prompts))
    ways = 1 + lm.has_chat
    return torch.cat([apart(lm, module, rows[way::ways]) for way in range(ways)])


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
