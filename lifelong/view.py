"""Answers as of one epoch: route the prompt, condition it, generate, and say why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty
from threading import Thread
from typing import Any

import torch
from transformers import TextIteratorStreamer

from lifelong.errors import Stalled
from lifelong.generate import Generate, Output, Request, generate
from lifelong.lm import LM
from lifelong.methods import METHODS
from lifelong.prompt import Condition, Prompt, chat_prompt, pad_left, read_prompts
from lifelong.router import Hit, Route

Messages = str | Sequence[Mapping[str, str]]

MAX_NEW_TOKENS = 64  # of a reply, unless told otherwise

_STREAM_SECONDS = 300.0  # without a new token, the generating thread is taken for dead


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, the epoch it was given at, and the edits that shaped it."""

    text: str
    epoch: int
    edits: tuple[Hit, ...] = ()


class _Unread(Exception):
    """Nobody reads the reply any more."""


class _Pieces(TextIteratorStreamer):
    """The way from the thread that generates to the one that reads."""

    read = True

    def put(self, value: torch.Tensor) -> None:
        if not self.read:
            raise _Unread
        super().put(value)  # type: ignore[no-untyped-call]

    def end(self) -> None:
        super().end()  # type: ignore[no-untyped-call]


class Stream(Iterator[str]):
    """A reply, piece by piece; an error in the making is raised where the pieces are read.

    Who stops reading before the end calls `close`, as `contextlib.closing` does.
    """

    def __init__(self, pieces: _Pieces, route: Route, make: Callable[[], None]) -> None:
        self._pieces = pieces
        self._read = self._reading()
        self._route = route
        self._said = ""
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, args=(make,), daemon=True)
        self._thread.start()

    @property
    def answer(self) -> Answer:
        """The reply as far as it was read."""
        return Answer(self._said.strip(), self._route.epoch, self._route.hits)

    def __next__(self) -> str:
        return next(self._read)

    def _reading(self) -> Iterator[str]:
        try:
            for piece in self._pieces:
                self._said += piece
                yield piece
        except Empty:
            raise Stalled(
                f"There was no new token for {_STREAM_SECONDS:.0f} seconds.",
                "Ask again, with fewer new tokens or on a faster machine.",
            ) from None
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Make no more of the reply; returns when the model is at rest. Twice is fine."""
        self._pieces.read = False
        self._thread.join()

    def _run(self, make: Callable[[], None]) -> None:
        try:
            make()
        except _Unread:
            self._pieces.end()
        except BaseException as exc:  # noqa: BLE001  it belongs to whoever reads the reply
            self._error = exc
            self._pieces.end()


class View:
    """A model as of one epoch: `base` is its own `generate`, `route` decides on questions."""

    def __init__(
        self, lm: LM, base: Generate, route: Callable[[Sequence[str]], list[Route]]
    ) -> None:
        self._lm = lm
        self._base = base
        self._route = route

    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Output:
        """transformers' `generate`, except that prompts in scope of an edit are answered by it."""
        request = Request(self._lm, self._base, input_ids, attention_mask, kwargs)
        prompts = read_prompts(self._lm, input_ids, request.read)
        routes = self._route([prompt.question for prompt in prompts])
        return self._generate(request, prompts, routes)

    def chat(
        self, messages: Messages, *, max_new_tokens: int = MAX_NEW_TOKENS, **kwargs: Any
    ) -> Answer:
        """The reply to a conversation, or to one message of a user."""
        prompt = self.prompt(messages)
        return self.answers([prompt], max_new_tokens=max_new_tokens, **kwargs)[0]

    def complete(self, text: str, *, max_new_tokens: int = MAX_NEW_TOKENS, **kwargs: Any) -> Answer:
        """The raw continuation of a text."""
        return self.answers([Prompt(text)], max_new_tokens=max_new_tokens, **kwargs)[0]

    def stream(
        self, messages: Messages, *, max_new_tokens: int = MAX_NEW_TOKENS, **kwargs: Any
    ) -> Stream:
        """The reply to a conversation, in pieces as they are made."""
        prompt = self.prompt(messages)
        routes = self._route([prompt.question])
        pieces = _Pieces(
            self._lm.tokenizer, skip_prompt=True, timeout=_STREAM_SECONDS, skip_special_tokens=True
        )
        ids, mask = pad_left(self._lm, [prompt])
        kwargs |= {"max_new_tokens": max_new_tokens, "streamer": pieces}
        request = Request(self._lm, self._base, ids, mask, kwargs)
        return Stream(pieces, routes[0], lambda: _done(self._generate(request, [prompt], routes)))

    def answers(self, prompts: Sequence[Prompt], **kwargs: Any) -> list[Answer]:
        """One reply a prompt, from one batch."""
        routes = self._route([prompt.question for prompt in prompts])
        ids, mask = pad_left(self._lm, prompts)
        request = Request(self._lm, self._base, ids, mask, kwargs)
        out = self._generate(request, prompts, routes)
        texts = self._lm.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        return [
            Answer(text.strip(), route.epoch, route.hits)
            for text, route in zip(texts, routes, strict=True)
        ]

    def explain(self, messages: Messages) -> Route:
        """Which edits would shape the answer, and which nearly would."""
        question = messages if isinstance(messages, str) else self.prompt(messages).question
        return self._route([question])[0]

    def prompt(self, messages: Messages) -> Prompt:
        """The prompt of a conversation. Raises NoChatTemplate, MessagesRefused."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return chat_prompt(self._lm, messages)

    def question(self, text: str) -> Prompt:
        """The prompt of one question: a chat, or the raw text where the model knows no chat."""
        return self.prompt(text) if self._lm.has_chat else Prompt(text)

    def _generate(
        self, request: Request, prompts: Sequence[Prompt], routes: Sequence[Route]
    ) -> Output:
        conditions = [self._condition(*asked) for asked in zip(prompts, routes, strict=True)]
        return generate(request, conditions)

    def _condition(self, prompt: Prompt, route: Route) -> Condition | None:
        if not route.hits:
            return None
        hit = route.hits[0]
        return METHODS[hit.edit.method].condition(self._lm, prompt, hit.edit, hit.text)


def _done(_: Output) -> None:
    """A stream is read piece by piece; the whole is not needed again."""
