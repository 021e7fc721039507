"""The error tree of the store. Every message says what happened; the class adds the remedy."""

from typing import ClassVar


class StoreError(Exception):
    """Anything the store refuses or cannot do; `str()` gives the cause and the remedy."""

    remedy: ClassVar[str] = "Run `lifelong store verify`, and restore a backup if it complains"

    def __str__(self) -> str:
        return f"{super().__str__()}. {self.remedy}."


class UnknownEdit(StoreError, LookupError):
    """No edit has this id."""

    remedy = "`lifelong list` shows every id"


class WrongStatus(StoreError):
    """The edit's status does not allow this step."""

    remedy = "`lifelong history ID` shows what became of it"


class AlreadyRetired(WrongStatus):
    """Undo of an edit that no longer stands."""

    remedy = "`lifelong redo ID` brings a retired edit back"


class NotRetired(WrongStatus):
    """Redo of an edit that was not undone."""

    remedy = "Only a retired or quarantined edit can be brought back; record others again"


class NotLive(WrongStatus):
    """An edit that is to be superseded is not live (any more)."""

    remedy = "Read the live edits again and repeat the correction"


class NotWaiting(WrongStatus):
    """Approval or rejection of an edit that does not wait for it."""

    remedy = "`lifelong review` lists the edits that wait"


class TooNarrow(WrongStatus):
    """An edit for a narrower audience is to replace one for a wider."""

    remedy = "Leave both live, or promote the new one"


class KeyReused(StoreError):
    """An idempotency key came again with another content."""

    remedy = "Nothing was written: use a fresh key for a new correction"


class Stale(StoreError):
    """Another writer recorded something after the caller had looked."""

    remedy = "Nothing was written: read the journal again and repeat"


class StoreUnavailable(StoreError):
    """The file cannot be opened, read or written."""

    remedy = "Check that the folder exists, that you may write there, and the disk's health"


class StoreMissing(StoreUnavailable):
    """No file is there, and none was to be made."""

    remedy = "Name another file with `--store`; the first correction makes a new one"


class StoreClosed(StoreError):
    """The journal was closed."""

    remedy = "Open it again"


class StoreLocked(StoreError):
    """Another process kept the file locked for too long."""

    remedy = "Nothing was written: try again, or stop the process that holds the file"


class StoreReadOnly(StoreError):
    """The file, its folder or this connection allows no writing."""

    remedy = "Nothing was written: make the file and its folder writable, or use another one"


class StoreFull(StoreError):
    """No room for another commit."""

    remedy = "Nothing was written: free some disk space and try again"


class ForeignDatabase(StoreError):
    """The file is not one of ours, or its first page is ruined."""

    remedy = "Name another file; if this one was a lifelong store, restore a backup"


class DamagedDatabase(StoreError):
    """The file is ours, but truncated, malformed, or its hash chain is broken."""

    remedy = "Restore a backup, or export what `lifelong list` still shows into a new store"


class SchemaTooOld(StoreError):
    """The file awaits a migration, and this connection only reads."""

    remedy = "Run `lifelong store migrate`; it keeps a backup"


class SchemaTooNew(StoreError):
    """A later version of this package wrote the file."""

    remedy = "Upgrade the package"


class WrongBase(StoreError):
    """The store was made for another base model."""

    remedy = "Open it with its own model, or carry it over: `lifelong rebase OLD --store NEW`"


class WrongEncoder(StoreError):
    """The store's vectors were made by another sentence encoder."""

    remedy = "Open it with its own encoder, or carry it over: `lifelong rebase OLD --store NEW`"


class DamagedPack(StoreError):
    """An exported folder is incomplete or does not match its manifest."""

    remedy = "Nothing was imported: export it again"


class DamagedPatch(StoreError):
    """The bytes of a patch cannot be read."""

    remedy = "Retire the edits it belongs to and record them again"
