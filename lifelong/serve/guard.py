"""What every request passes: its id, its host and origin, its size, its rate; and its log line.

    unknown Host            403      against names that were rebound to this machine
    foreign Origin          403      where anything might change
    no key, a wrong one     401      the open paths need none
    too many                429
    body too long           413

What leaves bears the id, and the headers that keep a browser from doing more than show it.
"""

import logging
from time import perf_counter
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifelong.serve.keys import Caller, Keys, caller_of
from lifelong.serve.limits import Allowance
from lifelong.serve.metrics import Metrics
from lifelong.serve.problems import Problem, problem_of, response
from lifelong.serve.sessions import Sessions
from lifelong.serve.settings import Settings

OPEN = ("/health/live", "/health/ready", "/static/", "/login")
PAGES = ("/", "/edits", "/try", "/readings", "/logout")  # where a cookie may stand for a key

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = _SAFE | {"POST", "PUT", "PATCH", "DELETE"}  # labels: no caller may make up others
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
_ID_CHARACTERS = 128
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}

_log = logging.getLogger("lifelong.serve.access")


class Guard:
    """ASGI middleware around the whole app."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        keys: Keys,
        metrics: Metrics,
        sessions: Sessions,
    ) -> None:
        self._app = app
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        self._sessions = sessions
        self._rate = Allowance(settings.requests_a_minute, 60, settings.users_a_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, began = Headers(scope=scope), perf_counter()
        id = _id(headers)
        status, caller = 500, None

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                told = MutableHeaders(scope=message)
                told["x-request-id"] = id
                for name, value in _HEADERS.items():
                    told.setdefault(name, value)
            await send(message)

        try:
            self._check_source(scope, headers)
            caller = self._caller(scope, headers)
            scope.setdefault("state", {}).update(caller=caller, id=id)
            body = await self._body(headers, receive)
        except Exception as exc:  # noqa: BLE001  the server's boundary
            problem = problem_of(exc)
            asked = _is_page(scope["path"]) and problem.status == 401
            refusal = RedirectResponse("/login", 303) if asked else response(problem)
            await refusal(scope, receive, reply)
        else:
            await self._pass(scope, _again(body, receive), reply, id)
        finally:
            self._note(scope, status, perf_counter() - began, id, caller)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, id: str) -> None:
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as exc:  # noqa: BLE001  the server's boundary
            _log.exception("request %s failed", id)
            if not started:
                await response(problem_of(exc))(scope, receive, send)

    def _check_source(self, scope: Scope, headers: Headers) -> None:
        host, allowed = headers.get("host", ""), self._settings.hosts | {self._settings.host}
        if not scope["path"].startswith("/health/") and _name(host) not in allowed:
            raise Problem(403, f"This server does not go by the name {_name(host)!r}.", code="host")
        origin = headers.get("origin")
        foreign = origin and urlsplit(origin).netloc != host
        if foreign and scope["method"] not in _SAFE and origin not in self._settings.origins:
            raise Problem(403, f"Requests from pages of {origin!r} are refused.", code="origin")

    def _caller(self, scope: Scope, headers: Headers) -> Caller | None:
        path = scope["path"]
        if path.startswith(OPEN):
            return None
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        given = secret.strip() if scheme.lower() == "bearer" else None
        if given is None and _is_page(path):
            given = self._sessions.secret(headers.get("cookie", ""))
        user = headers.get("x-lifelong-user")
        if user is not None and not 0 < len(user.strip()) <= len(user) <= _ID_CHARACTERS:
            raise Problem(400, "X-Lifelong-User is empty or too long.", param="X-Lifelong-User")
        direct = self._settings.is_local and not any(name in headers for name in _FORWARDED)
        caller = caller_of(self._keys, given, user, trusting=direct)
        if caller is None:
            raise Problem(401, "This needs an API key that is good.", code="invalid_api_key")
        if wait := self._rate.take(caller):
            raise Problem(429, "Too many requests.", code="rate_limited", retry_after=wait)
        return caller

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        most, body, more = self._settings.body_bytes, b"", True
        length = headers.get("content-length", "")
        while more:
            if len(body) > most or (length.isdecimal() and int(length[:20]) > most):
                raise Problem(413, f"The body has more than {most} bytes.", code="too_large")
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "The request broke off.")
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > most:
            raise Problem(413, f"The body has more than {most} bytes.", code="too_large")
        return body

    def _note(
        self, scope: Scope, status: int, seconds: float, id: str, caller: Caller | None
    ) -> None:
        route = getattr(scope.get("route"), "path_format", None) or "none"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.request_seconds.observe(seconds)
        fields = {
            "request_id": id,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(seconds, 4),
            "key": caller.key if caller else None,
        }
        _log.info("%s %s %d", scope["method"], scope["path"], status, extra={"fields": fields})


def _is_page(path: str) -> bool:
    return path in PAGES or path.startswith(("/edits/", "/page/"))


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read already, then whatever else comes."""
    told = False

    async def once() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


def _id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    plain = given.isascii() and given.replace("-", "").replace("_", "").isalnum()
    return given if plain and len(given) <= _ID_CHARACTERS else uuid4().hex


def _name(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).strip("[]").lower()
