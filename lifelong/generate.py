"""The one generation path: untouched rows as the base model has them, the others say their target.

A batch in which nothing fires goes to the base model as it came. Otherwise the untouched rows run
in the caller's own batch (same shape, same padding: bitwise the base model's), the others from the
prompt that their method wrote, and each reply is put behind the caller's ids. A reply in which no
word is left to the model is not asked of it. A caller who wants more than ids (scores, a cache)
gets one run on his own prompt for all rows.
"""

import sys
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer
from transformers.utils.generic import ModelOutput

from lifelong.adapter import adapted
from lifelong.errors import StaleCache
from lifelong.hooks import placing
from lifelong.lm import LM
from lifelong.prompt import Condition, Slot, stack_left
from lifelong.say import Saying, Speaker

Output = torch.Tensor | ModelOutput
Generate = Callable[..., Output]

_STAMP = "_lifelong_edits"  # the attribute of a cache that says which edits shaped it
_NEW_TOKENS = 20  # transformers' own limit where nobody names one
_TIED_TO_PROMPT = ("position_ids", "token_type_ids", "max_length", "min_length", "streamer")
_MAY_STOP = ("stop_strings", "stopping_criteria", "max_time")
_LOOK_ON = ("streamer", "logits_processor")
_ONE_RUN = (
    "past_key_values",
    "return_dict_in_generate",
    "output_scores",
    "output_logits",
    "output_attentions",
    "output_hidden_states",
)


@dataclass(frozen=True)
class Request:
    """One call of `generate`: ids and mask (B, T), and the caller's other arguments."""

    lm: LM
    base: Generate
    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    kwargs: dict[str, Any]
    slots: Sequence[Slot | None] = ()

    def run(self, **kwargs: Any) -> Output:
        """The model's own reply to the caller's own batch, with the slots of its rows filled."""
        with filling(self.lm, self.slots, self.read):
            out = self.base(self.input_ids, attention_mask=self.attention_mask, **kwargs)
        for cache in (kwargs.get("past_key_values"), getattr(out, "past_key_values", None)):
            if cache is not None and (ids := {slot.edit for slot in self.slots if slot}):
                setattr(cache, _STAMP, shaping(cache) | ids)
        return out

    def setting(self, name: str, default: Any = None) -> Any:
        """A generation setting, from wherever it was set."""
        config = self.kwargs.get("generation_config")
        for found in (self.kwargs.get(name), getattr(config, name, None)):
            if found is not None:
                return found
        found = getattr(self.lm.model.generation_config, name, None)
        return default if found is None else found

    @property
    def room(self) -> int:
        """New tokens that the caller allows."""
        new, length = self.setting("max_new_tokens"), self.setting("max_length")
        if new is None and length is not None:
            new = length - self.input_ids.shape[1]
        return _NEW_TOKENS if new is None else max(1, int(new))

    @property
    def read(self) -> torch.Tensor:
        """Which ids (B, T) belong to a prompt; without a mask, those that are no padding.

        As transformers has it, a pad that also ends replies may belong to a prompt.
        """
        if self.attention_mask is not None:
            return self.attention_mask.bool()
        if self.pad in self.ends:
            return torch.ones_like(self.input_ids, dtype=torch.bool)
        return self.input_ids != self.pad

    @property
    def positions(self) -> int:
        """Tokens that the model was made for."""
        return int(getattr(self.lm.model.config, "max_position_embeddings", None) or sys.maxsize)

    @property
    def may_stop(self) -> bool:
        """Whether the caller may end a reply before its room is used."""
        return any(self.setting(name) for name in _MAY_STOP)

    @property
    def wants_one_run(self) -> bool:
        """Whether the caller wants more than ids, or has a cache (which may still be empty)."""
        return any(self.setting(name) not in (None, False) for name in _ONE_RUN)

    @property
    def copies(self) -> int:
        """Replies to each prompt."""
        return int(self.setting("num_return_sequences", 1))

    @property
    def ends(self) -> list[int]:
        """Ids that end a reply."""
        ends = self.setting("eos_token_id", [])
        return [int(end) for end in (ends if isinstance(ends, (list, tuple)) else [ends])]

    @property
    def pad(self) -> int:
        """The id that fills a row after its end."""
        pad = self.setting("pad_token_id", self.ends[0] if self.ends else 0)
        return int(pad)


