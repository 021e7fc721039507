"""What a run keeps: every reply, every probe, every write and every cost, in one SQLite file.

A checkpoint's probes and costs are written in one transaction, so a run that is interrupted leaves
whole checkpoints or none; replies are kept batch by batch. Any figure can be recomputed from here.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Literal, Self

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # pysqlite3 if installed

from lifelong.errors import OtherRun, OutUnusable
from lifelong.evaluate.protocol import Key, Reply
from lifelong.evaluate.records import ProbeKind
from store.records import canonical

BASE = "base"  # whose replies are the untouched model's
ALONE = 0  # the checkpoint of edits that were each made alone, on a fresh base (Eq. 11)

Kind = Literal["own"] | ProbeKind


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt, asked about the edit at `place` of the stream (from 0) at a checkpoint.

    `shape` says what shaped the reply ("" is the base model, untouched). `reply` and `base` may
    be None where the route is the base model's: then they are the same by definition. `measured`
    are likelihoods under teacher forcing, by name.
    """

    place: int
    subject: str
    kind: Kind
    prompt: str
    accepted: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    shape: str = ""
    reply: Reply | None = None
    base: Reply | None = None
    measured: Mapping[str, float] = field(default_factory=dict)

    def measuring(self, more: Mapping[str, float]) -> "Row":
        """The row with more likelihoods."""
        return replace(self, measured={**self.measured, **more})


class Answers:
    """Replies in a SQLite file: `source` says whose, `stage` when in a run they were made."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises OutUnusable."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = Database(sqlite3.connect(path, isolation_level=None, timeout=30))
            self._db.table("reply").create(
                {"source": str, "prompt": str, "shape": str, "stage": str, "text": str}
                | {"ids": str, "truncated": int, "seconds": float},
                pk=("source", "prompt", "shape"),
                if_not_exists=True,
            )
        except (OSError, sqlite3.Error) as exc:
            raise OutUnusable(
                f"{path} cannot be written ({exc}).", "Name a folder that can be, with --out."
            ) from exc

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def keep(self, source: str, stage: str, said: Mapping[Key, Reply]) -> None:
        """Write replies, all or none."""
        rows = [
            {"source": source, "prompt": prompt, "shape": shape, "stage": stage}
            | asdict(reply)
            | {"ids": json.dumps(reply.ids)}
            for (prompt, shape), reply in said.items()
        ]
        with self.transaction() as db:
            db.table("reply").upsert_all(rows, pk=("source", "prompt", "shape"))

    def known(self, source: str) -> dict[Key, tuple[str, Reply]]:
        """(prompt, shape) -> (stage, reply) of one source."""
        sql = "SELECT prompt, shape, stage, text, ids, truncated, seconds FROM reply WHERE source=?"
        return {
            (prompt, shape): (stage, Reply(text, tuple(json.loads(ids)), bool(cut), seconds))
            for prompt, shape, stage, text, ids, cut, seconds in self._db.execute(sql, [source])
        }

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """All that is written in the block, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise


