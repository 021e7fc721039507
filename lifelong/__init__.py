"""lifelong: language models that take corrections, keep them, and can undo them to the last bit.

What stands here is imported when it is first used: torch and transformers take seconds, and much
of the command line needs neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lifelong.alarms import Alarm, Thresholds
    from lifelong.choose import ByModel
    from lifelong.compaction import Consolidating
    from lifelong.conflicts import Conflict
    from lifelong.consolidate import Consolidation, Gate, Policy
    from lifelong.errors import (
        AlreadyTaught,
        BadEdit,
        Conflicting,
        EditRefused,
        LifelongError,
        ModelError,
        NoChatTemplate,
        TextTooLong,
    )
    from lifelong.lm import LM
    from lifelong.methods import METHODS, Method
    from lifelong.ripple import Consequence, Ripple
    from lifelong.router import Hit, Route
    from lifelong.runtime import EditableModel
    from lifelong.view import Answer, Stream, View
    from lifelong.watch import Monitoring

__all__ = [
    "LM",
    "METHODS",
    "Alarm",
    "AlreadyTaught",
    "Answer",
    "BadEdit",
    "ByModel",
    "Conflict",
    "Conflicting",
    "Consequence",
    "Consolidating",
    "Consolidation",
    "EditRefused",
    "EditableModel",
    "Gate",
    "Hit",
    "LifelongError",
    "Method",
    "ModelError",
    "Monitoring",
    "NoChatTemplate",
    "Policy",
    "Ripple",
    "Route",
    "Stream",
    "TextTooLong",
    "Thresholds",
    "View",
]

# of these names, light to heavy
_HOMES = (
    *("errors", "lm", "choose", "methods", "router", "conflicts", "ripple", "view", "consolidate"),
    *("alarms", "watch", "compaction", "runtime"),
)


def __getattr__(name: str) -> object:
    if name in __all__:
        homes = (import_module(f"lifelong.{home}") for home in _HOMES)
        return next(getattr(home, name) for home in homes if hasattr(home, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
