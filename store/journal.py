"""The journal: every edit ever acknowledged, what became of it, and nothing that can be derived.

`record`, `retire`, `restore` and `note` are one synced transaction each; when they return, the
step is on disk. The epoch is the number of the last event; every read can be asked `at` an epoch,
where None means now. Whatever goes wrong is a StoreError, or ValueError for a wrong argument.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from sqlite_utils import Database

from store import chain, life, schema
from store.chain import State
from store.errors import AlreadyRetired, NotRetired, UnknownEdit, WrongBase, WrongEncoder
from store.file import File
from store.patches import Patch, from_bytes
from store.records import Edit, Event, Reading, Status, canonical

_NOW = 2**63 - 1  # the largest seq SQLite can hold
_NOTHING: Mapping[int, Sequence[int]] = {}
_ERASED = '{"prompt": "", "target": ""}'
# SQLite takes the bare columns from the row that has the maximum: each edit's last event
_STATE = "SELECT edit, max(seq), kind, patch, position FROM event WHERE seq <= :at GROUP BY edit"


@dataclass(frozen=True, slots=True)
class StoredPatch:
    """A patch, the ids of its edits in the patch's own order, and which of them are live."""

    id: int
    patch: Patch
    edits: tuple[int, ...]
    live: frozenset[int]


