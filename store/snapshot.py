"""A large index on disk, beside the journal, so that it opens in seconds. A cache, never trusted.

vectors.f32   (n, d) float32, mapped when opened        ids.i64      (n,) int64, ascending
lists.faiss   the inverted lists                        stamp.json   of which journal; its hashes

The folder appears by one rename when it is complete and synced. It is used when every file has the
hash in the stamp and the journal has the stamp's chain hash at the stamp's epoch; otherwise it is
built anew, and the log says why. What happened since the stamp is applied on top.
"""

import json
import logging
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np

from store.base import Base, Ids, Matrix
from store.errors import StoreUnavailable
from store.file import sha256_of, sync
from store.index import EXACT, VectorIndex
from store.journal import Journal

_LOG = logging.getLogger(__name__)
_VECTORS, _IDS, _LISTS, _STAMP = "vectors.f32", "ids.i64", "lists.faiss", "stamp.json"
_CHUNK = 20_000  # vectors read from the journal at a time


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a snapshot was made from, and the SHA-256 of its files."""

    epoch: int
    chain: str  # the journal's hash at that epoch
    dim: int
    files: dict[str, str]


def open_index(journal: Journal, dim: int, at: int | None = None) -> VectorIndex:
    """The index of the edits live at an epoch that have a vector, of `dim` numbers.

    A large one uses the snapshot in `journal.cache`, or leaves one there if it can.
    """
    live = np.array(journal.live_ids(at), np.int64)
    if len(live) <= EXACT or journal.path == ":memory:":
        return _added(VectorIndex(dim), journal, live)
    folder = journal.cache / "index"
    try:
        base = _load(folder, journal, dim) or _build(folder, journal, dim)
    except OSError as exc:
        _LOG.warning("No index snapshot can be kept in %s: %s", folder, exc)
        return VectorIndex.of(*journal.vectors(live.tolist()))
    index = VectorIndex(dim, base)
    index.remove(np.setdiff1d(base.ids, live, assume_unique=True).tolist())
    return _added(index, journal, np.setdiff1d(live, base.ids, assume_unique=True))


def rebuild(journal: Journal) -> VectorIndex:
    """Throw the cache away and build the index of all live edits anew."""
    try:
        if journal.cache.exists():
            shutil.rmtree(journal.cache)
        return open_index(journal, journal.dim)
    except OSError as exc:
        raise StoreUnavailable(f"{journal.cache} cannot be written ({exc})") from exc


def _added(index: VectorIndex, journal: Journal, ids: Ids) -> VectorIndex:
    for start in range(0, len(ids), _CHUNK):
        found, matrix = journal.vectors(ids[start : start + _CHUNK].tolist())
        if len(found):
            index.add(found, matrix)
    return index


def _load(folder: Path, journal: Journal, dim: int) -> Base | None:
    """The snapshot in `folder`, or None if it is not whole or not of this journal."""
    try:
        stamp = Stamp(**json.loads((folder / _STAMP).read_text()))
        if stamp.dim != dim or stamp.chain != journal.chain_hash(stamp.epoch):
            raise ValueError("it was made from another journal or encoder")
        for name, sha256 in stamp.files.items():
            if sha256_of(folder / name) != sha256:
                raise ValueError(f"{name} does not match its hash")
        ids = np.fromfile(folder / _IDS, np.int64)
        return Base(ids, _mapped(folder, len(ids), dim), faiss.read_index(str(folder / _LISTS)))
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as exc:
        _LOG.warning("The index snapshot in %s is built anew: %s", folder, exc)
        return None


def _build(folder: Path, journal: Journal, dim: int) -> Base:
    """Build the base of what is live now, and keep it in `folder` for the next start."""
    folder.parent.mkdir(exist_ok=True)
    part = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    try:
        epoch = journal.epoch
        ids = _write_vectors(part, journal, epoch)
        base = Base.build(ids, _mapped(part, len(ids), dim))
        faiss.write_index(base.lists, str(part / _LISTS))
        hashes = {name: sha256_of(part / name) for name in (_VECTORS, _IDS, _LISTS)}
        stamp = Stamp(epoch, journal.chain_hash(epoch), dim, hashes)
        (part / _STAMP).write_text(json.dumps(asdict(stamp)))
        for path in (*part.iterdir(), part):
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return base


def _write_vectors(part: Path, journal: Journal, epoch: int) -> Ids:
    """Copy the live vectors as of `epoch` chunk by chunk; their ids."""
    live, ids = journal.live_ids(epoch), []
    with open(part / _VECTORS, "wb") as out:
        for start in range(0, len(live), _CHUNK):
            found, matrix = journal.vectors(live[start : start + _CHUNK])
            ids.append(found)
            matrix.tofile(out)
    written = np.concatenate(ids)
    written.tofile(part / _IDS)
    return written


def _mapped(folder: Path, n: int, dim: int) -> Matrix:
    return np.asarray(np.memmap(folder / _VECTORS, np.float32, "r", shape=(n, dim)))
