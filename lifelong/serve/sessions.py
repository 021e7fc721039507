"""Who is signed in to the page: a cookie stands for an API key, a token for a form of ours."""

import hmac
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from threading import Lock
from time import monotonic

from starlette.responses import Response

COOKIE = "lifelong_session"

_SECONDS = 12 * 3600
_MOST = 1_000


class Sessions:
    """Sessions of this process: a restart ends them, and so does the end of the key."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._salt = secrets.token_bytes(32)
        self._open: dict[str, tuple[str, float]] = {}  # id -> the key's secret, until when
        self._lock = Lock()

    def begin(self, secret: str, response: Response, *, secure: bool = False) -> None:
        """Sign in with an API key that was found good."""
        id = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._open) >= _MOST:
                del self._open[next(iter(self._open))]
            self._open[id] = secret, self._clock() + _SECONDS
        response.set_cookie(
            COOKIE, id, max_age=_SECONDS, httponly=True, samesite="strict", secure=secure
        )

    def end(self, cookies: str, response: Response) -> None:
        """Sign out."""
        with self._lock:
            self._open.pop(_id(cookies), None)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")

    def secret(self, cookies: str) -> str | None:
        """The API key that a Cookie header stands for."""
        with self._lock:
            secret, until = self._open.get(_id(cookies), (None, 0.0))
        return secret if self._clock() < until else None

    def token(self, cookies: str) -> str:
        """What our own forms send along: nobody else's page can know it."""
        return hmac.new(self._salt, _id(cookies).encode(), "sha256").hexdigest()

    def is_ours(self, cookies: str, token: str) -> bool:
        """Whether a form with this token came from a page of ours."""
        return hmac.compare_digest(self.token(cookies).encode(), token.encode())


def _id(cookies: str) -> str:
    try:
        morsel = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
