"""The journal: every edit ever acknowledged, what became of it, and nothing that can be derived.

Every step is one synced transaction; when the method returns, the step is on disk. The epoch is
the number of the last event; every read can be asked `at` an epoch, where None means now. Whatever
goes wrong is a StoreError, or ValueError for a wrong argument. A `reason` stays for ever: keep
personal data out of it.
"""

import shutil
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Signal
from typing import Self

import numpy as np
from sqlite_utils import Database

from store import backup, chain, facts, life, pack, rows, schema, views
from store.chain import State
from store.errors import (
    AlreadyRetired,
    KeyReused,
    NotLive,
    NotRetired,
    NotWaiting,
    Stale,
    UnknownEdit,
    WrongStatus,
)
from store.facts import Reference
from store.file import File
from store.patches import Made, Patch
from store.records import Audience, Edit, Event, Reach, Reading, Status, canonical, utc
from store.views import StoredPatch

_MADE_FOR = ("model", "encoder", "model_name", "encoder_name")
_NOTHING: Mapping[int, Sequence[int]] = {}


class Journal:
    """The door to one store file. Safe for threads; other processes may read and write too."""

    def __init__(self, file: File) -> None:
        self._file = file

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: str,
        encoder: str,
        model_name: str = "",
        encoder_name: str = "",
    ) -> Self:
        """Open or create the store at `path` (":memory:" for none) for this model and encoder.

        `model` and `encoder` are fingerprints, the names are for people. WrongBase or WrongEncoder
        when the store was made for others.
        """
        made_for = {"model": model, "encoder": encoder}
        names = {"model_name": model_name, "encoder_name": encoder_name}
        file = File(path, create=True, write=True)
        with file.closed_on_error():
            schema.prepare(file, made_for | names)
            with file.snapshot() as db:
                schema.check_made_for(db, made_for | names)
        return cls(file)

    @classmethod
    def tend(cls, path: str | Path) -> Self:
        """Open an existing store for writing, whatever model it was made for: for the tools."""
        file = File(path, create=False, write=True)
        with file.closed_on_error():
            schema.prepare(file, {})
        return cls(file)

    @classmethod
    def for_pack(cls, path: str | Path, folder: str | Path) -> Self:
        """Open the store at `path` to import into; where there is none, make it as the pack's was.

        Raises DamagedPack.
        """
        if Path(path).exists():
            return cls.tend(path)
        made_for = pack.origin(Path(folder))
        return cls.open(path, **{key: made_for[key] for key in _MADE_FOR})

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Open an existing store for reading only, whatever model it was made for."""
        file = File(path, create=False, write=False)
        with file.closed_on_error():
            schema.check(file)
        return cls(file)

    def close(self) -> None:
        """Close the file; later calls raise StoreClosed."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def path(self) -> str:
        """Where the file is."""
        return self._file.path

    @property
    def cache(self) -> Path:
        """The folder for what is derived from the journal; it may be deleted at any time."""
        return Path(f"{self.path}.cache")

    @property
    def meta(self) -> dict[str, str]:
        """What the store was made for: `model`, `encoder` (fingerprints), their names; its `id`."""
        with self._file.snapshot() as db:
            return schema.meta(db)

    @property
    def schema(self) -> str:
        """The last schema step of the file."""
        with self._file.snapshot() as db:
            return schema.step(db)

    @property
    def dim(self) -> int:
        """How many numbers the vectors have; 0 where there are none."""
        with self._file.snapshot() as db:
            return rows.dimension(db)

    # -- writing ---------------------------------------------------------------------------------

    @contextmanager
    def together(self) -> Iterator[None]:
        """The steps inside the block are one transaction: all of them happen, or none."""
        with self._file.transaction():
            yield

    def record(
        self,
        edits: Sequence[Edit],
        patch: Patch | None,
        vectors: np.ndarray | None = None,
        *,
        supersedes: Mapping[int, Sequence[int]] = _NOTHING,
        status: Status = "live",
        seen: int | None = None,
    ) -> list[Edit]:
        """Record `edits` and their `patch` in one transaction; the edits with id, epoch, status.

        `vectors` is (len(edits), d) float32, one row an edit, d the same in the whole store.
        `supersedes` maps a position in `edits` to the ids of the live edits it replaces (NotLive
        when one is no longer live, TooNarrow when more people see it). `status` is live, or
        pending or proposed for one that waits. With `seen`, Stale is raised when the epoch is no
        longer that one. Edits with keys that were all recorded before are returned as they are
        now, and nothing is written.
        """
        if status not in ("live", "pending", "proposed"):
            raise ValueError(f"an edit cannot begin as {status}")
        if supersedes and status != "live":
            raise ValueError(f"a {status} edit supersedes nothing before it is live")
        blobs = rows.vector_rows(vectors, len(edits))
        with self._file.transaction() as db:
            if before := self._recorded_before(db, edits):
                return before
            if seen is not None and seen != chain.last_seq(db):
                raise Stale(f"The journal is at epoch {chain.last_seq(db)}, not {seen}")
            rows.check_dimension(db, blobs)
            patch_id = rows.insert_patch(db, patch)
            recorded = []
            for position, (edit, vector) in enumerate(zip(edits, blobs, strict=True)):
                over = supersedes.get(position, ())
                epoch = chain.last_seq(db) + len(over) + 1
                recorded.append(rows.insert_edit(db, edit, vector, epoch=epoch, status=status))
                state = State(recorded[-1].id, status, patch_id, position)
                if status == "live":
                    life.rise(db, state, over, {})
                else:
                    chain.append(db, state)
        return recorded

    def approve(
        self,
        id: int,
        patch: Patch | None = None,
        *,
        supersedes: Iterable[int] = (),
        reason: str = "",
    ) -> Edit:
        """A pending edit goes live, with a `patch` of its own if it waited without one.

        Raises UnknownEdit, NotWaiting, NotLive, TooNarrow.
        """
        with self._step(id, ("pending",), NotWaiting) as (db, state):
            if patch is not None:
                state = replace(state, patch=rows.insert_patch(db, patch), position=0)
            life.rise(db, state, supersedes, {"reason": reason})
            return self.get(id)

    def reject(self, id: int, *, reason: str = "") -> Edit:
        """A pending or proposed edit shall not go live. Raises UnknownEdit, NotWaiting."""
        with self._step(id, life.WAITING, NotWaiting) as (db, state):
            life.fall(db, state, "rejected", {"reason": reason})
            return self.get(id)

    def promote(
        self, id: int, reach: Reach, *, supersedes: Iterable[int] = (), reason: str = ""
    ) -> Edit:
        """The edit is live for its author only, for his tenant, or for everyone.

        `supersedes` are live edits of the wider audience that it replaces. Narrowed again, it
        gives way to what it no longer covers. Raises UnknownEdit, WrongStatus, NotLive, TooNarrow.
        """
        with self._step(id, life.STANDING + life.WAITING, WrongStatus) as (db, state):
            life.promote(db, state, reach, supersedes, {"reason": reason})
            return self.get(id)

    def carry(self, ids: Sequence[int], patch: Patch, *, reason: str = "") -> list[Edit]:
        """From now on `patch` makes these live edits, the first at its first place, and so on.

        What made them before is no longer theirs. Raises UnknownEdit, NotLive.
        """
        with self._file.transaction() as db:
            states = [life.state(db, id) for id in ids]
            if fallen := [state.edit for state in states if state.kind != "live"]:
                raise NotLive(f"Edits {fallen} are not live, so no patch makes them")
            number = rows.insert_patch(db, patch)
            for position, now in enumerate(states):
                moved = replace(now, patch=number, position=position)
                chain.append(db, replace(moved, cause=now.edit), {"reason": reason})  # not risen
            return self.get_many(ids)

    def retire(
        self, id: int, *, kind: Status = "retired", reason: str = "", cause: int | None = None
    ) -> Edit:
        """Undo: the edit stands, or waits, no longer; it is `retired` or `quarantined`.

        What it had superseded is live again or, when this edit was itself superseded, stands
        below the edit that superseded it. What is the `cause` brings it back when it is restored
        itself. Raises UnknownEdit, AlreadyRetired.
        """
        if kind not in life.FALLEN:
            raise ValueError(f"an edit cannot be retired as {kind}")
        with self._step(id, life.STANDING + life.WAITING, AlreadyRetired) as (db, state):
            life.fall(db, state, kind, {"reason": reason}, cause=cause)
            return self.get(id)

    def restore(self, id: int, *, supersedes: Iterable[int] = (), reason: str = "") -> Edit:
        """Redo: the edit stands again where it stood: live, or superseded; or waits again.

        What it had superseded goes below it again, and if it is live so does what took its place
        meanwhile: whatever superseded those, and `supersedes`, live edits that only the caller
        knows to contradict it. What fell because of it stands again, too. Raises UnknownEdit,
        NotRetired (also when it was erased), NotLive.
        """
        with self._step(id, life.FALLEN, NotRetired) as (db, state):
            if rows.is_erased(db, id):
                raise NotRetired(f"Edit {id} was erased")
            life.restore(db, state, supersedes, {"reason": reason})
            for other in life.fallen_with(db, id):
                life.restore(db, other, (), {"reason": reason})
            return self.get(id)

    def arrange(self, places: Mapping[int, int | None]) -> None:
        """Each of these standing edits goes below the one named, or is live (None).

        For a caller that knows which edits contradict each other; what is so already stays as it
        is. Raises UnknownEdit, WrongStatus, TooNarrow.
        """
        with self._file.transaction() as db:
            for id in (*places, *filter(None, places.values())):
                if (kind := life.state(db, id).kind) not in life.STANDING:
                    raise WrongStatus(f"Edit {id} is {kind}")
            life.arrange(db, places)

    def expire(self, now: datetime | None = None) -> list[Edit]:
        """End the edits whose `valid_until` is not after `now` (aware; None: the clock's)."""
        time = utc(now or datetime.now(UTC))
        with self._file.transaction() as db:
            over = views.overdue(db, time)
            for id in over:
                life.fall(db, life.state(db, id), "expired", {"valid_until": time})
            return self.get_many(over)

    def erase(self, ids: Iterable[int], *, reason: str = "") -> list[Edit]:
        """Wipe texts, vectors and patch texts of these edits for good; the hash chain stays whole.

        An edit that stood is retired. Older backups and exports are the caller's to delete, the
        cache goes. UnknownEdit when one does not exist.
        """
        with self._file.transaction() as db:
            for id in (erased := [int(id) for id in ids]):
                state = life.state(db, id)
                life.fall(db, state, "retired", {"reason": reason, **rows.wipe(db, id)})
            found = self.get_many(erased)
        self._file.forget_log()
        shutil.rmtree(self.cache, ignore_errors=True)
        return found

    def note(self, reading: Reading) -> Reading:
        """Keep a reading, stamped with time and present epoch; the epoch does not advance."""
        with self._file.transaction() as db:
            stamp = (rows.next_id(db, "reading"), chain.last_seq(db), utc(datetime.now(UTC)))
            db.execute(
                "INSERT INTO reading (id, epoch, time, body) VALUES (?, ?, ?, ?)",
                (*stamp, canonical(reading.body)),
            )
        return Reading(reading.body, *stamp)

    def add_facts(self, new: Iterable[Reference]) -> list[Reference]:
        """Keep facts for reference; those that were not there, with ids. The epoch stays."""
        with self._file.transaction() as db:
            return facts.add(db, new)

    def drop_facts(self, ids: Iterable[int] | None = None) -> int:
        """Keep these facts no longer (None: none of them); how many went. The epoch stays."""
        with self._file.transaction() as db:
            return facts.drop(db, ids)

    # -- reading ---------------------------------------------------------------------------------

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """The reads inside the block see one state of the file; keep it short: writers may wait."""
        with self._file.snapshot():
            yield

    @property
    def epoch(self) -> int:
        """The number of the last event; 0 when there is none."""
        with self._file.snapshot() as db:
            return chain.last_seq(db)

    def get(self, id: int, at: int | None = None) -> Edit:
        """One edit with its status then; UnknownEdit when it was not recorded yet."""
        found = self.get_many([id], at)
        if not found:
            raise UnknownEdit(f"There is no edit {id}{'' if at is None else f' at epoch {at}'}")
        return found[0]

    def get_many(self, ids: Iterable[int], at: int | None = None) -> list[Edit]:
        """The edits with these ids that were recorded by then, by id."""
        with self._file.snapshot() as db:
            return views.edits(db, at, ids=ids)

    def edits(
        self,
        status: Status | None = None,
        at: int | None = None,
        *,
        audience: Audience | None = None,
    ) -> list[Edit]:
        """Every edit ever acknowledged by id: with this status, visible to this audience.

        Without `audience` it is the whole store's list, for its keeper; never serve that to users.
        """
        with self._file.snapshot() as db:
            return views.edits(db, at, status=status, audience=audience)

    def newest(
        self, limit: int, *, before: int | None = None, status: Status | None = None
    ) -> list[Edit]:
        """At most `limit` edits from below id `before`, the newest first: of any, or one, status.

        The whole store's list, page by page, for its keeper; `before` is the last id of a page.
        """
        with self._file.snapshot() as db:
            return views.newest(db, limit, before=before, status=status)

    def live(self, at: int | None = None, *, audience: Audience | None = None) -> list[Edit]:
        """The live edits by id, of the whole store or those visible to `audience`."""
        return self.edits("live", at, audience=audience)

    def counts(self) -> dict[Status, int]:
        """How many edits have each status."""
        with self._file.snapshot() as db:
            return views.counts(db)

    def authored(self, user_id: str | None, tenant: str | None = None) -> list[Edit]:
        """What this user said, whatever became of it and however far it was promoted.

        Users belong to their tenant; without `user_id` it is what all users of `tenant` said.
        """
        if user_id is None and tenant is None:
            raise ValueError("name a user, a tenant or both")
        with self._file.snapshot() as db:
            return views.edits(db, None, ids=views.authored(db, user_id, tenant))

    def live_ids(self, at: int | None = None) -> list[int]:
        """The ids of the live edits, in order."""
        with self._file.snapshot() as db:
            return views.ids(db, at, "live")

    def standing_ids(self, at: int | None = None) -> list[int]:
        """The ids of the edits that are live or superseded, in order."""
        with self._file.snapshot() as db:
            return views.ids(db, at, *life.STANDING)

    def written_ids(self, at: int | None = None) -> list[int]:
        """The ids of the live edits of which the patch changes the model for every text."""
        with self._file.snapshot() as db:
            return views.written(db, at)

    def hooked_ids(self, at: int | None = None) -> list[int]:
        """The ids of the live edits that act inside the model in their scope, in order."""
        with self._file.snapshot() as db:
            return views.hooked(db, at)

    def rose(self, ids: Iterable[int]) -> dict[int, int]:
        """The epoch at which each of `ids` last went live by itself, not because another fell."""
        with self._file.snapshot() as db:
            return views.rose(db, ids)

    def recorded_before(self, edits: Sequence[Edit]) -> list[Edit]:
        """What became of `edits` if their keys were all recorded before, else none. KeyReused."""
        with self._file.snapshot() as db:
            return self._recorded_before(db, edits)

    def data_version(self) -> int:
        """A number that changes when another connection commits: cheaper than `epoch`."""
        return self._file.data_version()

    def patches(self, at: int | None = None, ids: Iterable[int] | None = None) -> list[StoredPatch]:
        """The patches with a live edit (one of `ids`), in the order they were recorded."""
        with self._file.snapshot() as db:
            return views.patches(db, at, ids)

    def lapsed(self) -> list[StoredPatch]:
        """The deltas that are in no weights now and could be again, by a redo; in order."""
        with self._file.snapshot() as db:
            return views.lapsed(db)

    def made(self, ids: Iterable[int], at: int | None = None) -> dict[int, Made]:
        """What patches have for those of `ids` that are live: a text, or the rows of a hook.

        For an edit that changes the model for every text that is None, without a patch "".
        """
        with self._file.snapshot() as db:
            return views.made(db, at, ids)

    def vectors(
        self, ids: Iterable[int] | None = None, at: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids (n,) int64 and vectors (n, d) float32, by id: of what is live, or of `ids`.

        An edit without a vector is left out; without any, the matrix is (0, 0).
        """
        with self._file.snapshot() as db:
            return views.vectors(db, at, ids)

    def history(self, id: int | None = None, since: int = 0) -> list[Event]:
        """The events after epoch `since` in order: all, or those of one edit (UnknownEdit)."""
        with self._file.snapshot() as db:
            if id is not None:
                life.state(db, id)
            return views.history(db, id, since)

    def facts(self, at: int | None = None) -> list[Reference]:
        """The facts for reference by id: all, or those at an earlier epoch."""
        with self._file.snapshot() as db:
            return facts.read(db, at)

    def facts_stamp(self) -> tuple[int, int]:
        """What changes whenever the facts do."""
        with self._file.snapshot() as db:
            return facts.stamp(db)

    def readings(self, since: int = 0) -> list[Reading]:
        """The readings noted at epoch `since` or later, in order."""
        with self._file.snapshot() as db:
            return views.readings(db, since)

    def chain_hash(self, at: int) -> str:
        """The hash of the event at epoch `at`: journals that agree in it agree up to there."""
        with self._file.snapshot() as db:
            return chain.hash_at(db, at)

    def follow(self, since: int, stop: Signal) -> Iterator[list[Event]]:
        """The events after `since` as they are committed, by this or any process, until `stop`.

        Each list is whole transactions, in order, at most 0.1 s after the commit.
        """
        with closing(File(self.path, create=False, write=False)) as own:
            yield from views.follow(own, since, stop)

    def export(self, folder: str | Path) -> Path:
        """Write all edits that were not erased, their vectors and patches into a new `folder`."""
        with self._file.snapshot() as db:
            return pack.export(db, Path(folder))

    def import_(self, folder: str | Path) -> list[Edit]:
        """Add what `export` wrote, in one transaction; the edits that were not here yet.

        An edit that is here keeps its own fate, unless a new one supersedes it. Raises
        DamagedPack, WrongBase, WrongEncoder.
        """
        with self._file.transaction() as db:
            return self.get_many(pack.import_(db, Path(folder)))

    def verify(self) -> int:
        """Check every page, the hash chain, and every text, vector and patch; the epoch.

        DamagedDatabase names the first broken row and its time.
        """
        with self._file.snapshot() as db:
            return chain.verify(db)

    def damaged(self, since: int, until: int) -> list[int]:
        """The ids of the edits of these events that are not what was written: `verify` in parts.

        An event counts with its edit's text and vector and with its patch's bytes.
        """
        with self._file.snapshot() as db:
            return chain.damaged(db, since, until)

    def backup(self, target: str | Path) -> Path:
        """A verified copy of the store as of now at `target`, which must not exist yet.

        `store.put_back` is the way back.
        """
        copy = backup.save(self._file, Path(target))
        backup.check(copy)
        return copy

    # -- inside ----------------------------------------------------------------------------------

    @contextmanager
    def _step(
        self, id: int, expected: Container[Status], error: type[WrongStatus]
    ) -> Iterator[tuple[Database, State]]:
        """One transaction on one edit, which must have one of the `expected` statuses."""
        with self._file.transaction() as db:
            state = life.state(db, id)
            if state.kind not in expected:
                raise error(f"Edit {id} is {state.kind}")
            yield db, state

    def _recorded_before(self, db: Database, edits: Sequence[Edit]) -> list[Edit]:
        ids = [rows.recorded_before(db, edit) for edit in edits]
        known = [id for id in ids if id is not None]
        if known and len(known) < len(ids):
            raise KeyReused(f"Edits {known} of this batch were recorded before, the others not")
        return self.get_many(known)