class Journal:
    """The door to one store file. Safe for threads; other processes may read and write too."""

    def __init__(self, file: File) -> None:
        self._file = file

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: str,
        encoder: str,
        model_name: str = "",
        encoder_name: str = "",
    ) -> Self:
        """Open or create the store at `path` (":memory:" for none) for this model and encoder.

        `model` and `encoder` are fingerprints, the names are for people. WrongBase or WrongEncoder
        when the store was made for others.
        """
        made_for = {"model": model, "encoder": encoder}
        names = {"model_name": model_name, "encoder_name": encoder_name}
        file = File(path, create=True, write=True)
        with file.closed_on_error():
            schema.prepare(file, made_for | names)
            journal = cls(file)
            journal._check_meta(made_for | names)
        return journal

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Open an existing store for reading only, whatever model it was made for."""
        file = File(path, create=False, write=False)
        with file.closed_on_error():
            schema.check(file)
        return cls(file)

    @classmethod
    def reopen(cls, path: str | Path) -> Self:
        """Open an existing store, whatever model it was made for: to retire and restore."""
        file = File(path, create=False, write=True)
        with file.closed_on_error():
            schema.prepare(file, {})
        return cls(file)

    def close(self) -> None:
        """Close the file; later calls raise StoreClosed."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def record(
        self,
        edits: Sequence[Edit],
        patch: Patch | None,
        vectors: np.ndarray | None = None,
        *,
        supersedes: Mapping[int, Sequence[int]] = _NOTHING,
        status: Status = "live",
    ) -> list[Edit]:
        """Record `edits` and their `patch` in one transaction; the edits with id, epoch, status.

        `vectors` is (len(edits), d) float32, one row an edit, d the same in the whole store.
        `supersedes` maps a position in `edits` to the ids of the live edits it replaces (NotLive
        when one is no longer live). `status` is live, or pending or proposed for one that waits.
        """
        if status not in ("live", "pending", "proposed"):
            raise ValueError(f"an edit cannot begin as {status}")
        if supersedes and status != "live":
            raise ValueError(f"a {status} edit supersedes nothing before it is live")
        rows = _vector_rows(vectors, len(edits))
        with self._file.transaction() as db:
            _check_dimension(db, rows)
            patch_id = _insert_patch(db, patch)
            recorded = []
            for position, (edit, row) in enumerate(zip(edits, rows, strict=True)):
                over = supersedes.get(position, ())
                epoch = chain.last_seq(db) + len(over) + 1
                recorded.append(_insert_edit(db, edit, row, epoch=epoch, status=status))
                state = State(recorded[-1].id, status, patch_id, position)
                if status == "live":
                    life.rise(db, state, over)
                else:
                    chain.append(db, state)
        return recorded

    def retire(self, id: int, *, kind: Status = "retired", reason: str = "") -> Edit:
        """Undo: the edit stands no longer, as `retired` or `quarantined`.

        What it had superseded is live again or, when this edit was itself superseded, stands
        below the edit that superseded it. Raises UnknownEdit, AlreadyRetired.
        """
        if kind not in ("retired", "quarantined"):
            raise ValueError(f"an edit cannot be retired as {kind}")
        with self._file.transaction() as db:
            state = life.state(db, _possible(id))
            if state.kind not in life.STANDING:
                raise AlreadyRetired(f"Edit {id} is {state.kind}")
            life.fall(db, state, kind, {"reason": reason})
            return self.get(id)

    def restore(self, id: int, *, supersedes: Iterable[int] = (), reason: str = "") -> Edit:
        """Redo: the edit stands again where it stood: live, or superseded by a later one.

        What it had superseded goes below it again, and if it is live so does what took its place
        meanwhile: whatever superseded those, and `supersedes`, live edits that only the caller
        knows to contradict it. Raises UnknownEdit, NotRetired, NotLive.
        """
        with self._file.transaction() as db:
            state = life.state(db, _possible(id))
            if state.kind not in ("retired", "quarantined"):
                raise NotRetired(f"Edit {id} is {state.kind}")
            life.restore(db, state, supersedes, {"reason": reason})
            return self.get(id)

    def note(self, reading: Reading) -> Reading:
        """Keep a reading, stamped with time and present epoch; the epoch does not advance."""
        with self._file.transaction() as db:
            stamp = (_next_id(db, "reading"), chain.last_seq(db), chain.now())
            db.execute(
                "INSERT INTO reading (id, epoch, time, body) VALUES (?, ?, ?, ?)",
                (*stamp, canonical(reading.body)),
            )
        return Reading(reading.body, *stamp)

    @property
    def epoch(self) -> int:
        """The number of the last event; 0 when there is none."""
        with self._file.snapshot() as db:
            return chain.last_seq(db)

    @property
    def meta(self) -> dict[str, str]:
        """What the store was made for: `model`, `encoder` (fingerprints) and their names."""
        return dict(self._file.rows("SELECT key, value FROM meta"))

    def get(self, id: int, at: int | None = None) -> Edit:
        """One edit with its status then; UnknownEdit when it was not recorded yet."""
        found = self._select("state.edit = :id", at, id=_possible(id))
        if not found:
            raise UnknownEdit(f"There is no edit {id}{'' if at is None else f' at epoch {at}'}")
        return found[0]

    def edits(self, status: Status | None = None, at: int | None = None) -> list[Edit]:
        """Every edit ever acknowledged, or those with this status, by id."""
        return self._select(":status IN (kind, '')", at, status=status or "")

    def live(self, at: int | None = None) -> list[Edit]:
        """The live edits, by id."""
        return self.edits("live", at)

    def get_many(self, ids: Iterable[int], at: int | None = None) -> list[Edit]:
        """The edits with these ids that were recorded by then, by id."""
        return self._select("state.edit IN (SELECT value FROM json_each(:ids))", at, ids=_list(ids))

    def patches(self, at: int | None = None, ids: Iterable[int] | None = None) -> list[StoredPatch]:
        """The patches with a live edit (one of `ids`), in the order they were recorded."""
        which = "" if ids is None else "WHERE edit IN (SELECT value FROM json_each(:ids))"
        rows = self._file.rows(
            "SELECT patch, bytes, edit, kind FROM"
            f" (SELECT DISTINCT patch FROM ({_STATE}) {which}) JOIN payload USING (patch)"
            f" JOIN ({_STATE}) USING (patch) ORDER BY patch, position",
            {"at": _at(at), "ids": _list(ids or ())},
        )
        found = []
        for id, members in groupby(rows, key=lambda row: row[0]):
            _, (blob, *_), edits, kinds = zip(*members, strict=True)
            live = frozenset(e for e, kind in zip(edits, kinds, strict=True) if kind == "live")
            if live:
                found.append(StoredPatch(id, from_bytes(blob), edits, live))
        return found

    def vectors(
        self, ids: Iterable[int] | None = None, at: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids (n,) int64 and vectors (n, d) float32, by id: of the live edits, or of `ids`.

        An edit without a vector is left out; without any, the matrix is (0, 0).
        """
        which = "kind = 'live'" if ids is None else "edit IN (SELECT value FROM json_each(:ids))"
        source = f"FROM ({_STATE}) JOIN content USING (edit) WHERE vector IS NOT NULL AND {which}"
        parameters = {"at": _at(at), "ids": canonical([int(id) for id in ids or ()])}
        with self._file.snapshot() as db:
            n, size = db.execute(
                f"SELECT count(*), coalesce(max(length(vector)), 0) {source}", parameters
            ).fetchone()
            found, matrix = np.empty(n, np.int64), np.empty((n, size // 4), np.float32)
            rows = db.execute(f"SELECT edit, vector {source} ORDER BY edit", parameters)
            for i, (edit, vector) in enumerate(rows):
                found[i], matrix[i] = edit, np.frombuffer(vector, "<f4")
        return found, matrix

    def history(self, id: int | None = None, *, since: int = 0) -> list[Event]:
        """The events after epoch `since` in order, of all edits or of one (UnknownEdit)."""
        mine = "" if id is None else "edit = :id AND"
        rows = self._file.rows(
            "SELECT seq, kind, edit, time, cause, body FROM event"
            f" WHERE {mine} seq > :since ORDER BY seq",
            {"id": id and _possible(id), "since": since},
        )
        if id is not None and not rows:
            self.get(id)
        return [
            Event(seq, kind, edit, time, cause, json.loads(body))
            for seq, kind, edit, time, cause, body in rows
        ]

    def readings(self, since: int = 0) -> list[Reading]:
        """The readings noted at epoch `since` or later, in order."""
        rows = self._file.rows(
            "SELECT body, id, epoch, time FROM reading WHERE epoch >= :since ORDER BY id",
            {"since": since},
        )
        return [Reading(json.loads(body), *stamp) for body, *stamp in rows]

    def verify(self) -> int:
        """Check every page, the hash chain, and every text, vector and patch; the epoch.

        DamagedDatabase names the first broken row and its time.
        """
        with self._file.snapshot() as db:
            return chain.verify(db)

    def _select(self, where: str, at: int | None, **parameters: object) -> list[Edit]:
        rows = self._file.rows(
            "SELECT content.body, id, epoch, kind"
            f" FROM ({_STATE}) AS state JOIN edit ON edit.id = state.edit"
            f" LEFT JOIN content ON content.edit = state.edit WHERE {where} ORDER BY id",
            {"at": _at(at), **parameters},
        )
        return [
            Edit.from_json(body or _ERASED, id=id, epoch=epoch, status=status)
            for body, id, epoch, status in rows
        ]

    def _check_meta(self, asked: Mapping[str, str]) -> None:
        made_for = self.meta
        for key, error in {"model": WrongBase, "encoder": WrongEncoder}.items():
            if made_for[key] != asked[key]:
                raise error(
                    f"{self._file.path} was made for the {key} {made_for[key + '_name']}"
                    f" ({made_for[key]}), not for {asked[key + '_name']} ({asked[key]})"
                )


def _possible(id: int) -> int:
    if isinstance(id, int) and abs(id) > _NOW:
        raise UnknownEdit(f"There is no edit {id}")
    return id


def _list(ids: Iterable[int]) -> str:
    return canonical([int(id) for id in ids])


def _insert_edit(
    db: Database, edit: Edit, vector: bytes | None, *, epoch: int, status: Status
) -> Edit:
    recorded = replace(edit, id=_next_id(db, "edit"), epoch=epoch, status=status)
    body, salt = edit.to_json(), chain.salt()
    sha256 = chain.digest(salt, body.encode(), vector or b"")
    db.execute(
        "INSERT INTO edit (id, epoch, sha256) VALUES (?, ?, ?)", (recorded.id, epoch, sha256)
    )
    db.execute(
        "INSERT INTO content (edit, salt, body, vector) VALUES (?, ?, ?, ?)",
        (recorded.id, salt, body, vector),
    )
    return recorded


def _insert_patch(db: Database, patch: Patch | None) -> int | None:
    if patch is None:
        return None
    id, blob, salt = _next_id(db, "patch"), patch.to_bytes(), chain.salt()
    db.execute(
        "INSERT INTO patch (id, kind, sha256) VALUES (?, ?, ?)",
        (id, patch.kind, chain.digest(salt, blob)),
    )
    db.execute("INSERT INTO payload (patch, salt, bytes) VALUES (?, ?, ?)", (id, salt, blob))
    return id


def _next_id(db: Database, table: str) -> int:
    id: int = db.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0]
    return id


def _vector_rows(vectors: np.ndarray | None, n: int) -> list[bytes | None]:
    if vectors is None:
        return [None] * n
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != n:
        raise ValueError(f"vectors must be float32 ({n}, d), not {vectors.dtype} {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors must be finite")
    return [row.tobytes() for row in vectors.astype("<f4")]


def _check_dimension(db: Database, rows: Sequence[bytes | None]) -> None:
    stored = db.execute(
        "SELECT length(vector) FROM content WHERE vector IS NOT NULL LIMIT 1"
    ).fetchone()
    if stored and rows and rows[0] is not None and len(rows[0]) != stored[0]:
        raise WrongEncoder(
            f"These vectors have {len(rows[0]) // 4} dimensions, the store's {stored[0] // 4}"
        )


def _at(at: int | None) -> int:
    return _NOW if at is None else at
