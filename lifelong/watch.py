"""The monitor on duty: a thread that takes a reading when one is due and acts on what it finds.

every N edits, or T minutes   look (`monitor.py`) ── alarms (`alarms.py`) ── suspects
                                                        │
policy    alert                 tell it                 ├──► log, `on_alert`, journal
          quarantine, undo      retire the first suspect of every alarm, too
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from threading import Condition, Thread, current_thread, main_thread
from time import monotonic
from typing import Literal, get_args

from lifelong.alarms import STRANGE, Alarm, Thresholds, alarms_of, failures, faults, losses
from lifelong.errors import BadSetting
from lifelong.monitor import SAMPLE, Budget, Findings, Monitor
from lifelong.suspects import suspects
from lifelong.trackers import TRACKERS, numbers
from store import JSON, Reading, Status

Policy = Literal["alert", "quarantine", "undo"]

_KINDS: dict[str, Status] = {"quarantine": "quarantined", "undo": "retired"}
_SMALL_BATCH = 8  # questions that a chat may have to wait for
_PATIENCE = 5.0  # seconds for which a batch gives way to chats
_TICK = 1.0  # seconds after which the thread looks whether Python ends

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Monitoring:
    """When readings are taken, what they may cost, what is alarming and what is done then.

    Without `every_edits` and `every_minutes` there is no thread: readings are taken by `check`.
    A reading asks for up to `budget_seconds`; a search for suspects may take as long again.
    `on_alert` is called, in the monitor's thread, with every alarm that the reading before had
    not. `report_to` names trackers that readings are sent to (`trackers.TRACKERS`).
    """

    every_edits: int | None = None
    every_minutes: float | None = None
    budget_seconds: float = 20.0
    sample: int = SAMPLE
    policy: Policy = "alert"
    thresholds: Thresholds = field(default_factory=Thresholds)
    on_alert: Callable[[Alarm], object] | None = None
    report_to: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raises BadSetting."""
        positive = (self.every_edits, self.every_minutes, self.budget_seconds, self.sample)
        if any(value is not None and value <= 0 for value in positive):
            raise BadSetting("Monitoring has a number below its least.", "Give positive numbers.")
        if self.policy not in get_args(Policy):
            known = ", ".join(get_args(Policy))
            raise BadSetting(f"There is no policy {self.policy!r}.", f"Take one of: {known}.")
        if unknown := sorted(set(self.report_to) - TRACKERS.keys()):
            known = ", ".join(TRACKERS)
            raise BadSetting(f"There is no tracker {unknown[0]!r}.", f"Take one of: {known}.")

    @property
    def by_itself(self) -> bool:
        """Whether readings are taken unasked."""
        return self.every_edits is not None or self.every_minutes is not None


