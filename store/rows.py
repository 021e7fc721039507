"""Writing the rows of an edit and of a patch, and wiping what a person said out of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from sqlite_utils import Database

from store import chain
from store.errors import KeyReused, WrongEncoder
from store.patches import Patch, from_bytes
from store.records import JSON, Edit, Status, canonical


def next_id(db: Database, table: str) -> int:
    """The id of the next row of `table`: ids have no gaps."""
    id: int = db.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0]
    return id


def insert_edit(
    db: Database, edit: Edit, vector: bytes | None, *, epoch: int, status: Status
) -> Edit:
    """Write what was said; the event that gives it its status is the caller's to append."""
    recorded = replace(edit, id=next_id(db, "edit"), epoch=epoch, status=status)
    body, salt = edit.to_json(), chain.salt()
    db.execute(
        "INSERT INTO edit (id, epoch, key_sha256, sha256) VALUES (?, ?, ?, ?)",
        (recorded.id, epoch, _key(edit), chain.digest(salt, body.encode(), vector or b"")),
    )
    db.execute(
        "INSERT INTO content (edit, salt, body, vector) VALUES (?, ?, ?, ?)",
        (recorded.id, salt, body, vector),
    )
    return recorded


def insert_patch(db: Database, patch: Patch | None) -> int | None:
    """Write a patch; its id, or None for none."""
    if patch is None:
        return None
    id = next_id(db, "patch")
    salt, blob, sha256 = _sealed(patch)
    db.execute("INSERT INTO patch (id, kind, sha256) VALUES (?, ?, ?)", (id, patch.kind, sha256))
    db.execute("INSERT INTO payload (patch, salt, bytes) VALUES (?, ?, ?)", (id, salt, blob))
    return id


def recorded_before(db: Database, edit: Edit) -> int | None:
    """The id under which the same request was recorded; KeyReused if it said something else."""
    found = db.execute(
        "SELECT id, body FROM edit LEFT JOIN content ON edit = id WHERE key_sha256 = ?",
        (_key(edit),),
    ).fetchone()
    if found is None:
        return None
    id, body = found
    if body not in (None, edit.to_json()):
        raise KeyReused(f"The key {edit.key!r} belongs to edit {id}, which says something else")
    return int(id)


def is_erased(db: Database, edit: int) -> bool:
    """Whether the text of an edit is gone."""
    return not db.execute("SELECT 1 FROM content WHERE edit = ?", (edit,)).fetchone()


def wipe(db: Database, edit: int) -> Mapping[str, JSON]:
    """Delete the text and vector of an edit; the body of the event that tells so.

    The patches that ever carried it lose its text and get a new hash, which the body states.
    """
    db.execute("DELETE FROM content WHERE edit = ?", (edit,))
    carried = db.execute(
        "SELECT DISTINCT event.patch, position, bytes FROM event JOIN payload USING (patch)"
        " WHERE edit = ?",
        (edit,),
    ).fetchall()
    hashes: dict[str, JSON] = {}
    for patch, position, blob in carried:
        salt, rest, sha256 = _sealed(from_bytes(blob).without(position))
        db.execute("DELETE FROM payload WHERE patch = ?", (patch,))
        db.execute("INSERT INTO payload (patch, salt, bytes) VALUES (?, ?, ?)", (patch, salt, rest))
        hashes[str(patch)] = sha256
    return {"erased": True, "payloads": hashes}


def vector_rows(vectors: np.ndarray | None, n: int) -> list[bytes | None]:
    """The stored form of (n, d) float32 unit rows; ValueError for anything else."""
    if vectors is None:
        return [None] * n
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != n:
        raise ValueError(f"vectors must be float32 ({n}, d), not {vectors.dtype} {vectors.shape}")
    if not are_unit(vectors).all():
        raise ValueError("vectors must be of length 1")
    return [row.tobytes() for row in vectors.astype("<f4")]


def are_unit(vectors: np.ndarray) -> np.ndarray:
    """Which rows of (n, d) have length 1: (n,) bool."""
    unit: np.ndarray = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) <= 1e-3  # finite, too
    return unit


def check_dimension(db: Database, rows: Sequence[bytes | None]) -> None:
    """WrongEncoder unless these vectors are as long as those in the store."""
    stored = dimension(db)
    if stored and rows and rows[0] is not None and len(rows[0]) // 4 != stored:
        raise WrongEncoder(
            f"These vectors have {len(rows[0]) // 4} dimensions, the store's {stored}"
        )


def dimension(db: Database) -> int:
    """How many numbers the vectors in the store have; 0 where there are none."""
    found = db.execute(
        "SELECT length(vector) FROM content WHERE vector IS NOT NULL LIMIT 1"
    ).fetchone()
    return found[0] // 4 if found else 0


def _sealed(patch: Patch) -> tuple[bytes, bytes, str]:
    salt, blob = chain.salt(), patch.to_bytes()
    return salt, blob, chain.digest(salt, blob)


def _key(edit: Edit) -> str | None:
    """Keys are private to an audience: equal ones of two tenants are two requests."""
    if edit.key is None:
        return None
    return chain.digest(canonical([edit.tenant, edit.user_id, edit.key]).encode())