def shaping(cache: Any) -> frozenset[int]:
    """The ids of the edits that acted inside the model while a key-value cache was filled."""
    return getattr(cache, _STAMP, frozenset())


def check_cache(cache: Any, stand: Callable[[Set[int]], bool]) -> None:
    """Refuse a cache that was shaped by edits which do not `stand`. Raises StaleCache."""
    if (ids := shaping(cache)) and not stand(ids):
        raise StaleCache(
            f"These past_key_values were made under edits {sorted(ids)}, of which not all stand.",
            "Start again from the whole text, without them.",
        )


def generate(request: Request, conditions: Sequence[Condition | None]) -> Output:
    """Generate with row r under `conditions[r]`; None leaves the row to the base model.

    Returns what the base model's `generate` returns for these arguments: ids (B * n, T + new) that
    start with the caller's, or a ModelOutput.
    """
    if not any(conditions):
        return request.run(**request.kwargs)
    if request.wants_one_run:
        return _in_place(request, conditions)
    return _apart(request, conditions)


@contextmanager
def filling(lm: LM, slots: Sequence[Slot | None], read: torch.Tensor) -> Iterator[None]:
    """While a batch is run, each row has what its slot puts in at the end of its prompt.

    `read` (B, T) says which ids of the batch belong to a prompt.
    """
    values: dict[nn.Module, dict[int, torch.Tensor]] = {}
    for row, slot in enumerate(slots):
        if slot is not None:
            module = lm.model.get_submodule(slot.module)
            values.setdefault(module, {})[row] = torch.from_numpy(slot.value)
    if not values:
        yield
        return
    places = torch.arange(read.shape[1], device=read.device)
    with placing(lm.model.base_model, values, (read * places).argmax(1).tolist()):
        yield


def alone(
    request: Request, condition: Condition | None
) -> tuple[torch.Tensor, LogitsProcessorList]:
    """For who chooses token by token: the ids (T,) that a row reads, and what narrows its choices.

    `request` is that row alone (B = 1).
    """
    if condition is None:
        return _own_ids(request, 0), LogitsProcessorList()
    ids = _prompt_ids(request, 0, condition)
    contrast = [_Contrast(request, [(0, condition)], len(ids))] if condition.contrast else []
    return ids, LogitsProcessorList([*contrast, _saying(request, [condition], len(ids))])


def _in_place(request: Request, conditions: Sequence[Condition | None]) -> Output:
    """One run on the caller's prompt: the target is said, but nothing is told beforehand."""
    saying = _saying(request, conditions, request.input_ids.shape[1])
    return request.run(**_with_processor(request.kwargs, saying))


