"""What an operator decides about a server; every setting has a default that is safe."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lifelong.errors import BadSetting
from lifelong.serve.keys import Role
from lifelong.serve.moderation import suspicious

Heard = Literal["off", "confirm", "apply"]
Moderate = Callable[[str, str], str | None]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Settings:
    """Where the server listens, whom it lets in, how much, and how corrections spread.

    `moderate(prompt, target)` says why a correction shall wait for a review, or None. `heard` is
    what becomes of a chat message that corrects. `quorum` is the number of users who must say the
    same before their tenant gets it; `trusted` the role from which one suffices (None: no role).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    model_id: str = "lifelong"
    keys: Path = Path("lifelong.keys.json")
    hosts: frozenset[str] = LOOPBACK
    origins: frozenset[str] = frozenset()
    rows: int = 16  # answered at once
    max_tokens: int = 256  # of a reply, where the caller names no limit
    body_bytes: int = 1 << 20
    requests_a_minute: int = 600  # of one user
    corrections_a_minute: int = 60
    corrections_a_day: int = 2_000
    users_a_key: int = 50  # so many times these limits is what all users of one key have together
    heard: Heard = "confirm"
    quorum: int = 3
    trusted: Role | None = None
    moderate: Moderate = field(default=suspicious)
    canary_edits: int = 8  # old edits that are asked again before and after a promotion
    drain_seconds: float = 30.0  # for which a shutdown waits for replies that are being made

    def __post_init__(self) -> None:
        """Raises BadSetting."""
        numbers = (self.rows, self.max_tokens, self.body_bytes, self.requests_a_minute,
                   self.corrections_a_minute, self.corrections_a_day, self.users_a_key)  # fmt: skip
        if min(numbers) < 1 or self.quorum < 2:
            raise BadSetting("A limit is below its least.", "Give positive ones, a quorum from 2.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK
