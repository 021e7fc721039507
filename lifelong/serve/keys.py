"""Who calls, and what he may do: API keys of one role each, kept as hashes in a file of their own.

    chat < correct < review < admin        each may what those before it may

A key belongs to a tenant, or to the operator (None), who keeps them all. Until the first key is
made whoever reaches the loopback interface, not through a proxy, is a local admin.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock

from lifelong.errors import BadSetting
from store import Audience, Edit

Role = Literal["chat", "correct", "review", "admin"]

_PREFIX = "ll-"
_RANK = {role: rank for rank, role in enumerate(get_args(Role))}


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret. `user` is whose it is, where it is one person's."""

    id: str
    sha256: str
    role: Role
    tenant: str | None = None
    user: str | None = None
    expires: str | None = None  # ISO 8601 with offset

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and datetime.fromisoformat(self.expires) <= datetime.now(
            UTC
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: a user, his tenant, and what the key allows."""

    user: str
    tenant: str | None = None
    role: Role = "admin"
    key: str = "local"

    def may(self, role: Role) -> bool:
        """Whether he may do what `role` may."""
        return _RANK[self.role] >= _RANK[role]

    @property
    def asker(self) -> dict[str, Any]:
        """As the runtime's verbs take it."""
        return {"user_id": self.user, "tenant": self.tenant}

    @property
    def audience(self) -> Audience:
        """The one whom his own corrections are for."""
        return Audience(self.user, self.tenant)

    def wrote(self, edit: Edit) -> bool:
        """Whether it is his own, and nobody else's by now."""
        return edit.audience == self.audience

    def keeps(self, edit: Edit) -> bool:
        """Whether he decides what becomes of it."""
        if self.may("review") and self.tenant in (None, edit.tenant):
            return True
        return self.may("correct") and self.wrote(edit)

    def sees(self, edit: Edit) -> bool:
        """Whether he may know of it."""
        reached = edit.status == "live" and edit.audience.covers(self.audience)
        return reached or self.keeps(edit)


class Keys:
    """The keys in the file at `path`; what another process writes there counts at once."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._read: tuple[tuple[int, int], list[Key]] = ((0, 0), [])

    @property
    def made(self) -> bool:
        """Whether there ever was one: with the last key revoked, nobody gets in."""
        return self._path.exists()

    def all(self) -> list[Key]:
        """Every key, without secrets. Raises BadSetting where the file is none of ours."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return []
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._read[0]:
            self._read = (stamp, self._load())
        return self._read[1]

    def make(
        self,
        role: Role,
        *,
        tenant: str | None = None,
        user: str | None = None,
        expires: str | None = None,
    ) -> tuple[Key, str]:
        """A new key and its secret, which is told now and never again. Raises BadSetting."""
        if role not in _RANK:
            raise BadSetting(f"There is no role {role!r}.", f"Take one of: {', '.join(_RANK)}.")
        try:
            naive = expires is not None and datetime.fromisoformat(expires).tzinfo is None
        except ValueError:
            naive = True
        if naive:
            raise BadSetting(f"{expires!r} is no time.", "Give one like 2027-01-31T12:00:00+00:00.")
        secret = _PREFIX + secrets.token_urlsafe(32)
        key = Key(secrets.token_hex(4), _hash(secret), role, tenant, user, expires)
        self._change(lambda keys: [*keys, key])
        return key, secret

    def revoke(self, id: str) -> None:
        """The key is good no longer. Raises BadSetting where there is none."""
        if not any(key.id == id for key in self.all()):
            raise BadSetting(f"There is no key {id!r}.", "`lifelong keys list` shows them.")
        self._change(lambda keys: [key for key in keys if key.id != id])

    def find(self, secret: str) -> Key | None:
        """The key that this is the secret of, if it is good."""
        given = _hash(secret)
        found = [key for key in self.all() if compare_digest(key.sha256, given)]
        return found[0] if found and not found[0].expired else None

    def _change(self, change: Callable[[list[Key]], list[Key]]) -> None:
        with FileLock(f"{self._path}.lock"):
            keys = change(self._load() if self._path.exists() else [])
            fresh = self._path.with_name(f"{self._path.name}.new")
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
                json.dump({"keys": [asdict(key) for key in keys]}, out, indent=1)
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(self._path)

    def _load(self) -> list[Key]:
        try:
            return [Key(**row) for row in json.loads(self._path.read_text())["keys"]]
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise BadSetting(
                f"{self._path} holds no keys ({exc}).", "Make it anew with `lifelong keys make`."
            ) from exc


def caller_of(keys: Keys, secret: str | None, user: str | None, *, trusting: bool) -> Caller | None:
    """Who sends this secret and says he is `user`; None where he may not in.

    A key's own user stays who he is. Where no key was ever made and the caller can only be on this
    machine (`trusting`), there is nothing to prove.
    """
    if trusting and not keys.made:
        return Caller(user or "local")
    key = keys.find(secret) if secret else None
    if key is None:
        return None
    return Caller(key.user or user or f"key:{key.id}", key.tenant, key.role, key.id)


def without_secret(key: Key) -> Key:
    """What may be shown of a key."""
    return replace(key, sha256="")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
