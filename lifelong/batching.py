"""Many replies at once: who asks joins the batch between two tokens, who is answered leaves it.

    waiting ── join ──► rows, padded on the left ── one forward ──► a token each ──► its listener
       ▲                  └── a row leaves at its end, its limit, a stop string, or unheard
    one that wants other terms waits until the batch is empty, and so do those behind it

Terms are the state of the weights and an adapter. Each row has its own route, prompt, limit and
random draws: what is edited meanwhile changes the next request, never a running one.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Literal, NamedTuple, Protocol, cast

import torch
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lifelong.adapter import adapted
from lifelong.errors import Busy, EmptyPrompt, PromptTooLong
from lifelong.generate import filling
from lifelong.lm import LM
from lifelong.prompt import Prompt, stack_left
from lifelong.router import Route
from lifelong.view import Plan, View
from lifelong.weights import Key, State, Weights

Finish = Literal["stop", "length"]

_WAITING = 256  # requests; a longer queue helps nobody
_COLD = 1e-5  # temperature: the likeliest token is as good as sure, and scores stay finite

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of one reply are chosen; None is what the model's own settings say."""

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """What a reply goes on with; the last one says why it is the last, and how many tokens came."""

    text: str
    finish: Finish | None = None
    tokens: int = 0


Listener = Callable[[Piece | Exception], object]


class Terms(NamedTuple):
    """What all rows of a batch share: the weights, by their key, and what the model has besides."""

    weights: Key
    adapter: Path | None


