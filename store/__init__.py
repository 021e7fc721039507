"""Durable memory of edits: an append-only journal in SQLite, and a vector index built from it."""

from store.errors import (
    AlreadyRetired,
    DamagedDatabase,
    DamagedPatch,
    ForeignDatabase,
    NotLive,
    NotRetired,
    SchemaTooNew,
    StoreClosed,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    StoreUnavailable,
    UnknownEdit,
    WrongBase,
    WrongEncoder,
    WrongStatus,
)
from store.index import VectorIndex
from store.journal import Journal, StoredPatch
from store.patches import Hint, Patch, from_bytes
from store.records import JSON, Edit, Event, Probe, Reading, Status

__all__ = [
    "JSON",
    "AlreadyRetired",
    "DamagedDatabase",
    "DamagedPatch",
    "Edit",
    "Event",
    "ForeignDatabase",
    "Hint",
    "Journal",
    "NotLive",
    "NotRetired",
    "Patch",
    "Probe",
    "Reading",
    "SchemaTooNew",
    "Status",
    "StoreClosed",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreMissing",
    "StoreReadOnly",
    "StoreUnavailable",
    "StoredPatch",
    "UnknownEdit",
    "VectorIndex",
    "WrongBase",
    "WrongEncoder",
    "WrongStatus",
    "from_bytes",
]
