"""The event log: one row a step, each hashed over the row before it.

A row's hash covers the previous hash, the row, the hash of its edit and the hash of its patch, so
no row can change, vanish or move without breaking every later one. It proves damage, not malice:
whoever may rewrite the whole file can also rewrite the chain.
"""

import hashlib
import json
import secrets
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlite_utils import Database

from store.errors import DamagedDatabase
from store.records import JSON, Event, Reach, Status, canonical, utc

GENESIS = hashlib.sha256(b"lifelong journal").hexdigest()
SALT_BYTES = 16
_ROWS = (
    "SELECT event.*, edit.sha256 AS edit_hash, patch.sha256 AS patch_hash FROM event"
    " LEFT JOIN edit ON edit.id = event.edit LEFT JOIN patch ON patch.id = event.patch"
)


@dataclass(frozen=True, slots=True)
class State:
    """All the log says about one edit at some time: the last event's row."""

    edit: int
    kind: Status
    patch: int | None = None
    position: int | None = None
    reach: Reach = "author"
    cause: int | None = None


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


def hash_at(db: Database, seq: int) -> str:
    """The hash of the row `seq`, which covers every row up to it; ValueError beyond the last."""
    if seq == 0:
        return GENESIS
    found = _one(db, "SELECT sha256 FROM event WHERE seq = ?", seq)
    if found is None:
        raise ValueError(f"there is no epoch {seq}")
    return found


def append(db: Database, state: State, body: Mapping[str, JSON] | None = None) -> Event:
    """Write the next event: from now on `state` holds for its edit."""
    seq = last_seq(db) + 1
    event = Event(
        seq,
        state.kind,
        state.edit,
        utc(datetime.now(UTC)),
        state.cause,
        dict(body or {}),
        state.reach,
    )
    previous = hash_at(db, seq - 1)
    row = {
        "seq": seq,
        "edit": state.edit,
        "kind": state.kind,
        "patch": state.patch,
        "position": state.position,
        "reach": state.reach,
        "cause": state.cause,
        "time": event.time,
        "body": canonical(event.body),
    }
    edit_hash = _one(db, "SELECT sha256 FROM edit WHERE id = ?", state.edit)
    patch_hash = _one(db, "SELECT sha256 FROM patch WHERE id = ?", state.patch)
    sha256 = _link(previous, row, edit_hash, patch_hash)
    db.execute(
        "INSERT INTO event (seq, edit, kind, patch, position, reach, cause, time, body, sha256)"
        " VALUES (:seq, :edit, :kind, :patch, :position, :reach, :cause, :time, :body, :sha256)",
        {**row, "sha256": sha256},
    )
    return event


def verify(db: Database) -> int:
    """Walk the chain, re-hash every text, vector and patch, check every page; the epoch.

    DamagedDatabase names the first broken row, its time, and the last epoch that holds.
    """
    with _readable(db):
        seq, erased, renewed = _check_chain(db)
        _check_contents(db, erased)
        _check_payloads(db, renewed)
        _check_pages(db)
    return seq


def damaged(db: Database, since: int, until: int) -> list[int]:
    """The edits of the events after `since` up to `until` that are not what was written, by id.

    `verify` in instalments: the row against its predecessor's hash; text, vector and patch bytes.
    """
    previous, found = hash_at(db, since), set[int]()
    with _readable(db):
        for row in db.query(f"{_ROWS} WHERE seq > ? AND seq <= ? ORDER BY seq", (since, until)):
            hashes = row.pop("edit_hash"), row.pop("patch_hash")
            stored = row.pop("sha256")
            linked = _link(previous, row, *hashes) == stored
            if not (linked and _content_holds(db, row["edit"]) and _patch_holds(db, row["patch"])):
                found.add(row["edit"])
            previous = stored
    return sorted(found)


def _content_holds(db: Database, edit: int) -> bool:
    found = db.execute(
        "SELECT salt, body, coalesce(vector, x''), sha256"
        " FROM edit LEFT JOIN content ON edit = id WHERE id = ?",
        (edit,),
    ).fetchone()
    if found and found[0] is not None:
        salt_, body, vector, sha256 = found
        return bool(digest(salt_, body.encode(), vector) == sha256)
    erased = db.execute("SELECT 1 FROM event WHERE edit = ? AND body ->> '$.erased'", (edit,))
    return erased.fetchone() is not None


