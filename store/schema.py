"""The tables, grown by numbered functions that are never changed after a release.

Append-only: `edit`, `patch`, `event`, `reading`; triggers refuse UPDATE, DELETE and any id but the
next. They hold no text of a user, only salted hashes. `content` (texts and vector of an edit) and
`payload` (bytes of a patch) hold that text, so that it can be erased and the hash chain stays.

An event states all there is to know of its edit from then on: `kind` is the status, `patch` and
`position` say which patch carries it, `audience` who sees it.
"""

from collections.abc import Mapping

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from store.errors import SchemaTooNew
from store.file import APPLICATION_ID, File

migrations = Migrations("lifelong")


@migrations()
def m001_journal(db: Database) -> None:
    """Everything of the first release."""
    db.executescript(
        """
        CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
        CREATE TABLE edit (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, sha256 TEXT NOT NULL)
            STRICT;
        CREATE TABLE content (
            edit INTEGER PRIMARY KEY REFERENCES edit (id),
            salt BLOB NOT NULL,
            body TEXT NOT NULL,
            vector BLOB,
            user_id TEXT AS (json_extract(body, '$.user_id')) VIRTUAL,
            tenant TEXT AS (json_extract(body, '$.tenant')) VIRTUAL
        ) STRICT;
        CREATE TABLE patch (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, sha256 TEXT NOT NULL)
            STRICT;
        CREATE TABLE payload (
            patch INTEGER PRIMARY KEY REFERENCES patch (id),
            salt BLOB NOT NULL,
            bytes BLOB NOT NULL
        ) STRICT;
        CREATE TABLE event (
            seq INTEGER PRIMARY KEY,
            edit INTEGER NOT NULL REFERENCES edit (id),
            kind TEXT NOT NULL CHECK (kind IN ('proposed', 'pending', 'live', 'superseded',
                'retired', 'quarantined', 'rejected', 'expired')),
            patch INTEGER REFERENCES patch (id),
            position INTEGER,
            audience TEXT NOT NULL DEFAULT 'author'
                CHECK (audience IN ('author', 'tenant', 'everyone')),
            cause INTEGER REFERENCES edit (id),
            time TEXT NOT NULL,
            body TEXT NOT NULL,
            sha256 TEXT NOT NULL
        ) STRICT;
        CREATE INDEX event_of_edit ON event (edit, seq);
        CREATE INDEX event_by_cause ON event (cause) WHERE cause IS NOT NULL;
        CREATE INDEX event_of_patch ON event (patch) WHERE patch IS NOT NULL;
        CREATE TABLE reading (
            id INTEGER PRIMARY KEY,
            epoch INTEGER NOT NULL,
            time TEXT NOT NULL,
            body TEXT NOT NULL
        ) STRICT;
        """
    )
    for table, key in {"edit": "id", "patch": "id", "event": "seq", "reading": "id"}.items():
        db.executescript(_append_only(table, key))
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _append_only(table: str, key: str) -> str:
    return f"""
        CREATE TRIGGER {table}_in_order BEFORE INSERT ON {table}
        WHEN NEW.{key} IS NOT (SELECT coalesce(max({key}), 0) + 1 FROM {table})
        BEGIN SELECT RAISE(ABORT, '{table} grows by one row at a time'); END;
        CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table}
        BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
        CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}
        BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
        """


def prepare(file: File, meta: Mapping[str, str]) -> None:
    """Bring the file to the newest schema; `meta` describes a new one. SchemaTooNew if beyond."""
    if not check(file):
        return
    with file.transaction() as db:  # of two processes that come here at once, one finds it done
        migrations.apply(db)
        db.table("meta").insert_all(({"key": k, "value": v} for k, v in meta.items()), ignore=True)


def check(file: File) -> bool:
    """Whether steps are pending; SchemaTooNew when a newer version migrated the file."""
    with file.snapshot() as db:
        applied = {migration.name for migration in migrations.applied(db)}
    known = {migration.name for migration in migrations._migrations}
    if applied - known:
        raise SchemaTooNew(f"{file.path} has the unknown schema step {min(applied - known)}")
    return bool(known - applied)
