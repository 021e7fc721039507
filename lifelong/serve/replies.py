"""From the thread that answers to the event loop: replies to one request, as they come."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from time import perf_counter

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from lifelong.batching import Piece, Sampling, Ticket
from lifelong.prompt import Prompt
from lifelong.router import Hit
from lifelong.serve.problems import Problem
from lifelong.serve.service import Service
from lifelong.view import View

Told = tuple[int, Piece | Exception]


class Replies:
    """One reply for each of `asked`, by number; whoever leaves the block wants no more of them."""

    def __init__(self, service: Service, view: View, asked: list[tuple[Prompt, Sampling]]) -> None:
        self._service = service
        self._view = view
        self._asked = asked
        self._told: asyncio.Queue[Told] = asyncio.Queue()
        self._tickets: list[Ticket] = []
        self._began = perf_counter()

    async def begin(self) -> None:
        """Route and queue them all. Raises Busy, PromptTooLong."""
        loop = asyncio.get_running_loop()
        try:
            for number, (prompt, sampling) in enumerate(self._asked):
                listener = partial(_pass_on, loop, self._told, number)
                ask = partial(self._service.ask, self._view, prompt, sampling, listener)
                self._tickets.append(await run_in_threadpool(ask))
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Nobody wants them any more."""
        for ticket in self._tickets:
            ticket.cancel()

    @property
    def epoch(self) -> int:
        """As of when the first of them is given; the others are not older."""
        return self._tickets[0].route.epoch

    @property
    def hits(self) -> list[Hit]:
        """The edits that shape them, each once."""
        found = {hit.id: hit for ticket in self._tickets for hit in ticket.route.hits}
        return list(found.values())

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts; one that is answered several times counts once."""
        prompts = {id(prompt): t for (prompt, _), t in zip(self._asked, self._tickets, strict=True)}
        return sum(ticket.prompt_tokens for ticket in prompts.values())

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """(number, piece) until every reply is over. Raises what ended one of them."""
        left, metrics = len(self._asked), self._service.metrics
        first = True
        try:
            while left:
                number, piece = await self._told.get()
                if isinstance(piece, Exception):
                    raise piece
                if first:
                    self._note_first(perf_counter() - self._began)
                    first = False
                if piece.finish:
                    left -= 1
                    metrics.generation_tokens.inc(piece.tokens)
                    metrics.finished.labels(piece.finish).inc()
                yield number, piece
            metrics.answer_seconds.observe(perf_counter() - self._began)
        finally:
            self.cancel()

    def _note_first(self, seconds: float) -> None:
        self._service.metrics.first_token_seconds.observe(seconds)
        self._service.trend.note(shaped=bool(self.hits), first_token=seconds)

    async def whole(self, request: Request) -> list[tuple[str, Piece]]:
        """Text and last piece of each. Raises Problem where the caller hangs up first."""
        gone = asyncio.create_task(_gone(request))
        made = asyncio.create_task(self._gather())
        try:
            await asyncio.wait({gone, made}, return_when=asyncio.FIRST_COMPLETED)
            if not made.done():
                raise Problem(400, "The caller hung up.")
            return made.result()
        finally:
            gone.cancel()
            made.cancel()
            self.cancel()

    async def _gather(self) -> list[tuple[str, Piece]]:
        texts, last = [""] * len(self._asked), {}
        async for number, piece in self.pieces():
            texts[number] += piece.text
            last[number] = piece
        return [(text, last[number]) for number, text in enumerate(texts)]


def _pass_on(
    loop: asyncio.AbstractEventLoop,
    told: "asyncio.Queue[Told]",
    number: int,
    piece: Piece | Exception,
) -> None:
    put: Callable[[Told], None] = told.put_nowait
    if not loop.is_closed():
        loop.call_soon_threadsafe(put, (number, piece))


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