@dataclass(eq=False)
class Ticket:
    """One request, waiting or being answered."""

    plan: Plan
    state: State
    sampling: Sampling
    listener: Listener
    unheard: bool = field(default=False)

    @property
    def route(self) -> Route:
        """The decision on its prompt."""
        return self.plan.route

    @property
    def terms(self) -> Terms:
        """What it wants of the batch that it joins."""
        return Terms(self.state.key, self.plan.adapter)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt as it was asked."""
        return int(self.plan.request.input_ids.shape[1])

    def cancel(self) -> None:
        """Nobody listens any more."""
        self.unheard = True


class Batching:
    """The thread that answers. `close` it: it ends the replies that are being made."""

    def __init__(
        self,
        lm: LM,
        weights: Weights,
        *,
        busy: Callable[[], AbstractContextManager[object]] = nullcontext,
        most: int = 16,
    ) -> None:
        self._lm = lm
        self._weights = weights
        self._busy = busy
        self._most = most
        self._waiting: deque[Ticket] = deque()
        self._changed = Condition()
        self._open = True
        self.running = 0  # rows, for those who watch
        self._thread = Thread(target=self._run, name="lifelong batching")
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    def ask(self, view: View, prompt: Prompt, sampling: Sampling, listener: Listener) -> Ticket:
        """Route `prompt` now and answer it soon; `listener` is told every piece, in our thread.

        An error that ends the reply is told as well. Raises Busy, EmptyPrompt, PromptTooLong.
        """
        if self.waiting >= _WAITING:
            raise Busy(f"{self.waiting} requests are waiting.", "Ask again in a few seconds.")
        stop = {"stop_strings": list(sampling.stop)} if sampling.stop else {}
        plan = view.plan(prompt, max_new_tokens=sampling.max_tokens, **stop)
        ticket = Ticket(plan, view.state or self._weights.resting, sampling, listener)
        if not ticket.prompt_tokens:
            raise EmptyPrompt("The prompt has no tokens.", "Say something.")
        if ticket.prompt_tokens + sampling.max_tokens > plan.request.positions:
            raise PromptTooLong(
                f"The prompt has {ticket.prompt_tokens} tokens and the reply may have"
                f" {sampling.max_tokens}; the model reads {plan.request.positions}.",
                "Shorten the conversation or max_tokens.",
            )
        with self._changed:
            if not self._open:
                raise Busy("The server is shutting down.", "Ask again in a few seconds.")
            self._waiting.append(ticket)
            self._changed.notify_all()
        return ticket

    def drain(self, seconds: float) -> bool:
        """Wait until nothing waits or runs; whether that was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self.running, seconds)

    def close(self) -> None:
        """End what is being answered, and the thread; twice is fine."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._thread.join()

    # -- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while (first := self._next()) is not None:
            batch, adapter = Batch(self._lm), first.plan.adapter
            wearing = adapted(self._lm, adapter) if adapter else nullcontext()
            try:
                with self._weights.held(first.state), wearing, self._busy(), torch.no_grad():
                    self._answer(batch, first.terms)
            except Exception as exc:  # noqa: BLE001  it belongs to those who listen
                _log.exception("A batch failed.")
                batch.fail(exc)
        for ticket in self._waiting:
            ticket.listener(Busy("The server is shutting down.", "Ask again in a few seconds."))

    def _next(self) -> Ticket | None:
        """The first of the queue, which stays there; None when there will be none."""
        with self._changed:
            self.running = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or not self._open)
            return self._waiting[0] if self._open else None

    def _answer(self, batch: "Batch", terms: Terms) -> None:
        """Until the batch is empty and the next in the queue, if any, wants other terms."""
        while self._open:
            if new := self._take(terms, self._most - len(batch.rows)):
                self.running = len(batch.rows) + len(new)
                batch.join(new)
            elif batch.rows:
                batch.step()
            else:
                return
            self.running = len(batch.rows)
        batch.fail(Busy("The server is shutting down.", "Ask again in a few seconds."))

    def _take(self, terms: Terms, room: int) -> list["Row"]:
        taken: list[Row] = []
        with self._changed:
            while self._waiting and len(taken) < room and self._waiting[0].terms == terms:
                ticket = self._waiting.popleft()
                if not ticket.unheard:
                    taken.append(Row(self._lm, ticket))
        return taken


class Row:
    """One reply in the making."""

    def __init__(self, lm: LM, ticket: Ticket) -> None:
        self.ticket = ticket
        self.ids = ticket.plan.ids  # (T,) read so far
        self.over = False
        self._said = 0
        self._ends = ticket.plan.request.ends
        self._text = Text(lm.tokenizer, ticket.sampling.stop)
        self._processors = _processors(lm, ticket)
        self._draw = _draws(lm, ticket.sampling)

    def choose(self, logits: torch.Tensor) -> None:
        """Take the next token by `logits` (vocabulary,) and tell it; or be over."""
        if self.ticket.unheard:
            self.over = True
            return
        read = cast("torch.LongTensor", self.ids[None])
        scores = self._processors(read, cast("torch.FloatTensor", logits[None].float()))[0]
        token = self._draw(scores)
        self._said += 1
        self.ids = torch.cat([self.ids, torch.tensor([token])])
        self._tell(token)

    def fail(self, error: Exception) -> None:
        """There will be no more of it."""
        self.over = True
        self.ticket.listener(error)

    def _tell(self, token: int) -> None:
        ended = token in self._ends
        piece = "" if ended else self._text.add(token)
        finish: Finish | None = "stop" if ended or self._text.stopped else None
        if finish is None and self._said >= self.ticket.sampling.max_tokens:
            finish = "length"
        if finish:
            self.over = True
            self.ticket.listener(Piece(piece + self._text.rest(), finish, self._said))
        elif piece:
            self.ticket.listener(Piece(piece, None, self._said))


class Batch:
    """Rows that are read together: keys and values (B, heads, T, d), padded on the left."""

    def __init__(self, lm: LM) -> None:
        self.rows: list[Row] = []
        self._lm = lm
        self._cache = DynamicCache()
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=lm.device)  # (B, T)

    def join(self, new: Sequence[Row]) -> None:
        """Read the prompts of new rows and choose their first tokens."""
        self.rows += new  # before anything can fail
        cache = DynamicCache()
        ids, mask = stack_left([row.ids for row in new], self._lm)
        with filling(self._lm, [row.ticket.route.slot for row in new], mask):
            logits = self._forward(ids, mask, cache)
        if len(self.rows) == len(new):
            self._cache, self._mask = cache, mask
        else:
            self._merge(cache, mask)
        self._choose(new, logits)

    def step(self) -> None:
        """One token more for every row."""
        last = torch.stack([row.ids[-1:] for row in self.rows]).to(self._lm.device)
        self._mask = torch.cat([self._mask, torch.ones_like(last)], dim=1)
        self._choose(self.rows, self._forward(last, self._mask, self._cache))

    def fail(self, error: Exception) -> None:
        """None of the rows is answered to its end."""
        for row in self.rows:
            if not row.over:
                row.fail(error)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """Logits (B, vocabulary) of what comes next."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self._lm.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def _choose(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        for row, own in zip(rows, logits.cpu(), strict=True):
            try:
                row.choose(own)
            except Exception as exc:  # noqa: BLE001  one row's fault is no other's
                _log.exception("A reply failed.")
                row.fail(exc)
        stay = [place for place, row in enumerate(self.rows) if not row.over]
        if len(stay) < len(self.rows):
            self.rows = [self.rows[place] for place in stay]
            self._keep(stay)

    def _merge(self, cache: DynamicCache, mask: torch.Tensor) -> None:
        length = max(self._mask.shape[1], mask.shape[1])
        self._mask = torch.cat([_left(self._mask, length, -1), _left(mask, length, -1)])
        for mine, new in zip(_layers(self._cache), _layers(cache), strict=True):
            mine.keys = torch.cat([_left(mine.keys, length), _left(new.keys, length)])
            mine.values = torch.cat([_left(mine.values, length), _left(new.values, length)])

    def _keep(self, places: Sequence[int]) -> None:
        """Only these rows, and no column that is padding for all of them."""
        if not places:
            self._cache = DynamicCache()
            return
        mask = self._mask[places]
        first = int(mask.any(0).nonzero()[0])
        self._mask = mask[:, first:]
        for layer in _layers(self._cache):
            layer.keys = layer.keys[places, :, first:]
            layer.values = layer.values[places, :, first:]


