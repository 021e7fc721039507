"""Whole copies of a store file, and the way back."""

import os
import secrets
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # as in file.py

from store import chain
from store.errors import DamagedDatabase, ForeignDatabase, StoreLocked
from store.file import LOCK_SECONDS, File, sync


def save(file: File, target: Path, *, over: bool = False) -> Path:
    """A consistent, synced copy at `target`; StoreUnavailable if that exists, unless `over` it."""
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        with file.connection() as source, closing(sqlite3.connect(part)) as copy:
            source.backup(copy, progress=_patience(file.path))
            sync(part)
            (os.replace if over else os.link)(part, target)  # a link never goes over another file
            sync(target.parent)
    finally:
        part.unlink(missing_ok=True)
    return target


def check(path: Path) -> None:
    """DamagedDatabase, or another StoreError, unless the file at `path` is a whole store."""
    with closing(File(path, create=False, write=False)) as file, file.snapshot() as db:
        chain.verify(db)


def put_back(backup: str | Path, path: str | Path) -> Path | None:
    """Make the store at `path` what `backup` is; where its old content went, None if it had none.

    A sound store is overwritten in place, in one transaction, so that other processes that have it
    open see the change; a ruined one is moved aside.
    """
    backup, path = Path(backup), Path(path)
    check(backup)
    aside = None
    if path.exists():
        aside = path.with_name(f"{path.name}.set-aside-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
        _set_aside(path, aside)
    with (
        closing(File(backup, create=False, write=False)) as source,
        closing(File(path, create=True, write=True)) as target,
        source.connection() as content,
        target.connection() as place,
    ):
        content.backup(place, progress=_patience(str(path)))
    return aside


def _set_aside(path: Path, aside: Path) -> None:
    try:
        with closing(File(path, create=False, write=False)) as sound:
            save(sound, aside)
    except (DamagedDatabase, ForeignDatabase):
        for suffix in ("", "-journal", "-wal", "-shm"):
            if (ruin := path.with_name(path.name + suffix)).exists():
                ruin.rename(aside.with_name(aside.name + suffix))


def _patience(path: str) -> Callable[[int, int, int], None]:
    """sqlite3 would wait for a lock without end."""
    end = time.monotonic() + LOCK_SECONDS

    def check(status: int, remaining: int, total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > end:
            raise StoreLocked(f"{path} is locked by another process")

    return check
