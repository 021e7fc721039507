"""The frozen records that pass between the store and its users."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"
Status = Literal[
    "proposed", "pending", "live", "superseded", "retired", "quarantined", "rejected", "expired"
]
Reach = Literal["author", "tenant", "everyone"]


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN (ValueError)."""
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"),
        default=_plain,
    )  # fmt: skip


def utc(time: datetime) -> str:
    """ISO 8601 in UTC with microseconds, so that times compare as texts. ValueError when naive."""
    if time.tzinfo is None:
        raise ValueError(f"{time} has no UTC offset")
    return time.astimezone(UTC).isoformat(timespec="microseconds")


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
class Audience:
    """For whom an edit is live, or who asks: one user, a tenant, everyone (None, None)."""

    user_id: str | None = None
    tenant: str | None = None

    def covers(self, other: "Audience") -> bool:
        """Whether what is live for this audience is live for (every request of) `other`."""
        return self.user_id in (None, other.user_id) and self.tenant in (None, other.tenant)

    @property
    def levels(self) -> tuple["Audience", ...]:
        """The audiences that cover this one, the narrowest first."""
        tenants = dict.fromkeys((self.tenant, None))
        return tuple(
            Audience(user_id, tenant)
            for user_id in dict.fromkeys((self.user_id, None))
            for tenant in tenants
        )


@dataclass(frozen=True, slots=True)
class Edit:
    """One correction: asked `prompt`, the model shall say `target`.

    A proposed edit with an empty target is a complaint: `old` is wrong, nobody said what is right.
    `key` is the caller's idempotency key, `valid_until` a time (ISO 8601 with offset). `id`,
    `epoch` (the sequence number of the event that recorded it) and `status` are given by
    the journal, which also widens `user_id` and `tenant` to whom the edit was promoted. An erased
    edit keeps what the journal gave it; its texts are empty.
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
    key: str | None = None
    valid_until: str | None = None
    id: int = 0
    epoch: int = 0
    status: Status = "proposed"

    def __post_init__(self) -> None:
        if self.valid_until is not None:
            object.__setattr__(self, "valid_until", utc(datetime.fromisoformat(self.valid_until)))

    @property
    def audience(self) -> Audience:
        """For whom the edit is live; `edit.audience.covers(Audience(user, tenant))` asks so."""
        return Audience(self.user_id, self.tenant)

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
        return cls(**(said | assigned))


_ASSIGNED = frozenset({"id", "epoch", "status"})


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to one edit. Its `kind` is the edit's status from `seq` on.

    So is its `reach`: the author's own audience, his tenant, or everyone.
    """

    seq: int
    kind: Status
    edit_id: int
    time: str  # UTC, ISO 8601
    cause: int | None = None  # the edit because of which this happened
    body: Mapping[str, JSON] = field(default_factory=dict)  # reason, actor, ...
    reach: Reach = "author"


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement by the monitor; `id`, `epoch` and `time` (UTC) are given by the journal."""

    body: Mapping[str, JSON]
    id: int = 0
    epoch: int = 0
    time: str = ""
