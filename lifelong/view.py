"""Answers as of one epoch: route the prompt, condition it, generate, and say why."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import Any

import torch
from transformers import LogitsProcessorList, TextIteratorStreamer

from lifelong.errors import Stalled
from lifelong.generate import Generate, Output, Request, alone, check_cache, generate
from lifelong.hops import conclusion
from lifelong.lm import LM
from lifelong.methods import METHODS, MemoryMethod, Method
from lifelong.prompt import Condition, Prompt, chat_prompt, pad_left, read_prompts
from lifelong.router import Hit, Route
from lifelong.weights import State

Messages = str | Sequence[Mapping[str, str]]

MAX_NEW_TOKENS = 64  # of a reply, unless told otherwise

_STREAM_SECONDS = 300.0  # without a new token, the generating thread is taken for dead


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, the epoch it was given at, and the edits that shaped it."""

    text: str
    epoch: int
    edits: tuple[Hit, ...] = ()


@dataclass(frozen=True)
class Plan:
    """One prompt's route, the ids (T,) that are read, what narrows the choice of each next one.

    The model has the `adapter` meanwhile.
    """

    route: Route
    ids: torch.Tensor
    narrowing: LogitsProcessorList
    adapter: Path | None
    request: Request


class Stream(Iterator[str]):
    """A reply, piece by piece; an error in the making is raised where the pieces are read.

    A stream that is closed, or dropped, stops making its reply.
    """

    def __init__(self, pieces: "Pieces", route: Route, make: Callable[[], Output]) -> None:
        self._pieces = pieces
        self._route = route
        self._said = ""
        self._over = False
        self._errors: list[BaseException] = []
        # It must not know this stream, which would never be dropped; and no daemon, which would be
        # cut off inside the model when Python ends.
        self._thread = Thread(target=_run, args=(make, pieces, self._errors))
        self._thread.start()

    @property
    def answer(self) -> Answer:
        """The reply as far as it was read."""
        return Answer(self._said.strip(), self._route.epoch, self._route.hits)

    def close(self) -> None:
        """Stop making the reply, and wait until that has happened; twice is fine."""
        self._drop()
        self._thread.join()

    def __del__(self) -> None:
        self._drop()

    def _drop(self) -> None:
        self._over = True
        self._pieces.unwanted = True

    def __next__(self) -> str:
        if self._over:
            raise StopIteration
        try:
            piece = str(next(self._pieces))
        except (StopIteration, Empty) as exc:
            self.close()
            if isinstance(exc, Empty):
                raise Stalled(
                    f"There was no new token for {_STREAM_SECONDS:.0f} seconds.",
                    "Ask again, with fewer new tokens or on a faster machine.",
                ) from None
            if self._errors:
                raise self._errors[0] from None
            raise
        self._said += piece
        return piece


class Pieces(TextIteratorStreamer):
    """The pieces of a reply, as long as anybody wants them."""

    unwanted = False

    def put(self, value: torch.Tensor) -> None:
        """Take the next tokens. Raises Unwanted."""
        if self.unwanted:
            raise Unwanted
        super().put(value)  # type: ignore[no-untyped-call]


class Unwanted(Exception):
    """Nobody reads this reply any more."""


def _run(make: Callable[[], Output], pieces: Pieces, errors: list[BaseException]) -> None:
    try:
        make()
    except BaseException as exc:  # noqa: BLE001  it belongs to whoever reads the reply
        errors.append(exc)
        pieces.end()  # type: ignore[no-untyped-call]


def never(_ids: Set[int]) -> bool:
    """No edit stands."""
    return False


def _as_it_is(prompt: Prompt) -> Prompt:
    return prompt


class View:
    """A model as of one epoch: `base` is its own `generate`, `route` decides on questions.

    `refer` says in full what a question leaves to the turns before it.
    `stand` says whether all of some edits are live.
    """

    def __init__(
        self,
        lm: LM,
        base: Generate,
        route: Callable[[Sequence[str]], list[Route]],
        methods: Mapping[str, Method] = METHODS,
        refer: Callable[[Prompt], Prompt] = _as_it_is,
        state: State | None = None,
        stand: Callable[[Set[int]], bool] = never,
    ) -> None:
        self.state = state  # of the weights; None: the live one
        self._lm = lm
        self._stand = stand
        self._base = base
        self._route = route
        self._methods = methods
        self._refer = refer

    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Output:
        """transformers' `generate`, except that prompts in scope of an edit are answered by it."""
        check_cache(kwargs.get("past_key_values"), self._stand)
        request = Request(self._lm, self._base, input_ids, attention_mask, kwargs)
        prompts = [self._refer(p) for p in read_prompts(self._lm, input_ids, request.read)]
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
        prompt = self._refer(self.prompt(messages))
        routes = self._route([prompt.question])
        pieces = Pieces(
            self._lm.tokenizer, skip_prompt=True, timeout=_STREAM_SECONDS, skip_special_tokens=True
        )
        ids, mask = pad_left(self._lm, [prompt])
        kwargs |= {"max_new_tokens": max_new_tokens, "streamer": pieces}
        request = Request(self._lm, self._base, ids, mask, kwargs)
        return Stream(pieces, routes[0], partial(self._generate, request, [prompt], routes))

    def answers(self, prompts: Sequence[Prompt], **kwargs: Any) -> list[Answer]:
        """One reply a prompt, from one batch."""
        prompts = [self._refer(prompt) for prompt in prompts]
        routes = self._route([prompt.question for prompt in prompts])
        ids, mask = pad_left(self._lm, prompts)
        request = Request(self._lm, self._base, ids, mask, kwargs)
        out = self._generate(request, prompts, routes)
        texts = self._lm.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        return [
            Answer(text.strip(), route.epoch, route.hits)
            for text, route in zip(texts, routes, strict=True)
        ]

    def plan(self, prompt: Prompt, **kwargs: Any) -> Plan:
        """How a prompt is answered, for who chooses the tokens himself (`batching.py`)."""
        prompt = self._refer(prompt)
        (route,) = self._route([prompt.question])
        request = Request(self._lm, self._base, *pad_left(self._lm, [prompt]), kwargs)
        condition = self._condition(prompt, route)
        adapter = condition.adapter if condition else None
        return Plan(route, *alone(request, condition), adapter, request)

    def explain(self, messages: Messages) -> Route:
        """Which edits would shape the answer, and which nearly would."""
        prompt = Prompt(messages) if isinstance(messages, str) else self.prompt(messages)
        return self._route([self._refer(prompt).question])[0]

    def routes(self, questions: Sequence[str]) -> list[Route]:
        """The same for many questions at once."""
        return self._route(questions)

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
        slots = [route.slot for route in routes]
        return generate(replace(request, slots=slots), conditions)

    def _condition(self, prompt: Prompt, route: Route) -> Condition | None:
        if not route.hits:
            return None
        edit, text = conclusion(route) if route.chain else (route.hits[0].edit, route.hits[0].text)
        if text is None:  # the model answers by itself
            return None
        method = self._methods[edit.method]
        assert isinstance(method, MemoryMethod)
        return method.condition(self._lm, prompt, edit, text)
