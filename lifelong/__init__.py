"""lifelong: language models that take corrections, keep them, and can undo them to the last bit."""

from lifelong.errors import (
    AlreadyTaught,
    BadEdit,
    EditRefused,
    LifelongError,
    ModelError,
    NoChatTemplate,
    TextTooLong,
)
from lifelong.lm import LM
from lifelong.methods import METHODS, Method
from lifelong.router import Hit, Route
from lifelong.runtime import EditableModel
from lifelong.view import Answer, Stream, View

__all__ = [
    "LM",
    "METHODS",
    "AlreadyTaught",
    "Answer",
    "BadEdit",
    "EditRefused",
    "EditableModel",
    "Hit",
    "LifelongError",
    "Method",
    "ModelError",
    "NoChatTemplate",
    "Route",
    "Stream",
    "TextTooLong",
    "View",
]
