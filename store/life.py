"""What becomes of an edit: who supersedes whom, and who comes back when one falls.

The standing edits (live or superseded) form a forest: a superseded edit stands below the one that
its last event names as cause, a live edit is a root. An edit *rises* when it is recorded,
approved or restored, and takes live edits under it; it *falls* when it is retired, and what stood
below it moves up to where it stood. So undoing an edit in the middle leaves the newest one live,
undoing all of them brings the first one back, and undo followed by redo changes nothing. Nothing
stands below an edit that is live for fewer people. What falls along with another rises with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sqlite_utils import Database

from store.chain import State, append
from store.errors import NotLive, TooNarrow, UnknownEdit
from store.records import JSON, Audience, Reach, Status

STANDING: tuple[Status, ...] = ("live", "superseded")
WAITING: tuple[Status, ...] = ("pending", "proposed")
FALLEN: tuple[Status, ...] = ("retired", "quarantined")
_COLUMNS = "edit, kind, patch, position, reach, cause"

Body = Mapping[str, JSON]


def state(db: Database, edit: int) -> State:
    """What the last event of the edit says; UnknownEdit when there is none."""
    try:
        found = db.execute(
            f"SELECT {_COLUMNS} FROM event WHERE edit = ? ORDER BY seq DESC LIMIT 1", (edit,)
        ).fetchone()
    except OverflowError:  # SQLite cannot hold such a number, so no edit has it
        found = None
    if found is None:
        raise UnknownEdit(f"There is no edit {edit}")
    return State(*found)


def rise(db: Database, risen: State, over: Iterable[int], body: Body) -> None:
    """The edit goes live; the live edits `over` are superseded by it. NotLive, TooNarrow."""
    for below in over:
        old = state(db, below)
        if old.kind != "live":
            raise NotLive(f"Edit {below} is {old.kind} and cannot be superseded")
        if not _covers(db, risen, old):
            raise TooNarrow(f"Edit {risen.edit} cannot replace edit {below}, which more people see")
        append(db, replace(old, kind="superseded", cause=risen.edit))
    append(db, replace(risen, kind="live", cause=None), body)


def fall(
    db: Database, fallen: State, kind: Status, body: Body, *, cause: int | None = None
) -> None:
    """The edit stops standing, as `kind`; what stood directly below it takes its place."""
    below = _below(db, fallen.edit)
    append(db, replace(fallen, kind=kind, cause=cause), body)
    _move_up(db, below, fallen)


def fallen_with(db: Database, edit: int) -> list[State]:
    """The present state of all that fell because `edit` did, and still lie."""
    return [s for s in _caused(db, edit, FALLEN) if s.kind in FALLEN and s.cause == edit]


def restore(db: Database, fallen: State, over: Iterable[int], body: Body) -> None:
    """The edit stands again where it stood before it fell, above what was below it; or waits again.

    If that makes it live, it is also above `over` and whatever else is live above those.
    """
    before = _last_place(db, fallen.edit)
    if before.kind in WAITING:
        append(db, replace(before, reach=fallen.reach), body)
        return
    above = _heir(db, fallen)
    once_below = [s for s in _once_below(db, fallen.edit) if s.kind in STANDING]
    if above is None:
        roots = [_root(db, child) for child in once_below]
        covered = {root.edit for root in roots if _covers(db, fallen, root)}
        rise(db, fallen, sorted(covered.union(over)), body)
        return
    for child in once_below:
        if child.cause == above and _covers(db, fallen, child):
            append(db, replace(child, cause=fallen.edit))
    append(db, replace(fallen, kind="superseded", cause=above), body)


def promote(db: Database, now: State, reach: Reach, over: Iterable[int], body: Body) -> None:
    """More or fewer people see the edit; what it no longer covers, or is covered by, moves up."""
    moved = replace(now, reach=reach)
    hidden = now.cause if now.kind == "superseded" else None
    if now.kind in STANDING and (hidden is None or not _covers(db, state(db, hidden), moved)):
        rise(db, moved, over, body)
    else:
        append(db, moved, body)
    _move_up(db, [s for s in _below(db, now.edit) if not _covers(db, moved, s)], now)


def arrange(db: Database, places: Mapping[int, int | None]) -> None:
    """Standing edits go below the one that `places` names, or are live (None). TooNarrow."""
    for edit, above in places.items():
        now = state(db, edit)
        if above is None and now.kind == "superseded":
            append(db, replace(now, kind="live", cause=now.cause))
        elif above is not None and (now.kind == "live" or now.cause != above):
            if not _covers(db, state(db, above), now):
                raise TooNarrow(f"Edit {above} cannot replace edit {edit}, which more people see")
            append(db, replace(now, kind="superseded", cause=above))


def _move_up(db: Database, below: Iterable[State], left: State) -> None:
    """These no longer stand below `left`, but where that stood."""
    for child in below:
        if left.kind == "superseded":
            append(db, replace(child, cause=left.cause))
        else:
            append(db, replace(child, kind="live", cause=left.edit))


def _heir(db: Database, fallen: State) -> int | None:
    """The standing edit that a fallen one stood below, or that inherited its place."""
    place = _last_place(db, fallen.edit)
    while place.kind == "superseded" and place.cause is not None:
        heir = state(db, place.cause)
        if heir.kind in STANDING and _covers(db, heir, fallen):
            return heir.edit
        place = _last_place(db, heir.edit)
    return None


def _last_place(db: Database, edit: int) -> State:
    """Where the edit stood or waited last."""
    found = db.execute(
        f"SELECT {_COLUMNS} FROM event WHERE edit = ?"
        " AND kind IN ('live', 'superseded', 'pending', 'proposed') ORDER BY seq DESC LIMIT 1",
        (edit,),
    ).fetchone()
    return State(*found)


def _root(db: Database, standing: State) -> State:
    while standing.kind == "superseded" and standing.cause is not None:
        standing = state(db, standing.cause)
    return standing


def _below(db: Database, edit: int) -> list[State]:
    """Those whose last event says that `edit` supersedes them."""
    return [s for s in _once_below(db, edit) if s.kind == "superseded" and s.cause == edit]


def _once_below(db: Database, edit: int) -> list[State]:
    """The present state of all that `edit` ever superseded."""
    return _caused(db, edit, ("superseded",))


def _caused(db: Database, edit: int, kinds: Sequence[Status]) -> list[State]:
    """The present state of all to which one of `kinds` ever happened because of `edit`."""
    once = db.execute(
        "SELECT DISTINCT edit FROM event WHERE cause = ?"
        f" AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY edit",
        (edit, *kinds),
    ).fetchall()
    return [state(db, child) for (child,) in once]


def _covers(db: Database, upper: State, lower: State) -> bool:
    return _audience(db, upper).covers(_audience(db, lower))


def _audience(db: Database, of: State) -> Audience:
    user_id, tenant = db.execute(
        "SELECT user_id, tenant FROM content WHERE edit = ?", (of.edit,)
    ).fetchone() or (None, None)
    return Audience(
        user_id if of.reach == "author" else None, None if of.reach == "everyone" else tenant
    )
