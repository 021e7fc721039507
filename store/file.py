"""One SQLite file, opened safely: the only place that connects, commits and meets foreign errors.

Every write passes through `transaction()`: one lock, BEGIN IMMEDIATE ... COMMIT, rolled back on
any exception, which survives. Whatever SQLite or the disk complains about leaves as a StoreError.
Safe for threads; a forked child must open its own.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import RLock
from typing import Any

from filelock import FileLock, Timeout
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # pysqlite3 if installed

from store.errors import (
    DamagedDatabase,
    ForeignDatabase,
    StoreClosed,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    StoreUnavailable,
)

APPLICATION_ID = 0x4C4C4A31  # "LLJ1", in the header of every file of ours
LOCK_SECONDS = 5.0
OLDEST_SQLITE = (3, 38, 0)  # the first with STRICT tables and the ->> operator

_UNUSABLE = StoreUnavailable, "cannot be used"
_REFUSED = StoreReadOnly, "is read-only"
_ERRORS: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreLocked, "is locked by another process"),
    sqlite3.SQLITE_LOCKED: (StoreLocked, "is locked by another connection"),
    sqlite3.SQLITE_PROTOCOL: (StoreLocked, "is locked by another process"),
    sqlite3.SQLITE_READONLY: _REFUSED,
    sqlite3.SQLITE_FULL: (StoreFull, "has no room left on its disk"),
    sqlite3.SQLITE_CORRUPT: (DamagedDatabase, "is damaged"),
    sqlite3.SQLITE_NOTADB: (ForeignDatabase, "is not a database"),
    sqlite3.SQLITE_ERROR: (DamagedDatabase, "is damaged"),  # our SQL is right: the file is not
}


def safe_journal_mode(version: tuple[int, ...]) -> str:
    """WAL where SQLite has the fix of the WAL-reset bug (3.51.3, 3.50.7, 3.44.6), else DELETE."""
    fixed = (
        version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    )
    return "wal" if fixed else "delete"


class File:
    """A connection to the SQLite file at `path` (":memory:" for none), shared by all threads."""

    def __init__(self, path: str | Path, *, create: bool, write: bool) -> None:
        self.path = str(path)
        self._lock = RLock()
        self._open = True
        self._turnstile = _turnstile(self.path)
        self._queues = False  # one who only reads may not be allowed to write a lock file
        with self._translated():
            if sqlite3.sqlite_version_info < OLDEST_SQLITE:
                raise StoreError(f"SQLite {sqlite3.sqlite_version} is older than 3.38")
            if not create and not Path(path).exists():
                raise StoreMissing(f"There is no store {path}")
            connection = sqlite3.connect(
                _uri(path, create=create),
                uri=True,
                timeout=LOCK_SECONDS,
                check_same_thread=False,
                isolation_level=None,
            )
            self._db = Database(connection, strict=True)
            with self.closed_on_error():
                self._check(create=create)
                self._configure(write=write)

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """A write: all of it is synced to disk when the block ends, or none of it happened.

        Inside another transaction it is a part of that one.
        """
        with self._session(self._begin_write) as db:
            yield db

    @contextmanager
    def snapshot(self) -> Iterator[Database]:
        """Several reads of one state of the file."""
        with self._session(self._begin_read) as db:
            yield db

    def rows(self, sql: str, parameters: dict[str, object] | None = None) -> list[Any]:
        """All rows of one query."""
        with self._lock, self._translated():
            return self._db.execute(sql, parameters or {}).fetchall()

    def data_version(self) -> int:
        """A number that changes when another connection commits to the file."""
        version: int = self.rows("PRAGMA data_version")[0][0]
        return version

    def forget_log(self) -> None:
        """Move a write-ahead log into the file and empty it, so that nothing old is left in it."""
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """The connection itself, for a copy of the whole file."""
        with self._lock, self._translated():
            yield self._db.conn

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the connection when the block fails."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; twice is fine."""
        with self._lock:
            self._open = False
            self._db.conn.close()

    @contextmanager
    def _session(self, begin: Callable[[], object]) -> Iterator[Database]:
        with self._lock, self._translated():
            if self._db.conn.in_transaction:
                with self._db.atomic():
                    yield self._db
                return
            begin()
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.rollback()
                raise

    def _begin_write(self) -> None:
        """Get the write lock in turn.

        SQLite's waiting is a lottery, which a busy neighbour wins again and again. Only who holds
        the turnstile may try, so the last writer cannot slip past the one that waits.
        """
        with self._turnstile:
            self._db.execute("BEGIN IMMEDIATE")

    def _begin_read(self) -> None:
        """Without a write-ahead log a commit shuts readers out, so they queue with the writers."""
        with self._turnstile if self._queues else nullcontext():
            self._db.execute("BEGIN")
            self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # holds the state

    def _check(self, *, create: bool) -> None:
        """Refuse a file that holds anything but a store of ours, before it is touched."""
        (found,) = self._db.execute("PRAGMA application_id").fetchone()
        if found == APPLICATION_ID:
            self._check_length()
            return
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables or not create:
            raise ForeignDatabase(f"{self.path} is not a lifelong store")

    def _check_length(self) -> None:
        """A file shorter than its own header says has lost its tail (a WAL may hold the rest)."""
        log = Path(f"{self.path}-wal")
        if self.path == ":memory:" or (log.exists() and log.stat().st_size):
            return
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        actual = Path(self.path).stat().st_size
        if actual < pages * size:
            raise DamagedDatabase(f"{self.path} has {actual:,} of its {pages * size:,} bytes")

    def _configure(self, *, write: bool) -> None:
        execute = self._db.execute
        execute("PRAGMA foreign_keys = ON")
        execute("PRAGMA secure_delete = ON")
        execute("PRAGMA synchronous = EXTRA")  # FULL, and the folder when a journal is unlinked
        if write:
            mode = safe_journal_mode(sqlite3.sqlite_version_info)
            execute(f"PRAGMA journal_mode = {mode}")
            self._queues = mode != "wal"
        else:
            execute("PRAGMA query_only = ON")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            if isinstance(exc, sqlite3.ProgrammingError) and not self._open:
                raise StoreClosed(f"{self.path} is closed") from exc
            # the primary of an extended code; Python's own complaint, about a text, has none
            code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            kind, what = _ERRORS.get(code, _UNUSABLE)
            raise kind(f"{self.path} {what} ({exc})") from exc
        except Timeout as exc:
            raise StoreLocked(f"{self.path} is locked by another process ({exc})") from exc
        except OSError as exc:
            refused = exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            kind, what = _REFUSED if refused else _UNUSABLE
            raise kind(f"{self.path} {what} ({exc})") from exc


def _turnstile(path: str) -> AbstractContextManager[object]:
    if path == ":memory:":
        return nullcontext()
    return FileLock(f"{path}.turn", timeout=LOCK_SECONDS, poll_interval=0.002)


def _uri(path: str | Path, *, create: bool) -> str:
    if str(path) == ":memory:":
        return "file::memory:"
    return f"{Path(path).absolute().as_uri()}?mode={'rwc' if create else 'rw'}"


def sync(path: Path) -> None:
    """Force a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The hash of a file's content."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
