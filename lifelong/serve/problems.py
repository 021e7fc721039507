"""Every error as the OpenAI API words it: `{"error": {"message", "type", "param", "code"}}`."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from lifelong.errors import (
    AlreadyTaught,
    Busy,
    Conflicting,
    LifelongError,
    MessagesRefused,
    ModelError,
    NoChatTemplate,
    PromptTooLong,
)
from store import KeyReused, Stale, StoreError, UnknownEdit, WrongStatus

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
_STATUS: Mapping[type[Exception], int] = {
    AlreadyTaught: 409,
    Conflicting: 409,
    NoChatTemplate: 400,
    MessagesRefused: 400,
    PromptTooLong: 400,
    Busy: 503,
    ModelError: 503,
    LifelongError: 400,
    UnknownEdit: 404,
    KeyReused: 409,
    WrongStatus: 409,
    Stale: 409,
    StoreError: 503,
}
_OPENAI = {"prompt_too_long": "context_length_exceeded"}  # their names for our errors


class Problem(Exception):
    """A request that is refused: the HTTP status, what is wrong, and the field that is."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after


TOLD = (Problem, LifelongError, StoreError, RequestValidationError, HTTPException)


def body(problem: Problem) -> dict[str, Any]:
    """The error object."""
    error = {
        "message": str(problem),
        "type": _TYPES.get(problem.status, "invalid_request_error"),
        "param": problem.param,
        "code": problem.code,
    }
    if problem.status >= 500 and problem.status != 503:
        error["type"] = "server_error"
    return {"error": error}


def response(problem: Problem) -> JSONResponse:
    """The error as a response."""
    wait = problem.retry_after or (1 if problem.status == 503 else None)
    headers = {"retry-after": str(max(1, round(wait)))} if wait else {}
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body(problem), problem.status, headers)


def problem_of(error: Exception) -> Problem:
    """What an error of ours, or any other, is to the caller."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:])) or None
        return Problem(400, f"{where or 'body'}: {first['msg']}", param=where)
    kind = next((kind for kind in type(error).__mro__ if kind in _STATUS), None)
    if kind is None:
        return Problem(500, "Something went wrong here; the log says what.", code="internal_error")
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    return Problem(_STATUS[kind], str(error), code=_OPENAI.get(name, name))


def install(app: FastAPI) -> None:
    """Let every error of `app` leave in this shape, and none with a traceback."""

    async def told(_: Request, error: Exception) -> Response:
        return response(problem_of(error))

    for kind in TOLD:
        app.add_exception_handler(kind, told)
