"""Reading: what the rows say at an epoch (None: now), as records.

Every edit's state is its last event up to then, found by one index seek; nothing is stored twice.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from statistics import mode
from threading import Event as Signal

import numpy as np
from sqlite_utils import Database

from store.errors import DamagedDatabase, StoreLocked
from store.file import File
from store.patches import Delta, Extension, Hint, Hook, Made, Patch, from_bytes
from store.records import Audience, Edit, Event, Reach, Reading, Status, canonical
from store.rows import are_unit

NOW = 2**63 - 1  # the largest seq SQLite can hold
_POLL_SECONDS = 0.05
_ERASED = '{"prompt": "", "target": ""}'
STATE = (
    "edit JOIN event ON event.edit = edit.id AND event.seq ="
    " (SELECT max(seq) FROM event AS past WHERE past.edit = edit.id AND past.seq <= :at)"
)
_EDITS = f"""
    SELECT content.body, id, epoch, kind,
        iif(reach = 'author', user_id, NULL) AS user_id,
        iif(reach = 'everyone', NULL, tenant) AS tenant
    FROM {STATE} LEFT JOIN content ON content.edit = edit.id
"""
_LISTED = "edit.id IN (SELECT value FROM json_each(:ids))"


@dataclass(frozen=True, slots=True)
class StoredPatch:
    """A patch, the ids of its edits in the patch's own order, and which of them are live.

    `positions` are the places of `edits` in the patch: an edit may have moved to another one.
    """

    id: int
    patch: Patch
    edits: tuple[int, ...]
    live: frozenset[int]
    positions: tuple[int, ...]

    @property
    def live_positions(self) -> tuple[int, ...]:
        """The places of the live edits in the patch."""
        placed = zip(self.edits, self.positions, strict=True)
        return tuple(position for id, position in placed if id in self.live)


def edits(
    db: Database,
    at: int | None,
    *,
    status: Status | None = None,
    audience: Audience | None = None,
    ids: Iterable[int] | None = None,
) -> list[Edit]:
    """By id: those with this status, which this audience sees, of these ids."""
    sql, wanted = _EDITS, []
    if ids is not None:
        wanted.append(_LISTED)
    if status is not None:
        wanted.append("kind = :status")
    if wanted:
        sql += f" WHERE {' AND '.join(wanted)}"
    if audience is not None:
        sql = (
            f"SELECT * FROM ({sql}) WHERE (user_id IS NULL OR user_id = :user_id)"
            " AND (tenant IS NULL OR tenant = :tenant)"
        )
    asked = audience or Audience()
    parameters = {
        "at": _at(at),
        "ids": _json(ids or ()),
        "status": status,
        "user_id": asked.user_id,
        "tenant": asked.tenant,
    }
    return [_edit(*row) for row in db.execute(f"{sql} ORDER BY id", parameters)]


def newest(db: Database, limit: int, *, before: int | None, status: Status | None) -> list[Edit]:
    """At most `limit` as they are now, from below id `before`, the highest id first."""
    sql = f"{_EDITS} WHERE edit.id < :before"
    if status is not None:
        sql += " AND kind = :status"
    parameters = {"at": NOW, "before": _at(before), "status": status, "limit": limit}
    return [_edit(*row) for row in db.execute(f"{sql} ORDER BY id DESC LIMIT :limit", parameters)]


def ids(db: Database, at: int | None, *statuses: Status) -> list[int]:
    """The ids of the edits with one of these statuses, in order."""
    rows = db.execute(
        f"SELECT edit.id FROM {STATE} WHERE kind IN (SELECT value FROM json_each(:statuses))"
        " ORDER BY edit.id",
        {"at": _at(at), "statuses": canonical(statuses)},
    )
    return [id for (id,) in rows]


def written(db: Database, at: int | None) -> list[int]:
    """The ids of the live edits of which the patch changes the model for every text, in order."""
    return _patched(db, at, Delta.kind, Extension.kind)


def hooked(db: Database, at: int | None) -> list[int]:
    """The ids of the live edits that act inside the model in their scope, in order."""
    return _patched(db, at, Hook.kind)


def _patched(db: Database, at: int | None, *kinds: str) -> list[int]:
    rows = db.execute(
        f"SELECT edit.id FROM patch CROSS JOIN {STATE} WHERE patch.id = event.patch"
        " AND patch.kind IN (SELECT value FROM json_each(:kinds)) AND event.kind = 'live'"
        " ORDER BY edit.id",
        {"at": _at(at), "kinds": canonical(kinds)},
    )
    return [id for (id,) in rows]


def made(db: Database, at: int | None, ids: Iterable[int]) -> dict[int, Made]:
    """What patches have for those of `ids` that are live: see `Journal.made`."""
    rows = db.execute(
        f"SELECT patch, edit.id, position FROM {STATE}"
        f" WHERE kind = 'live' AND {_LISTED} ORDER BY patch",
        {"at": _at(at), "ids": _json(ids)},
    ).fetchall()
    found: dict[int, Made] = {id: "" for _, id, _ in rows}
    patched = (row for row in rows if row[0] is not None)
    for number, members in groupby(patched, key=lambda row: row[0]):
        patch = _in_scope(db, number)
        for _, id, position in members:
            if isinstance(patch, Hook):
                found[id] = patch.of([position])
            else:
                found[id] = patch.texts[position] if patch else None
    return found


def patches(db: Database, at: int | None, ids: Iterable[int] | None) -> list[StoredPatch]:
    """Those with a live edit (one of `ids`), in the order they were recorded."""
    which = "" if ids is None else f"AND {_LISTED}"
    chosen = f"SELECT patch FROM {STATE} WHERE kind = 'live' {which}"
    return _stored(db, chosen, {"at": _at(at), "ids": _json(ids or ())})


def lapsed(db: Database) -> list[StoredPatch]:
    """Deltas none of whose edits is live, though some may be again, in the order recorded."""
    chosen = (
        f"SELECT event.patch FROM patch JOIN payload ON payload.patch = patch.id CROSS JOIN {STATE}"
        f" WHERE patch.id = event.patch AND patch.kind = '{Delta.kind}'"
        " GROUP BY event.patch HAVING NOT max(event.kind = 'live')"
    )
    return _stored(db, chosen, {"at": _at(None)})


def _stored(db: Database, chosen: str, given: dict[str, object]) -> list[StoredPatch]:
    members = db.execute(
        f"SELECT patch, edit.id, kind, position FROM {STATE} WHERE patch IN ({chosen})"
        " ORDER BY patch, position",
        given,
    ).fetchall()
    found = []
    for patch, rows in groupby(members, key=lambda row: row[0]):
        _, edits, kinds, positions = zip(*rows, strict=True)
        live = frozenset(e for e, kind in zip(edits, kinds, strict=True) if kind == "live")
        (blob,) = db.execute("SELECT bytes FROM payload WHERE patch = ?", (patch,)).fetchone()
        found.append(StoredPatch(patch, from_bytes(blob), edits, live, positions))
    return found


def _in_scope(db: Database, number: int) -> Hint | Hook | None:
    """A patch that acts in the scope of its edits; None where it changes the model for all."""
    kind, blob = db.execute(
        "SELECT kind, bytes FROM patch JOIN payload ON patch = id WHERE id = ?", (number,)
    ).fetchone()
    if kind not in (Hint.kind, Hook.kind):
        return None
    patch = from_bytes(blob)
    assert isinstance(patch, Hint | Hook)
    return patch


def vectors(
    db: Database, at: int | None, among: Iterable[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n,) int64 and vectors (n, d) float32, by id: of the live edits, or `among` these.

    DamagedDatabase names one that is no unit vector, or as long as no other.
    """
    among = ids(db, at, "live") if among is None else among
    found, sizes, matrix = list[int](), list[int](), bytearray()
    for id, vector in db.execute(
        "SELECT edit, CAST(vector AS BLOB) FROM content WHERE vector IS NOT NULL"
        " AND edit IN (SELECT value FROM json_each(?)) ORDER BY edit",
        (_json(among),),
    ):
        found.append(id)
        sizes.append(len(vector))
        matrix += vector
    size = mode(sizes) if sizes else 0
    _whole(id for id, own in zip(found, sizes, strict=True) if own != size or own % 4)
    rows = np.frombuffer(matrix, "<f4").reshape(len(found), size // 4)
    known = np.array(found, np.int64)
    _whole(known[~are_unit(rows)].tolist())
    return known, rows


def history(db: Database, id: int | None, since: int) -> list[Event]:
    """The events after epoch `since`, of one edit or of all."""
    rows = db.execute(
        "SELECT seq, kind, edit, time, cause, body, reach FROM event"
        f" WHERE seq > :since {'' if id is None else 'AND edit = :id'} ORDER BY seq",
        {"since": since, "id": id},
    )
    return [_event(*row) for row in rows]


def follow(file: File, since: int, stop: Signal) -> Iterator[list[Event]]:
    """The events after `since`, one list whenever another connection has committed some."""
    seen = None
    while not stop.is_set():
        events: list[Event] = []
        with suppress(StoreLocked):  # by a long commit: look again
            version = file.data_version()
            if version != seen:
                with file.snapshot() as db:
                    events = history(db, None, since)
                seen = version
        if events:
            since = events[-1].seq
            yield events
        stop.wait(_POLL_SECONDS)


def readings(db: Database, since: int) -> list[Reading]:
    """The readings noted at epoch `since` or later."""
    rows = db.execute(
        "SELECT body, id, epoch, time FROM reading WHERE epoch >= ? ORDER BY id", (since,)
    )
    return [Reading(json.loads(body), *stamp) for body, *stamp in rows]


def overdue(db: Database, now: str) -> list[int]:
    """The ids of the edits that stand or wait although their `valid_until` is past."""
    rows = db.execute(
        f"SELECT edit.id FROM content CROSS JOIN {STATE} WHERE content.edit = edit.id"
        " AND valid_until <= :now AND kind IN ('live', 'superseded', 'pending') ORDER BY edit.id",
        {"at": NOW, "now": now},
    )
    return [id for (id,) in rows]


def rose(db: Database, ids: Iterable[int]) -> dict[int, int]:
    """When each of `ids` last went live by itself, not because another fell; else began."""
    rows = db.execute(
        "SELECT edit, coalesce(max(iif(kind = 'live' AND cause IS NULL, seq, NULL)), min(seq))"
        " FROM event WHERE edit IN (SELECT value FROM json_each(?)) GROUP BY edit",
        (_json(ids),),
    )
    return dict(rows.fetchall())


def authored(db: Database, user_id: str | None, tenant: str | None) -> list[int]:
    """The ids of what this user of this tenant (None: any of its users) said, less the erased."""
    who = "" if user_id is None else "AND user_id = :user_id"
    rows = db.execute(
        f"SELECT edit FROM content WHERE tenant IS :tenant {who} ORDER BY edit",
        {"user_id": user_id, "tenant": tenant},
    )
    return [id for (id,) in rows]


def counts(db: Database) -> dict[Status, int]:
    """How many edits have each status."""
    rows = db.execute(
        f"SELECT kind, count(*) FROM {STATE} GROUP BY kind ORDER BY kind", {"at": NOW}
    )
    return dict(rows.fetchall())


def _edit(
    body: str | None, id: int, epoch: int, kind: Status, user_id: str | None, tenant: str | None
) -> Edit:
    given = {"id": id, "epoch": epoch, "status": kind, "user_id": user_id, "tenant": tenant}
    try:
        return Edit.from_json(body or _ERASED, **given)
    except (TypeError, ValueError) as exc:
        raise DamagedDatabase(f"The text of edit {id} cannot be read ({exc})") from exc


def _event(
    seq: int, kind: Status, edit: int, time: str, cause: int | None, body: str, reach: Reach
) -> Event:
    try:
        return Event(seq, kind, edit, time, cause, json.loads(body), reach)
    except ValueError as exc:
        raise DamagedDatabase(f"Event {seq} of edit {edit} cannot be read ({exc})") from exc


def _whole(damaged: Iterable[int]) -> None:
    for id in damaged:
        raise DamagedDatabase(f"The vector of edit {id} is not what was written")


def _at(at: int | None) -> int:
    return NOW if at is None else at


def _json(ids: Iterable[int]) -> str:
    return canonical([int(id) for id in ids])
