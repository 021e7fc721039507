"""Facts for reference, beside the edits: what an answer may pass through, never what it must say.

Everybody sees them, and they are no part of the chain of events. One that is dropped keeps its row
and says until which epoch it was there, so that the past can still be asked.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlite_utils import Database

from store import chain
from store.rows import next_id

_COLUMNS = "id, subject, prompt, target, epoch"


@dataclass(frozen=True, slots=True)
class Reference:
    """What is so, as far as anybody knows: `prompt` is about `subject`, and `target` answers it.

    `id` and `epoch` (the journal's, when it was added) are given by the journal.
    """

    subject: str
    prompt: str
    target: str
    id: int = 0
    epoch: int = 0


def add(db: Database, new: Iterable[Reference]) -> list[Reference]:
    """Those of `new` that were not there, with ids."""
    added = []
    for fact in dict.fromkeys(new):
        known = db.execute(
            "SELECT 1 FROM fact WHERE prompt = ? AND target = ? AND until IS NULL",
            (fact.prompt, fact.target),
        )
        if known.fetchone():
            continue
        added.append(replace(fact, id=next_id(db, "fact"), epoch=chain.last_seq(db)))
        row = added[-1]
        db.execute(
            f"INSERT INTO fact ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
            (row.id, row.subject, row.prompt, row.target, row.epoch),
        )
    return added


def drop(db: Database, ids: Iterable[int] | None) -> int:
    """From now on these are not there (None: none is); how many went."""
    chosen = [fact.id for fact in read(db, None)] if ids is None else list(ids)
    before = stamp(db)
    for id in chosen:
        db.execute(
            "UPDATE fact SET until = ? WHERE until IS NULL AND id = ?", (chain.last_seq(db), id)
        )
    return stamp(db)[1] - before[1]


def read(db: Database, at: int | None) -> list[Reference]:
    """What is there now, or was at the epoch `at`, by id."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM fact WHERE CASE WHEN :at IS NULL THEN until IS NULL"
        " ELSE epoch <= :at AND coalesce(until > :at, 1) END ORDER BY id",
        {"at": at},
    )
    return [Reference(subject, prompt, target, id, e) for id, subject, prompt, target, e in rows]


def stamp(db: Database) -> tuple[int, int]:
    """Changes whenever the facts do: how many were ever added, how many dropped."""
    added, dropped = db.execute("SELECT count(*), count(until) FROM fact").fetchone()
    return int(added), int(dropped)