def _apart(request: Request, conditions: Sequence[Condition | None]) -> torch.Tensor:
    """The caller's batch for the untouched rows; for the others the methods' prompts, in a run of
    its own for each adapter."""
    replies: dict[int, torch.Tensor] = {}
    if not all(conditions):  # before the others: it must draw what the base model draws
        mute = _Mute([bool(condition) for condition in conditions], request.ends)
        ids = request.run(**_with_processor(request.kwargs, mute))
        replies.update(enumerate(_sequences(ids)[:, request.input_ids.shape[1] :]))
    foregone = _foregone(request, conditions)
    replies |= foregone
    left = [
        None if row * request.copies in foregone else condition
        for row, condition in enumerate(conditions)
    ]
    for adapter, rows in _by_adapter(left).items():
        with adapted(request.lm, adapter) if adapter else nullcontext():
            told, start = _told(request, [(row, conditions[row]) for row in rows])
        copies = len(told) // len(rows)
        for i, reply in enumerate(told[:, start:]):
            replies[rows[i // copies] * copies + i % copies] = reply
    return _behind(request, [replies[row] for row in sorted(replies)])


def _foregone(request: Request, conditions: Sequence[Condition | None]) -> dict[int, torch.Tensor]:
    """The replies, by sequence, that are known without the model: greedy or sampled, all alike.

    A streamer shows tokens as they come, and who may stop or narrow a reply looks at every one.
    """
    watched = request.may_stop or any(request.kwargs.get(name) for name in _LOOK_ON)
    if watched or request.setting("num_beams", 1) > 1:
        return {}
    says = [condition.say if condition else None for condition in conditions]
    found = dict[int, torch.Tensor]()
    for row, say in enumerate(says):
        speaker = say and Speaker(request.lm.tokenizer, say, request.room, tuple(request.ends))
        if speaker and (said := speaker.foregone()) is not None:
            reply = torch.tensor(said, device=request.input_ids.device)
            found |= {row * request.copies + copy: reply for copy in range(request.copies)}
    return found


def _by_adapter(conditions: Sequence[Condition | None]) -> dict[Path | None, list[int]]:
    """The rows that are conditioned, those with the same adapter together."""
    rows: dict[Path | None, list[int]] = {}
    for row, condition in enumerate(conditions):
        if condition:
            rows.setdefault(condition.adapter, []).append(row)
    return rows


def _told(
    request: Request, fired: Sequence[tuple[int, Condition | None]]
) -> tuple[torch.Tensor, int]:
    """Sequences (F * n, T') from the methods' prompts for the fired rows; where replies start."""
    prompts = [
        _prompt_ids(request, row, condition) for row, condition in fired if condition is not None
    ]
    ids, mask = stack_left(prompts, request.lm)
    start = ids.shape[1]
    kwargs = {k: v for k, v in request.kwargs.items() if k not in _TIED_TO_PROMPT}
    kwargs |= _limit(request) | _as_asked(request, [row for row, _ in fired], start)
    if streamer := request.kwargs.get("streamer"):
        kwargs["streamer"] = _PromptShown(streamer, request.input_ids)
    if any(condition.contrast for _, condition in fired if condition):
        kwargs = _with_processor(kwargs, _Contrast(request, fired, start))
    saying = _saying(request, [condition for _, condition in fired], start)
    out = request.base(ids, attention_mask=mask, **_with_processor(kwargs, saying))
    return _sequences(out), start


def _prompt_ids(request: Request, row: int, condition: Condition) -> torch.Tensor:
    tokenizer = request.lm.tokenizer
    if condition.messages is not None:
        text = request.lm.chat.render(condition.messages)
        told = tokenizer.encode(text, add_special_tokens=False)
    elif condition.text is not None:
        told = tokenizer.encode(condition.text)
    else:
        return _own_ids(request, row)
    if len(told) + request.room > request.positions:
        return _own_ids(request, row)
    return torch.tensor(told)


def _own_ids(request: Request, row: int) -> torch.Tensor:
    return request.input_ids[row][request.read[row]].cpu()


def _limit(request: Request) -> dict[str, Any]:
    """The caller's limit, counted from the end of another prompt."""
    config = request.kwargs.get("generation_config")
    if config is None:
        return {"max_new_tokens": request.room}
    config = deepcopy(config)
    config.max_new_tokens, config.max_length, config.min_length = request.room, None, None
    return {"generation_config": config}


def _as_asked(request: Request, rows: Sequence[int], start: int) -> dict[str, Any]:
    """The caller's processors and criteria, looking at his own prompts before the replies."""
    prompts = request.input_ids[rows]

    def seen(ids: torch.Tensor) -> torch.Tensor:
        mine = prompts.repeat_interleave(len(ids) // len(prompts), dim=0)
        return torch.cat([mine.to(ids.device), ids[:, start:]], dim=1)

    processors = request.kwargs.get("logits_processor") or ()
    criteria = request.kwargs.get("stopping_criteria") or ()
    return {
        "logits_processor": LogitsProcessorList([_Processor(p, seen) for p in processors]),
        "stopping_criteria": StoppingCriteriaList([_Criterion(c, seen) for c in criteria]),
    }


def _saying(request: Request, conditions: Sequence[Condition | None], start: int) -> Saying:
    says = [c.say if c else None for c in conditions]
    if request.may_stop:
        says = [say and replace(say, lead="", tail="", at_once=True) for say in says]
    return Saying(
        request.lm.tokenizer,
        says,
        start=start,
        room=request.room,
        ends=request.ends,
    )


def _with_processor(kwargs: dict[str, Any], processor: LogitsProcessor) -> dict[str, Any]:
    """Ours comes after the caller's own, so that nothing he asks for can unsay the target."""
    processors = LogitsProcessorList([*(kwargs.get("logits_processor") or ()), processor])
    return {**kwargs, "logits_processor": processors}


def _behind(request: Request, replies: Sequence[torch.Tensor]) -> torch.Tensor:
    """The caller's ids with a reply behind each, padded to one length."""
    prompts = request.input_ids.repeat_interleave(len(replies) // len(request.input_ids), dim=0)
    width = max(map(len, replies))
    new = prompts.new_full((len(replies), width), request.pad)
    for row, reply in enumerate(replies):
        new[row, : len(reply)] = reply
    return torch.cat([prompts, new], dim=1)


def _sequences(output: Output) -> torch.Tensor:
    assert isinstance(output, torch.Tensor)  # a ModelOutput is asked for in `_in_place` only
    return output


class _Mute(LogitsProcessor):
    """Ends the replies of some rows at once: they keep their place in the batch and say nothing."""

    def __init__(self, mute: Sequence[bool], ends: Sequence[int]) -> None:
        self._mute = mute
        self._ends = ends

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        copies = len(scores) // len(self._mute)
        rows = [row for row in range(len(scores)) if self._mute[row // copies]]
        if not self._ends:
            return scores
        shaped = scores.clone()
        shaped[rows] = -torch.inf
        shaped[rows, self._ends[0]] = 0.0
        return shaped


class _Contrast(LogitsProcessor):
    """Context-aware decoding. Without a cache, so that beams may be sorted; twice the time."""

    def __init__(
        self, request: Request, fired: Sequence[tuple[int, Condition | None]], start: int
    ) -> None:
        self._model = request.lm.model
        self._start = start
        self._rows = [(_own_ids(request, row), c.contrast if c else 0.0) for row, c in fired]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        copies = len(scores) // len(self._rows)
        shaped = scores.clone()
        for row, ids in enumerate(input_ids):
            prompt, weight = self._rows[row // copies]
            if weight:
                read = torch.cat([prompt.to(ids.device), ids[self._start :]])
                bare = torch.log_softmax(self._model(read[None]).logits[0, -1].float(), -1)
                told = torch.log_softmax(scores[row].float(), -1)
                shaped[row] = (1 + weight) * told - weight * bare
        return shaped


class _Processor(LogitsProcessor):
    """A processor that is shown `seen(ids)`."""

    def __init__(self, inner: Callable[..., Any], seen: Callable[[torch.Tensor], torch.Tensor]):
        self._inner = inner
        self._seen = seen

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        return cast("torch.FloatTensor", self._inner(self._seen(input_ids), scores))


class _Criterion(StoppingCriteria):
    """A criterion that is shown `seen(ids)`."""

    def __init__(self, inner: Callable[..., Any], seen: Callable[[torch.Tensor], torch.Tensor]):
        self._inner = inner
        self._seen = seen

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any
    ) -> torch.BoolTensor:
        return cast("torch.BoolTensor", self._inner(self._seen(input_ids), scores, **kwargs))


class _PromptShown(BaseStreamer):
    """Shows the caller's streamer the caller's prompt, not the one a method wrote."""

    def __init__(self, streamer: BaseStreamer, prompt: torch.Tensor) -> None:
        self._streamer = streamer
        self._prompt: torch.Tensor | None = prompt

    def put(self, value: torch.Tensor) -> None:
        shown, self._prompt = self._prompt, None
        self._streamer.put(value if shown is None else shown.cpu())

    def end(self) -> None:
        self._streamer.end()