class Text:
    """Tokens as text, as far as it is certain: whole characters, no beginning of a stop string."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = stop
        self._tokens: list[int] = []
        self._from, self._read = 0, 0  # tokens before `_read` are told; they are decoded from here
        self._kept = ""  # which may be the beginning of a stop string

    def add(self, token: int) -> str:
        """The text that is certain by now and was not before."""
        self._tokens.append(token)
        return self._without_stop(self._new())

    def rest(self) -> str:
        """What was kept back, once nothing more comes."""
        if self.stopped:
            return ""
        kept, self._kept = self._kept + self._new(whole=False), ""
        return kept

    def _new(self, *, whole: bool = True) -> str:
        before = self._decode(self._tokens[self._from : self._read])
        text = self._decode(self._tokens[self._from :])
        if whole and text.endswith("\ufffd"):  # a character of which more is to come
            return ""
        self._from, self._read = self._read, len(self._tokens)
        return text[len(before) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _without_stop(self, new: str) -> str:
        text = self._kept + new
        found = [at for at in map(text.find, self._stop) if at >= 0]
        if found:
            self.stopped, self._kept = True, ""
            return text[: min(found)]
        sure = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._kept = text[sure:]
        return text[:sure]


class Repetition(LogitsProcessor):
    """Tokens of the reply so far lose `presence`, and `frequency` for each time they were said."""

    def __init__(self, start: int, frequency: float, presence: float) -> None:
        self._start = start
        self._frequency = frequency
        self._presence = presence

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts = torch.stack(
            [torch.bincount(ids, minlength=scores.shape[1]) for ids in input_ids[:, self._start :]]
        )
        return scores - self._frequency * counts - self._presence * (counts > 0)


def _processors(lm: LM, ticket: Ticket) -> LogitsProcessorList:
    """In transformers' own order: penalties, what narrows the choice, temperature, the best few."""
    sampling, setting = ticket.sampling, ticket.plan.request.setting
    chosen: list[Any] = []
    if (penalty := setting("repetition_penalty", 1.0)) != 1.0:
        chosen.append(RepetitionPenaltyLogitsProcessor(penalty))
    if sampling.frequency_penalty or sampling.presence_penalty:
        penalties = sampling.frequency_penalty, sampling.presence_penalty
        chosen.append(Repetition(len(ticket.plan.ids), *penalties))
    chosen += ticket.plan.narrowing
    if temperature := _temperature(lm, sampling):
        chosen.append(TemperatureLogitsWarper(temperature))
        if top_k := setting("top_k", 0) if sampling.temperature is None else 0:
            chosen.append(TopKLogitsWarper(top_k))
        top_p = setting("top_p", 1.0) if sampling.top_p is None else sampling.top_p
        if top_p < 1:
            chosen.append(TopPLogitsWarper(top_p))
    return LogitsProcessorList(chosen)


def _temperature(lm: LM, sampling: Sampling) -> float:
    """0 where the likeliest token is taken."""
    if sampling.temperature is not None:
        return sampling.temperature if sampling.temperature > _COLD else 0.0
    own = lm.model.generation_config
    return float(getattr(own, "temperature", None) or 1.0) if own and own.do_sample else 0.0


def _draws(lm: LM, sampling: Sampling) -> Callable[[torch.Tensor], int]:
    """From scores (vocabulary,) to a token: the likeliest, or one drawn by this row's own dice."""
    if not _temperature(lm, sampling):
        return lambda scores: int(scores.argmax())
    dice = torch.Generator()
    dice.seed() if sampling.seed is None else dice.manual_seed(sampling.seed)
    return lambda scores: int(torch.multinomial(scores.softmax(-1), 1, generator=dice))


class _Layer(Protocol):
    """What a `DynamicCache` keeps of one layer: (B, heads, T, d) each."""

    keys: torch.Tensor
    values: torch.Tensor


def _layers(cache: DynamicCache) -> list[_Layer]:
    return cast("list[_Layer]", cache.layers)


def _left(tensor: torch.Tensor, length: int, dim: int = -2) -> torch.Tensor:
    """The tensor, padded with zeros at the beginning of `dim` up to `length`."""
    missing = length - tensor.shape[dim]
    return (
        torch.nn.functional.pad(tensor, (0, 0) * (-1 - dim) + (missing, 0)) if missing else tensor
    )


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` with which `stop` begins."""
    return next((n for n in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:n])), 0)
