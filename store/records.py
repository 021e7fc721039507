"""The frozen records that pass between the store and its users."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"
Status = Literal[
    "proposed", "pending", "live", "superseded", "retired", "quarantined", "rejected", "expired"
]


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN (ValueError)."""
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"),
        default=_plain,
    )  # fmt: skip


def _plain(value: object) -> object:
    if isinstance(value, Probe):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


@dataclass(frozen=True, slots=True)
class Probe:
    """A question whose answer must follow from an edit."""

    prompt: str
    target: str


@dataclass(frozen=True, slots=True)
class Edit:
    """One correction: asked `prompt`, the model shall say `target`.

    `id`, `epoch` (the sequence number of the event that recorded it) and `status` are given by
    the journal. An erased edit keeps those three; its texts are empty.
    """

    prompt: str
    target: str
    subject: str | None = None
    relation: str | None = None
    old: str | None = None
    paraphrases: tuple[str, ...] = ()
    locality: tuple[str, ...] = ()
    portability: tuple[Probe, ...] = ()
    method: str = "serac"
    provenance: Mapping[str, JSON] = field(default_factory=dict)
    user_id: str | None = None
    tenant: str | None = None
    id: int = 0
    epoch: int = 0
    status: Status = "proposed"

    def to_json(self) -> str:
        """The canonical text of what was said, without what the journal adds."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _ASSIGNED}
        return canonical({k: v for k, v in said.items() if v not in (None, (), {})})

    @classmethod
    def from_json(cls, text: str, **assigned: Any) -> "Edit":
        """The edit that `to_json` wrote, with the `id`, `epoch` and `status` given."""
        said = json.loads(text)
        for name in ("paraphrases", "locality"):
            said[name] = tuple(said.get(name, ()))
        said["portability"] = tuple(Probe(**probe) for probe in said.get("portability", ()))
        return cls(**said, **assigned)


_ASSIGNED = frozenset({"id", "epoch", "status"})


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to one edit. Its `kind` is the edit's status from `seq` on."""

    seq: int
    kind: Status
    edit_id: int
    time: str  # UTC, ISO 8601
    cause: int | None = None  # the edit because of which this happened
    body: Mapping[str, JSON] = field(default_factory=dict)  # reason, actor, ...


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement by the monitor; `id`, `epoch` and `time` (UTC) are given by the journal."""

    body: Mapping[str, JSON]
    id: int = 0
    epoch: int = 0
    time: str = ""
