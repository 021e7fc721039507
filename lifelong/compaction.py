"""Consolidation on duty: a thread that takes what has settled from memory into the weights.

every T minutes    due (`consolidate.Policy`) ── consolidate ─┬─ within the gate    more next time
                                                              └─ outside it         half as many;
                                                                 one alone stays in memory

Of what is done, only the journal knows: stopped at any instant, it goes on from there.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Condition, Thread, current_thread, main_thread
from time import monotonic

from lifelong.consolidate import METHOD, Consolidation, Gate, Policy
from lifelong.errors import BadSetting, EditRefused
from lifelong.watch import Turns
from store import Edit

_TICK = 1.0  # seconds after which the thread looks whether Python ends

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Consolidating:
    """What goes into the weights unasked, how, how often that is looked at, what it may cost.

    Without `every_minutes` there is no thread. A batch is as large as `budget_seconds` allow at the
    pace of the one before, never more than twice as large; the first is of `policy.least`.
    """

    every_minutes: float | None = None
    budget_seconds: float = 60.0
    policy: Policy = field(default_factory=lambda: Policy(age=100, least=10))
    method: str = METHOD
    gate: Gate | None = field(default_factory=Gate)

    def __post_init__(self) -> None:
        """Raises BadSetting."""
        if self.budget_seconds <= 0 or (self.every_minutes is not None and self.every_minutes <= 0):
            raise BadSetting("Consolidating has no time.", "Give positive numbers.")


class Compactor:
    """The thread. It survives errors by logging them, and ends by `close` or with Python."""

    def __init__(
        self,
        settings: Consolidating,
        memory: Callable[[], Sequence[Edit]],
        used: Mapping[int, int],
        consolidate: Callable[[Sequence[int]], Consolidation],
        turns: Turns,
    ) -> None:
        """`memory` are the live edits in it, `used` the answers that each has shaped."""
        self._settings = settings
        self._memory = memory
        self._used = used
        self._consolidate = consolidate
        self._turns = turns
        self._size = settings.policy.least
        self._aside = set[int]()  # what the weights did not take, alone
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._run, name="lifelong consolidation")
        if settings.every_minutes is not None:
            self._thread.start()

    def round(self) -> bool:
        """Try one batch of what is due; whether there was any. Raises StoreError."""
        policy = self._settings.policy
        memory = [edit for edit in self._memory() if edit.id not in self._aside]
        due = policy.choose(memory, self._used)
        ids = [edit.id for edit in due[: self._size]]
        if ids:
            self._turns.give_way()
            self._learn(ids, self._tried(ids))
        return bool(ids)

    def close(self) -> None:
        """Stop, after the batch that is being written; twice is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not current_thread():
            self._thread.join()

    def _tried(self, ids: Sequence[int]) -> float | None:
        """The seconds that it took; None where the weights do not take these edits."""
        try:
            done = self._consolidate(ids)
        except EditRefused as exc:
            _log.info("Edits %s stay in memory: %s", ids, exc)
            return None
        _log.info("Edits %s: %s", ids, "; ".join(done.misses) or "consolidated")
        return done.seconds if done.accepted else None

    def _learn(self, ids: Sequence[int], seconds: float | None) -> None:
        if seconds is not None:
            affordable = int(self._settings.budget_seconds * len(ids) / max(seconds, 1e-9))
            most = self._settings.policy.most
            self._size = max(1, min(most, 2 * len(ids), affordable))
        elif len(ids) > 1:
            self._size = len(ids) // 2
        else:
            self._aside.update(ids)

    def _run(self) -> None:
        while self._wait():
            try:
                while not self._over() and self.round():
                    pass
            except Exception:  # noqa: BLE001  whatever it is, the chats go on and so does this
                _log.exception("The edits could not be consolidated.")

    def _wait(self) -> bool:
        """Whether a round is due; False when there will be none."""
        assert self._settings.every_minutes is not None
        due = monotonic() + 60 * self._settings.every_minutes
        with self._changed:
            while not self._over() and (left := due - monotonic()) > 0:
                self._changed.wait(min(_TICK, left))
        return not self._over()

    def _over(self) -> bool:
        return self._closed or not main_thread().is_alive()
