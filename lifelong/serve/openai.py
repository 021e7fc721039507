"""The routes of an OpenAI-style endpoint: chats, completions, models."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import time
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from lifelong.errors import EditRefused
from lifelong.extract import Fact
from lifelong.prompt import Prompt
from lifelong.router import Hit
from lifelong.serve import heard
from lifelong.serve.keys import Caller
from lifelong.serve.problems import body, problem_of
from lifelong.serve.replies import Replies
from lifelong.serve.service import Service
from lifelong.serve.wire import Asked, ChatAsked, TextAsked

router = APIRouter(prefix="/v1", tags=["openai"])

_log = logging.getLogger(__name__)
_DONE = "data: [DONE]\n\n"

Extra = dict[str, Any]
Choice = Callable[[int, str, str | None], dict[str, Any]]  # number, text, why it ended


@router.get("/models")
def models(request: Request) -> dict[str, Any]:
    """The model as corrected, as it was made, and as of now for ever."""
    service: Service = request.app.state.service
    own, epoch = service.settings.model_id, service.model.epoch
    return {"object": "list", "data": [_model(n) for n in (own, f"{own}:base", f"{own}@{epoch}")]}


@router.get("/models/{model:path}")
def model(model: str, request: Request) -> dict[str, Any]:
    """One of them; every epoch up to now has its own."""
    request.app.state.service.view(model, request.state.caller)
    return _model(model)


@router.post("/chat/completions")
async def chat(asked: ChatAsked, request: Request) -> Response:
    """The reply to a conversation."""
    service: Service = request.app.state.service
    caller: Caller = request.state.caller
    asked.check()
    messages = [turn.plain() for turn in asked.messages]
    view = await run_in_threadpool(service.view, asked.model, caller)
    prompt = await run_in_threadpool(service.prompt, view, messages)
    own = await run_in_threadpool(_heard, service, caller, asked.model, messages)
    if own is not None:
        text, extra = own
        return _said(asked, text, extra)
    n, most = asked.n or 1, service.settings.max_tokens
    replies = Replies(service, view, [(prompt, asked.sampling(most, i)) for i in range(n)])
    await replies.begin()
    if asked.stream:
        return _streamed(asked, replies, "chat.completion.chunk", _delta)
    return await _whole(asked, replies, request, "chat.completion", _message)


@router.post("/completions")
async def complete(asked: TextAsked, request: Request) -> Response:
    """The continuation of a text, or of several."""
    service: Service = request.app.state.service
    asked.check()
    view = await run_in_threadpool(service.view, asked.model, request.state.caller)
    service.check_text(*asked.prompts)
    n, most = asked.n or 1, service.settings.max_tokens
    texts = [Prompt(text) for text in asked.prompts]
    rows = [(text, asked.sampling(most, i)) for text in texts for i in range(n)]
    replies = Replies(service, view, rows)
    await replies.begin()
    if asked.stream:
        return _streamed(asked, replies, "text_completion", _text)
    return await _whole(asked, replies, request, "text_completion", _text)


def _heard(
    service: Service, caller: Caller, model_id: str, messages: Sequence[Mapping[str, str]]
) -> tuple[str, Extra] | None:
    """Our own reply to a message that corrects, if we listen; and what is told beside it."""
    policy = service.settings.heard
    if policy == "off" or model_id != service.settings.model_id or not caller.may("correct"):
        return None
    fact, found = heard.confirmed(messages), heard.correction(messages)
    if fact is None and found and policy == "confirm":
        return heard.asking(found), {"epoch": service.model.epoch, "edits": [], "asked": True}
    fact = fact or found
    return _taken(service, caller, fact) if fact else None


def _taken(service: Service, caller: Caller, fact: Fact) -> tuple[str, Extra]:
    said = {"prompt": fact.prompt, "target": fact.target, "subject": fact.subject}
    try:
        edit = service.correct(caller, said, source="chat")
    except EditRefused as exc:  # which the user should read where he wrote
        return f"I cannot take that: {exc}", {"epoch": service.model.epoch, "edits": []}
    correction = {"id": edit.id, "epoch": edit.epoch, "status": edit.status}
    told = {"epoch": edit.epoch, "edits": [], "correction": correction}
    return heard.thanks(fact, edit.status == "live"), told


def _said(asked: ChatAsked, text: str, extra: Extra) -> Response:
    """A reply of ours, in the form that was asked for."""
    numbers = range(asked.n or 1)
    frame = _frame(asked, "chat.completion.chunk" if asked.stream else "chat.completion")
    frame["lifelong"], headers = extra, _headers(extra["epoch"])
    usage = _usage(0, 0)
    if asked.stream:
        chunks = [{**frame, "choices": [_delta(i, text, "stop", first=True)]} for i in numbers]
        chunks += [{**frame, "choices": [], "usage": usage}] if asked.wants_usage else []
        lines = [*(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), _DONE]
        return StreamingResponse(iter(lines), media_type="text/event-stream", headers=headers)
    choices = [_message(i, text, "stop") for i in numbers]
    return JSONResponse({**frame, "choices": choices, "usage": usage}, headers=headers)


async def _whole(
    asked: Asked, replies: Replies, request: Request, kind: str, choice: Choice
) -> Response:
    made = await replies.whole(request)
    frame = _frame(asked, kind) | {"lifelong": _extra(replies)}
    choices = [choice(i, text, last.finish) for i, (text, last) in enumerate(made)]
    usage = _usage(replies.prompt_tokens, sum(last.tokens for _, last in made))
    return JSONResponse(
        {**frame, "choices": choices, "usage": usage}, headers=_headers(replies.epoch)
    )


def _streamed(
    asked: Asked, replies: Replies, kind: str, choice: Callable[..., dict[str, Any]]
) -> Response:
    frame, extra = _frame(asked, kind), {"lifelong": _extra(replies)}

    async def lines() -> AsyncIterator[str]:
        begun, tokens = set[int](), 0
        try:
            async for number, piece in replies.pieces():
                made = choice(number, piece.text, piece.finish, first=number not in begun)
                ends = piece.finish or number not in begun
                yield _line({**frame, "choices": [made], **(extra if ends else {})})
                begun.add(number)
                tokens += piece.tokens
            if asked.wants_usage:
                usage = _usage(replies.prompt_tokens, tokens)
                yield _line({**frame, "choices": [], "usage": usage})
        except Exception as exc:  # noqa: BLE001  the response has begun: the error goes into it
            _log.exception("A stream broke off.")
            yield _line(body(problem_of(exc)))
        yield _DONE

    return StreamingResponse(
        lines(), media_type="text/event-stream", headers=_headers(replies.epoch)
    )


def _frame(asked: Asked, kind: str) -> dict[str, Any]:
    prefix = "cmpl-" if kind == "text_completion" else "chatcmpl-"
    return {
        "id": prefix + uuid4().hex,
        "object": kind,
        "created": int(time()),
        "model": asked.model,
    }


def _message(number: int, text: str, finish: str | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": number, "message": message, "finish_reason": finish, "logprobs": None}


def _delta(number: int, text: str, finish: str | None, *, first: bool) -> dict[str, Any]:
    delta = {"content": text} | ({"role": "assistant"} if first else {})
    return {"index": number, "delta": delta, "finish_reason": finish, "logprobs": None}


def _text(number: int, text: str, finish: str | None, *, first: bool = False) -> dict[str, Any]:
    return {"index": number, "text": text, "finish_reason": finish, "logprobs": None}


def _usage(read: int, made: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _model(id: str) -> dict[str, Any]:
    return {"id": id, "object": "model", "created": 0, "owned_by": "lifelong"}


def _extra(replies: Replies) -> Extra:
    return {"epoch": replies.epoch, "edits": [_hit(hit) for hit in replies.hits]}


def _hit(hit: Hit) -> dict[str, Any]:
    why = f"{hit.edit.prompt} -> {hit.edit.target}"
    return {"id": hit.id, "score": round(hit.score, 4), "why": why}


def _headers(epoch: int) -> dict[str, str]:
    return {"x-lifelong-epoch": str(epoch)}


def _line(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
