"""The tables, grown by numbered functions that are never changed after a release.

Append-only: `edit`, `patch`, `event`, `reading`; triggers refuse UPDATE, DELETE and any id but the
next. They hold no text of a user, only salted hashes. `content` (texts and vector of an edit) and
`payload` (bytes of a patch) hold that text, so that it can be erased and the hash chain stays.

An event states all there is to know of its edit from then on: `kind` is the status, `patch` and
`position` say which patch carries it, `reach` how far beyond its author it is seen.
"""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from store import backup
from store.errors import SchemaTooNew, SchemaTooOld, WrongBase, WrongEncoder
from store.file import APPLICATION_ID, File

migrations = Migrations("lifelong")


@migrations()
def m001_journal(db: Database) -> None:
    """Everything of the first release."""
    db.executescript(
        """
        CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
        CREATE TABLE edit (
            id INTEGER PRIMARY KEY,
            epoch INTEGER NOT NULL,
            key_sha256 TEXT UNIQUE,
            sha256 TEXT NOT NULL
        ) STRICT;
        CREATE TABLE content (
            edit INTEGER PRIMARY KEY REFERENCES edit (id),
            salt BLOB NOT NULL,
            body TEXT NOT NULL,
            vector BLOB,
            user_id TEXT AS (json_extract(body, '$.user_id')) VIRTUAL,
            tenant TEXT AS (json_extract(body, '$.tenant')) VIRTUAL,
            valid_until TEXT AS (json_extract(body, '$.valid_until')) VIRTUAL
        ) STRICT;
        CREATE INDEX content_by_user ON content (user_id, tenant) WHERE user_id IS NOT NULL;
        CREATE INDEX content_by_end ON content (valid_until) WHERE valid_until IS NOT NULL;
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
            reach TEXT NOT NULL CHECK (reach IN ('author', 'tenant', 'everyone')),
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


@migrations()
def m002_facts(db: Database) -> None:
    """Facts for reference; see `store.facts`."""
    db.executescript(
        """
        CREATE TABLE fact (
            id INTEGER PRIMARY KEY,
            subject TEXT NOT NULL,
            prompt TEXT NOT NULL,
            target TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            until INTEGER
        ) STRICT;
        CREATE INDEX fact_by_prompt ON fact (prompt) WHERE until IS NULL;
        """
    )


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


def prepare(file: File, made_for: Mapping[str, str]) -> Path | None:
    """Bring the file to the newest schema; a new store is `made_for` this.

    Gives the backup, where there was something to keep. Raises SchemaTooNew. Of two processes
    that come here at once, one finds the work done.
    """
    if not _pending(file):
        return None
    kept = None
    with file.transaction() as db:
        pending = _pending(file)
        if pending and migrations.applied(db):
            kept = _keep_copy(file, pending[0])
        migrations.apply(db)
        facts = {"id": uuid4().hex, **made_for}
        db.table("meta").insert_all(({"key": k, "value": v} for k, v in facts.items()), ignore=True)
    return kept


def migrate(path: str | Path) -> Path | None:
    """Bring the store at `path` to the newest schema; the backup, None if nothing was to do."""
    with closing(File(path, create=False, write=True)) as file:
        return prepare(file, {})


def check(file: File) -> None:
    """Raise SchemaTooOld or SchemaTooNew unless the file has the schema of this version."""
    if pending := _pending(file):
        raise SchemaTooOld(f"{file.path} lacks the schema step {pending[0]}")


def step(db: Database) -> str:
    """The last schema step that was applied."""
    return max(migration.name for migration in migrations.applied(db))


def meta(db: Database) -> dict[str, str]:
    """What the store was made for, and its own id."""
    return dict(db.execute("SELECT key, value FROM meta").fetchall())


def check_made_for(db: Database, asked: Mapping[str, str]) -> None:
    """Raise WrongBase or WrongEncoder unless the store has the fingerprints in `asked`."""
    has = meta(db)
    for key, error in {"model": WrongBase, "encoder": WrongEncoder}.items():
        if has[key] != asked[key]:
            raise error(
                f"The store was made for the {key} {has[key + '_name']} ({has[key]}),"
                f" not for {asked[key + '_name']} ({asked[key]})"
            )


def _pending(file: File) -> list[str]:
    with file.snapshot() as db:
        applied = {migration.name for migration in migrations.applied(db)}
        pending = [migration.name for migration in migrations.pending(db)]
    known = {migration.name for migration in migrations._migrations}
    if applied - known:
        raise SchemaTooNew(f"{file.path} has the unknown schema step {min(applied - known)}")
    return pending


def _keep_copy(file: File, step: str) -> Path:
    """The write lock is held: nobody migrates or writes while another connection copies.

    A copy that is there was left by a migration that died, and may be older than the store.
    """
    with closing(File(file.path, create=False, write=False)) as before:
        return backup.save(before, Path(f"{file.path}.before-{step}"), over=True)