class Check:
    """One reading from beginning to end: look, judge, act, note, tell."""

    def __init__(
        self, monitor: Monitor, settings: Monitoring, retire: Callable[[int, Status, str], object]
    ) -> None:
        self._monitor = monitor
        self._settings = settings
        self._retire = retire
        self._writers = [TRACKERS[name]() for name in settings.report_to]

    def __call__(self, sample: int, fresh: int = 0, budget: Budget | None = None) -> Reading:
        """Take and note a reading of `sample` edits and the `fresh` newest."""
        journal, budget = self._monitor.journal, budget or Budget()
        found = self._monitor.look(sample, fresh, budget)
        earlier = journal.readings()
        alarms = self._alarms(found, earlier, budget)
        retired = self._act(alarms)
        judged: dict[str, JSON] = {"alarms": [alarm.to_json() for alarm in alarms]}
        reading = journal.note(Reading(found.body | judged | {"retired": retired}))
        self._tell(reading, _unheard(alarms, earlier))
        return reading

    def _alarms(self, found: Findings, earlier: Sequence[Reading], budget: Budget) -> list[Alarm]:
        limits = self._settings.thresholds
        whole, lost = list(faults(found, limits)), list[Alarm]()
        for alarm in losses(found.body, earlier, limits):
            failed = failures(found, alarm.kind)
            # With damaged rows the past cannot be rebuilt; and they explain enough.
            guilty = found.damaged or suspects(self._monitor, failed, budget.again())
            lost.append(replace(alarm, suspects=tuple(guilty)))
        # What loses shares makes replies strange, too: the next reading will tell whose still are.
        causes = {alarm.suspects[:1] for alarm in lost}
        single = [a for a in whole if not lost or a.kind != STRANGE or a.suspects in causes]
        return [*single, *lost]

    def _act(self, alarms: Sequence[Alarm]) -> list[JSON]:
        """Retire the likeliest suspect of every alarm, if that is the policy; which ones."""
        if self._settings.policy == "alert":
            return []
        live = set(self._monitor.journal.live_ids())
        first = {a.suspects[0]: a.kind for a in alarms if a.suspects and a.suspects[0] in live}
        for id, why in first.items():
            self._retire(id, _KINDS[self._settings.policy], f"monitor: {why}")
        return list(first)

    def _tell(self, reading: Reading, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            _log.warning("%s Suspects: %s", alarm.what, alarm.suspects)
        for write in self._writers:
            write(numbers(reading))
        for alarm in alarms:
            if self._settings.on_alert:
                self._settings.on_alert(alarm)


class Turns:
    """Chats generate at once; the monitor between them."""

    def __init__(self) -> None:
        self._chats = 0
        self._changed = Condition()

    @contextmanager
    def chat(self) -> Iterator[None]:
        """While a chat generates."""
        with self._changed:
            self._chats += 1
        try:
            yield
        finally:
            with self._changed:
                self._chats -= 1
                self._changed.notify_all()

    def give_way(self) -> None:
        """Wait until no chat generates, but not for ever."""
        with self._changed:
            self._changed.wait_for(lambda: not self._chats, _PATIENCE)


class Watch:
    """The thread. It survives errors by logging them, and ends by `close` or with Python."""

    def __init__(self, settings: Monitoring, check: Check, turns: Turns) -> None:
        self._settings = settings
        self._check = check
        self._turns = turns
        self._changed = Condition()
        self._edits = 0  # since the last reading
        self._closed = False
        self._thread = Thread(target=self._run, name="lifelong monitor")
        self._thread.start()

    def count(self, edits: int) -> None:
        """So many edits were recorded."""
        with self._changed:
            self._edits += edits
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, after the batch that is being asked; twice is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not current_thread():  # `on_alert` may close the model
            self._thread.join()

    def _run(self) -> None:
        while (fresh := self._wait()) is not None:
            budget = Budget(
                self._settings.budget_seconds, self._turns.give_way, self._over, _SMALL_BATCH
            )
            try:
                self._check(self._settings.sample, fresh, budget)
            except Exception:  # noqa: BLE001  whatever it is, the chats go on and so does the watch
                _log.exception("The edits could not be checked.")

    def _wait(self) -> int | None:
        """The number of new edits once a reading is due; None when there will be none."""
        minutes, every = self._settings.every_minutes, self._settings.every_edits
        due = monotonic() + (inf if minutes is None else 60 * minutes)
        with self._changed:
            while not self._over():
                if self._edits >= (every or inf) or monotonic() >= due:
                    fresh, self._edits = self._edits, 0
                    return fresh
                self._changed.wait(min(_TICK, max(0.0, due - monotonic())))
        return None

    def _over(self) -> bool:
        return self._closed or not main_thread().is_alive()


def _unheard(alarms: Sequence[Alarm], earlier: Sequence[Reading]) -> list[Alarm]:
    """Those that the reading before did not raise."""
    known = {(a.kind, a.suspects[:1]) for a in alarms_of(earlier[-1])} if earlier else set()
    return [alarm for alarm in alarms if (alarm.kind, alarm.suspects[:1]) not in known]
