"""How often edits fired and how long replies took, minute by minute, for the page."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import time

_MINUTES = 24 * 60


@dataclass
class Minute:
    """What happened in one."""

    start: int  # seconds since 1970
    answers: int = 0
    shaped: int = 0
    first_token: float = 0.0  # seconds, summed over the answers


class Trend:
    """The last day."""

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._minutes: deque[Minute] = deque(maxlen=_MINUTES)
        self._lock = Lock()

    def note(self, *, shaped: bool, first_token: float) -> None:
        """One answer has begun."""
        start = int(self._clock()) // 60 * 60
        with self._lock:
            if not self._minutes or self._minutes[-1].start != start:
                self._minutes.append(Minute(start))
            minute = self._minutes[-1]
            minute.answers += 1
            minute.shaped += shaped
            minute.first_token += first_token

    def columns(self) -> list[list[float]]:
        """Time, share of answers that an edit shaped, mean seconds to the first token."""
        with self._lock:
            rows = [
                (float(m.start), m.shaped / m.answers, m.first_token / m.answers)
                for m in self._minutes
            ]
        return [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
