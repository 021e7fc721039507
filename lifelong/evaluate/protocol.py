"""How a model is asked: free greedy generation, KV cache on, and where a reply ends.

chat        the prompt, verbatim, is the user's message; the model ends its reply itself, or is
            cut after 48 new tokens (`truncated`)
completion  the raw text is continued; the reply ends with its line or its sentence, or is cut
            after 16 new tokens (`truncated`)
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, cast

import torch

from lifelong.generate import Generate
from lifelong.lm import LM
from lifelong.prompt import Prompt, chat_prompt, pad_left

Key = tuple[str, str]  # a prompt, and what shapes its reply

GREEDY: Mapping[str, Any] = {"do_sample": False, "num_beams": 1, "use_cache": True}

_BATCH = 32
_SHARE = 16  # of the machine's memory, what a batch may take: one part in so many
_ROOM = 512  # tokens that a method may put before a prompt
# A dot ends a sentence behind a word of three letters or more ("St.", "U.S." do not end one).
_END = re.compile(r"\n|[!?](?=\s|$)|(?<=[^\W\d_]{3})\.(?=\s|$)|(?<=\d)\.(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said; `ids` are its new tokens up to its end; `seconds` its part of a batch."""

    text: str
    ids: tuple[int, ...]
    truncated: bool
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of asking."""

    name: str
    new_tokens: int
    chat: bool

    def prompt(self, lm: LM, text: str) -> Prompt:
        """`text` as the model reads it. Raises NoChatTemplate."""
        return chat_prompt(lm, [{"role": "user", "content": text}]) if self.chat else Prompt(text)

    def told(self, lm: LM, text: str, facts: Sequence[str]) -> Prompt:
        """The same behind `facts`: they end the system message, or stand before the raw text."""
        known = " ".join(facts)
        if not self.chat:
            return Prompt("\n".join([*facts, text]))
        system = {"role": "system", "content": f"You know: {known}"}
        if "system" in lm.chat.opens:
            return chat_prompt(lm, [system, {"role": "user", "content": text}])
        return self.prompt(lm, f"{system['content']}\n{text}")

    def cut(self, text: str) -> str:
        """The reply in what was generated: all of a chat's, one sentence of a continuation."""
        said = text.strip()
        end = None if self.chat else _END.search(said)
        return said[: end.end()].strip() if end else said


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (Protocol("chat", 48, chat=True), Protocol("completion", 16, chat=False))
}


def replies(
    lm: LM, generate: Generate, protocol: Protocol, prompts: Sequence[Prompt]
) -> list[Reply]:
    """One reply a prompt, from one batch."""
    ids, mask = pad_left(lm, prompts)
    began = perf_counter()
    out = generate(ids, attention_mask=mask, max_new_tokens=protocol.new_tokens, **GREEDY)
    each = (perf_counter() - began) / len(prompts)
    new = cast("torch.Tensor", out)[:, ids.shape[1] :].tolist()
    return [_reply(lm, protocol, row, each) for row in new]


def _reply(lm: LM, protocol: Protocol, row: list[int], seconds: float) -> Reply:
    ends = _ends(lm)
    stop = next((place for place, token in enumerate(row) if token in ends), None)
    said = tuple(row[:stop])
    whole = str(lm.tokenizer.decode(list(said), skip_special_tokens=True)).strip()
    text = protocol.cut(whole)
    stopped = stop is not None or (not protocol.chat and bool(_END.search(whole)))
    return Reply(text, said, not stopped and len(said) >= protocol.new_tokens, seconds)


def _ends(lm: LM) -> frozenset[int]:
    config = lm.model.generation_config
    ends = None if config is None else config.eos_token_id
    return frozenset(ends if isinstance(ends, (list, tuple)) else [] if ends is None else [ends])


def batches(lm: LM, protocol: Protocol, prompts: Mapping[Key, Prompt]) -> Iterator[list[Key]]:
    """The keys of `prompts` in batches alike in length and sized to the machine's memory.

    A pure function of prompts, model and machine: the same prompts give the same batches.
    """
    lengths = {key: len(lm.tokenizer.encode(p.text)) for key, p in prompts.items()}
    ranked = sorted(prompts, key=lambda key: (lengths[key], key))
    while ranked:
        widest = lengths[ranked[0]] + _ROOM + protocol.new_tokens
        size = rows_that_fit(lm, widest)
        yield ranked[:size]
        ranked = ranked[size:]


def rows_that_fit(lm: LM, tokens: int) -> int:
    """How many rows of `tokens` tokens a batch may have: their cache and logits, in memory."""
    config = lm.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or lm.hidden // config.num_attention_heads
    size = torch.empty(0, dtype=lm.dtype).element_size()
    row = int(tokens * 2 * lm.layers * heads * width * size + 3 * 4 * config.vocab_size)
    return max(1, min(_BATCH, _memory(lm.device) // _SHARE // row))


def _memory(device: torch.device) -> int:
    """Bytes that the device has in all: what is free just now would make batches random."""
    if device.type == "cuda":
        return int(cast("Any", torch.cuda.get_device_properties(device)).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
