"""Token buckets: how much one caller may do in a while."""

from collections.abc import Callable, Hashable
from threading import Lock
from time import monotonic

from lifelong.serve.keys import Caller

_REMEMBERED = 10_000  # callers


class Buckets:
    """`many` in `seconds` for each caller, all at once or evenly."""

    def __init__(self, many: int, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._many = many
        self._rate = many / seconds
        self._clock = clock
        self._left: dict[Hashable, tuple[float, float]] = {}  # and when that was
        self._lock = Lock()

    def take(self, who: Hashable) -> float:
        """Take one: 0.0 where that was allowed, else the seconds until it will be."""
        with self._lock:
            now = self._clock()
            left = self._now(who, now)
            if left < 1:
                return (1 - left) / self._rate
            self._left[who] = left - 1, now
            if len(self._left) > _REMEMBERED:
                self._forget(now)
            return 0.0

    def _now(self, who: Hashable, now: float) -> float:
        left, at = self._left.get(who, (float(self._many), now))
        return min(self._many, left + (now - at) * self._rate)

    def _forget(self, now: float) -> None:
        """Who has a full bucket needs no entry."""
        full = [who for who in self._left if self._now(who, now) >= self._many]
        for who in full:
            del self._left[who]


class Allowance:
    """`many` in `seconds` for each user of a key, and `users` times as many for all of its users.

    So whoever names one user after the other gets no further than that.
    """

    def __init__(self, many: int, seconds: float, users: int) -> None:
        self._user = Buckets(many, seconds)
        self._key = Buckets(many * users, seconds)

    def take(self, caller: Caller) -> float:
        """Take one: 0.0 where that was allowed, else the seconds until it will be."""
        return self._user.take((caller.key, caller.user)) or self._key.take(caller.key)
