"""What is asked and how it is to be answered: records between router, methods, generation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lifelong.lm import LM, Message
from lifelong.refer import Turn


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as the model would read it, and its messages where it is a chat.

    `in_full` is the last message with what it leaves to the turns before it (`refer.in_full`).
    """

    text: str
    messages: tuple[Message, ...] | None = None
    in_full: str | None = None

    @property
    def question(self) -> str:
        """What scope is decided on: the user's last message, in full, or the raw text."""
        asked = [m["content"] for m in self.messages or () if m["role"] == "user"]
        return self.in_full or (asked[-1] if asked else self.text)

    @property
    def earlier(self) -> list[Turn]:
        """The turns before the question."""
        turns: list[Turn] = []
        for message in self.messages or ():
            if message["role"] == "user":
                turns.append(Turn(message["content"], ""))
            elif message["role"] == "assistant" and turns:
                turns[-1] = turns[-1]._replace(reply=message["content"])
        return turns[:-1]


@dataclass(frozen=True, slots=True)
class Say:
    """`target` must be said. `known` are texts whose words the reply may use before it is said.

    `subject` is what the reply is about; `before` is the text that it goes on from, if any. The
    reply begins with `lead`; `at_once` leaves no room for other words before the target, `tail`
    ends its sentence. The reply says nothing of `avoid`, and ends there, or a sentence later if it
    `goes_on`.
    """

    target: str
    subject: str | None = None
    known: str = ""
    before: str = ""
    lead: str = ""
    tail: str = ""
    at_once: bool = False
    avoid: tuple[str, ...] = ()
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """How one prompt is answered: what the model reads, and what it must say (None: anything).

    It reads `messages`, or `text` where the prompt is raw, or the prompt itself where neither is
    given. With a `contrast` a > 0, tokens count as much as what was read makes them likelier:
    (1 + a) log p(. | read) - a log p(. | prompt) (Shi et al. 2023, context-aware decoding). The
    model has the `adapter` in that file meanwhile.
    """

    say: Say | None
    messages: tuple[Message, ...] | None = None
    text: str | None = None
    contrast: float = 0.0
    adapter: Path | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """One step from a subject to what is so about it; `source` says who says so ("edit 17")."""

    subject: str
    prompt: str
    relation: str  # a few words, for people
    target: str
    source: str

    def __str__(self) -> str:
        return f"{self.subject} -{self.relation}-> {self.target} ({self.source})"


def chat_prompt(lm: LM, messages: Sequence[Mapping[str, str]]) -> Prompt:
    """A conversation as a prompt, the template's own system message included.

    Raises NoChatTemplate, MessagesRefused.
    """
    text = lm.chat.render(messages)
    read = lm.chat.parse(text)
    return Prompt(text, tuple(read or [dict(message) for message in messages]))


def pad_left(lm: LM, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (B, T) of prompts, padded on the left, on the model's device."""
    rows = [
        lm.tokenizer.encode(prompt.text, add_special_tokens=prompt.messages is None)
        for prompt in prompts
    ]
    return stack_left([torch.tensor(row) for row in rows], lm)


def stack_left(rows: Sequence[torch.Tensor], lm: LM) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as one batch (B, T), padded on the left, and its mask, on the model's device."""
    pad = lm.tokenizer.pad_token_id
    ids = torch.full((len(rows), max(map(len, rows))), 0 if pad is None else pad)
    mask = torch.zeros_like(ids)
    for row, row_ids in enumerate(rows):
        ids[row, ids.shape[1] - len(row_ids) :] = row_ids
        mask[row, ids.shape[1] - len(row_ids) :] = 1
    return ids.to(lm.device), mask.to(lm.device)


def read_prompts(lm: LM, input_ids: torch.Tensor, read: torch.Tensor) -> list[Prompt]:
    """The prompts in a padded batch of ids (B, T): chat where the template made them, else raw.

    `read` (B, T) says which ids belong to a prompt.
    """
    prompts = []
    for ids, mine in zip(input_ids, read, strict=True):
        kept = ids[mine]
        text = str(
            lm.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )
        messages = lm.chat.parse(text) if lm.has_chat else None
        if messages is None:
            text = str(lm.tokenizer.decode(kept, skip_special_tokens=True))
        prompts.append(Prompt(text, tuple(messages) if messages else None))
    return prompts


def tell(lm: LM, messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """`messages` with `text` at the end of the system message, or before the last user message.

    The latter where the template knows no system message.
    """
    first, last = messages[0], messages[-1]
    if first["role"] == "system":
        return ({**first, "content": f"{first['content']} {text}"}, *messages[1:])
    if "system" in lm.chat.opens:
        return ({"role": "system", "content": text}, *messages)
    return (*messages[:-1], {**last, "content": f"{text}\n{last['content']}"})