def _patch_holds(db: Database, patch: int | None) -> bool:
    found = db.execute(
        "SELECT salt, bytes, sha256 FROM patch LEFT JOIN payload ON patch = id WHERE id = ?",
        (patch,),
    ).fetchone()
    if patch is None or (found and found[0] is not None and digest(*found[:2]) == found[2]):
        return True
    renewed = db.execute(  # by the last erasure of one of its texts
        "SELECT json_extract(body, ?) AS hash FROM event WHERE hash IS NOT NULL"
        " ORDER BY seq DESC LIMIT 1",
        (f'$.payloads."{patch}"',),
    ).fetchone()
    return bool(found and found[0] is not None and renewed and digest(*found[:2]) == renewed[0])


@contextmanager
def _readable(db: Database) -> Iterator[None]:
    """Text that damage made unreadable shall fail its hash, not the query."""
    text_factory, db.conn.text_factory = db.conn.text_factory, _decoded
    try:
        yield
    finally:
        db.conn.text_factory = text_factory


def _decoded(text: bytes) -> str:
    return text.decode(errors="replace")


def _check_chain(db: Database) -> tuple[int, set[int], dict[int, str]]:
    """The last epoch, the erased edits, and the hashes that patches got by erasures."""
    previous, seq = GENESIS, 0
    erased, renewed = set[int](), dict[int, str]()
    for row in db.query(f"{_ROWS} ORDER BY seq"):
        hashes = row.pop("edit_hash"), row.pop("patch_hash")
        stored = row.pop("sha256")
        if row["seq"] != seq + 1 or _link(previous, row, *hashes) != stored:
            raise DamagedDatabase(
                f"The hash chain breaks at event {seq + 1} (edit {row['edit']}, {row['time']});"
                f" everything up to epoch {seq} holds"
            )
        previous, seq = stored, row["seq"]
        body = json.loads(row["body"])
        if body.get("erased"):
            erased.add(row["edit"])
            renewed.update({int(patch): sha256 for patch, sha256 in body["payloads"].items()})
    return seq, erased, renewed


def _check_pages(db: Database) -> None:
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise DamagedDatabase(f"SQLite's integrity check found: {found}")


def _check_contents(db: Database, erased: Container[int]) -> None:
    """The texts and vector of every edit that was not erased match the hash in its row."""
    for edit, epoch, salt_, body, vector, sha256 in db.execute(
        "SELECT id, epoch, salt, CAST(body AS BLOB), coalesce(vector, x''), sha256"
        " FROM edit LEFT JOIN content ON edit = id ORDER BY id"
    ):
        if not _is_whole(sha256, salt_, body, vector) and edit not in erased:
            raise DamagedDatabase(
                f"The text or vector of edit {edit}, of epoch {epoch}, does not match its hash"
            )


def _check_payloads(db: Database, renewed: Mapping[int, str]) -> None:
    """The bytes of every patch match the hash in its row, or that of its last erasure."""
    for patch, salt_, blob, sha256 in db.execute(
        "SELECT id, salt, bytes, sha256 FROM patch LEFT JOIN payload ON patch = id ORDER BY id"
    ):
        if not _is_whole(renewed.get(patch, sha256), salt_, blob):
            raise DamagedDatabase(f"The bytes of patch {patch} do not match their hash")


def _is_whole(sha256: str, *parts: Any) -> bool:
    """Do the parts match their hash?  Damage may have changed their very types."""
    return all(isinstance(part, bytes) for part in parts) and digest(*parts) == sha256


def _link(previous: str, row: Mapping[str, Any], *hashes: str | None) -> str:
    return digest(previous.encode(), canonical([row, *hashes]).encode())


def _one(db: Database, sql: str, key: int | None) -> str | None:
    found = db.execute(sql, (key,)).fetchone()
    return found[0] if found else None