class Raw(Answers):
    """The file of one run."""

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, Any]) -> Self:
        """The run in `folder`, new or interrupted. Raises OutUnusable, OtherRun."""
        raw = cls(folder / "raw.db")
        db = raw._db
        with raw.transaction():
            db.table("run").create({"name": str, "value": str}, pk="name", if_not_exists=True)
            db.table("probe").create(
                {"method": str, "checkpoint": int, "number": int, "place": int, "subject": str}
                | {"kind": str, "prompt": str, "accepted": str, "old": str, "shape": str}
                | {"measured": str},
                pk=("method", "checkpoint", "number"),
                if_not_exists=True,
            )
            db.table("cost").create(
                {"method": str, "checkpoint": int, "value": str},
                pk=("method", "checkpoint"),
                if_not_exists=True,
            )
            db.table("written").create(
                {"method": str, "place": int, "seconds": float, "refused": str},
                pk=("method", "place"),
                if_not_exists=True,
            )
            db.table("phase").create(
                {"name": str, "wall": float, "cpu": float}, pk="name", if_not_exists=True
            )
        raw._claim(identity)
        return raw

    def _claim(self, identity: Mapping[str, Any]) -> None:
        """Continue only what was begun with the same configuration."""
        found = self.noted("identity")
        wanted = json.loads(canonical(identity))
        if found is None:
            self.note("identity", wanted)
        elif found != wanted:
            other = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
            raise OtherRun(
                f"There is another run in this folder: it differs in {', '.join(other)}.",
                "Name another folder with --out, or remove this one.",
            )

    def note(self, name: str, value: object) -> None:
        """Keep a value under a name."""
        self._db.table("run").upsert({"name": name, "value": canonical(value)}, pk="name")

    def noted(self, name: str) -> Any:
        """What was kept under a name; None where nothing was."""
        found = self._db.execute("SELECT value FROM run WHERE name=?", [name]).fetchone()
        return None if found is None else json.loads(found[0])

    # -- writes ----------------------------------------------------------------------------------

    def wrote(self, method: str, places: Sequence[int], seconds: float, why: Sequence[str]) -> None:
        """A batch of edits took `seconds` each; `why` says of each why it was refused, or ""."""
        with self.transaction() as db:
            db.table("written").upsert_all(
                (
                    {"method": method, "place": place, "seconds": seconds, "refused": refused}
                    for place, refused in zip(places, why, strict=True)
                ),
                pk=("method", "place"),
            )

    def written(self, method: str) -> dict[int, tuple[float, str]]:
        """Place -> (seconds, why it was refused or "")."""
        sql = "SELECT place, seconds, refused FROM written WHERE method=? ORDER BY place"
        return {place: (s, why) for place, s, why in self._db.execute(sql, [method])}

    # -- checkpoints -----------------------------------------------------------------------------

    def finish(
        self, method: str, checkpoint: int, rows: Iterable[Row], costs: Mapping[str, Any]
    ) -> None:
        """Write a whole checkpoint."""
        with self.transaction() as db:
            db.table("probe").upsert_all(
                (
                    {"method": method, "checkpoint": checkpoint, "number": number} | _flat(row)
                    for number, row in enumerate(rows)
                ),
                pk=("method", "checkpoint", "number"),
            )
            cost = {"method": method, "checkpoint": checkpoint, "value": canonical(costs)}
            db.table("cost").upsert(cost, pk=("method", "checkpoint"))

    def costs(self, method: str, checkpoint: int) -> dict[str, Any] | None:
        """The costs of a checkpoint; None where it is not finished."""
        sql = "SELECT value FROM cost WHERE method=? AND checkpoint=?"
        found = self._db.execute(sql, [method, checkpoint]).fetchone()
        return None if found is None else dict(json.loads(found[0]))

    def rows(self, method: str, checkpoint: int) -> list[Row]:
        """The probes of a checkpoint, with their replies."""
        said = {key: reply for key, (_, reply) in self.known(method).items()}
        base = {prompt: reply for (prompt, _), (_, reply) in self.known(BASE).items()}
        sql = (
            "SELECT place, subject, kind, prompt, accepted, old, shape, measured FROM probe "
            "WHERE method=? AND checkpoint=? ORDER BY number"
        )
        return [
            Row(
                place, subject, kind, prompt, tuple(json.loads(accepted)), tuple(json.loads(old)),
                shape, said.get((prompt, shape)) if shape else base.get(prompt), base.get(prompt),
                json.loads(measured),
            )
            for place, subject, kind, prompt, accepted, old, shape, measured in self._db.execute(
                sql, [method, checkpoint]
            )
        ]  # fmt: skip

    # -- time ------------------------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of the block, by the clock and of this process, to those of `name`."""
        began, used = perf_counter(), process_time()
        try:
            yield
        finally:
            self._db.execute(
                "INSERT INTO phase VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE "
                "SET wall = wall + excluded.wall, cpu = cpu + excluded.cpu",
                [name, perf_counter() - began, process_time() - used],
            )

    def phases(self) -> dict[str, dict[str, float]]:
        """Where the time went, in seconds: the longest first."""
        rows = self._db.execute("SELECT name, wall, cpu FROM phase ORDER BY wall DESC")
        return {name: {"wall": round(wall, 2), "cpu": round(cpu, 2)} for name, wall, cpu in rows}


def _flat(row: Row) -> dict[str, Any]:
    plain = {"place": row.place, "subject": row.subject, "kind": row.kind, "prompt": row.prompt}
    lists = {"accepted": json.dumps(row.accepted), "old": json.dumps(row.old)}
    return plain | lists | {"shape": row.shape, "measured": canonical(row.measured)}
