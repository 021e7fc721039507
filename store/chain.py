"""The event log: one row a step, each hashed over the row before it.

A row's hash covers the previous hash, the row, the hash of its edit and the hash of its patch, so
no row can change, vanish or move without breaking every later one. It proves damage, not malice:
whoever may rewrite the whole file can also rewrite the chain.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlite_utils import Database

from store.errors import DamagedDatabase
from store.records import JSON, Event, Status, canonical

GENESIS = hashlib.sha256(b"lifelong journal").hexdigest()
SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class State:
    """All the log says about one edit at some time: the last event's row."""

    edit: int
    kind: Status
    patch: int | None = None
    position: int | None = None
    audience: str = "author"
    cause: int | None = None


def now() -> str:
    """The time of day, UTC, ISO 8601, microseconds. It orders nothing: `seq` does."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def salt() -> bytes:
    """Random bytes hashed with a text, so that an erased one cannot be guessed from its hash."""
    return secrets.token_bytes(SALT_BYTES)


def digest(*parts: bytes) -> str:
    """SHA-256 over the parts and their lengths."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def last_seq(db: Database) -> int:
    """The epoch: 0 before the first event."""
    seq: int = db.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0]
    return seq


def append(db: Database, state: State, body: Mapping[str, JSON] | None = None) -> Event:
    """Write the next event: from now on `state` holds for its edit."""
    seq = last_seq(db) + 1
    event = Event(seq, state.kind, state.edit, now(), state.cause, dict(body or {}))
    previous = _one(db, "SELECT sha256 FROM event WHERE seq = ?", seq - 1) or GENESIS
    row = {
        "seq": seq,
        "edit": state.edit,
        "kind": state.kind,
        "patch": state.patch,
        "position": state.position,
        "audience": state.audience,
        "cause": state.cause,
        "time": event.time,
        "body": canonical(event.body),
    }
    edit_hash = _one(db, "SELECT sha256 FROM edit WHERE id = ?", state.edit)
    patch_hash = _one(db, "SELECT sha256 FROM patch WHERE id = ?", state.patch)
    sha256 = _link(previous, row, edit_hash, patch_hash)
    db.execute(
        "INSERT INTO event (seq, edit, kind, patch, position, audience, cause, time, body, sha256)"
        " VALUES (:seq, :edit, :kind, :patch, :position, :audience, :cause, :time, :body, :sha256)",
        {**row, "sha256": sha256},
    )
    return event


def verify(db: Database) -> int:
    """Walk the chain and re-hash every text, vector and patch; the number of events.

    DamagedDatabase names the first broken row, its time, and the last epoch that holds.
    """
    _check_pages(db)
    previous, seq = GENESIS, 0
    for row in db.query(
        "SELECT event.*, edit.sha256 AS edit_hash, patch.sha256 AS patch_hash FROM event"
        " LEFT JOIN edit ON edit.id = event.edit LEFT JOIN patch ON patch.id = event.patch"
        " ORDER BY seq"
    ):
        edit_hash, patch_hash = row.pop("edit_hash"), row.pop("patch_hash")
        stored = row.pop("sha256")
        if row["seq"] != seq + 1 or _link(previous, row, edit_hash, patch_hash) != stored:
            raise DamagedDatabase(
                f"The hash chain breaks at event {seq + 1} (edit {row['edit']}, {row['time']});"
                f" everything up to epoch {seq} holds"
            )
        previous, seq = stored, row["seq"]
    _check_blobs(db)
    return seq


def _check_pages(db: Database) -> None:
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise DamagedDatabase(f"SQLite's integrity check found: {found}")


def _check_blobs(db: Database) -> None:
    """Every side row must match the hash that the append-only row holds."""
    for edit, salt_, body, vector, sha256 in db.execute(
        "SELECT id, salt, body, coalesce(vector, x''), sha256"
        " FROM edit LEFT JOIN content ON edit = id ORDER BY id"
    ):
        if salt_ is None or digest(salt_, body.encode(), vector) != sha256:
            raise DamagedDatabase(f"The text or vector of edit {edit} does not match its hash")
    for patch, salt_, blob, sha256 in db.execute(
        "SELECT id, salt, bytes, sha256 FROM patch LEFT JOIN payload ON patch = id ORDER BY id"
    ):
        if salt_ is None or digest(salt_, blob) != sha256:
            raise DamagedDatabase(f"The bytes of patch {patch} do not match their hash")


def _link(previous: str, row: Mapping[str, Any], *hashes: str | None) -> str:
    return digest(previous.encode(), canonical([row, *hashes]).encode())


def _one(db: Database, sql: str, key: int | None) -> str | None:
    found = db.execute(sql, (key,)).fetchone()
    return found[0] if found else None
