"""What becomes of an edit: who supersedes whom, and who comes back when one falls.

The standing edits (live or superseded) form a forest: a superseded edit stands below the one that
its last event names as cause, a live edit is a root. An edit *rises* when it is recorded,
approved or restored, and takes live edits under it; it *falls* when it is retired, and what stood
below it moves up to where it stood. So undoing an edit in the middle leaves the newest one live,
undoing all of them brings the first one back, and undo followed by redo changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sqlite_utils import Database

from store.chain import State, append
from store.errors import NotLive, UnknownEdit
from store.records import JSON, Status

STANDING = ("live", "superseded")

_COLUMNS = "edit, kind, patch, position, audience, cause"


def state(db: Database, edit: int) -> State:
    """What the last event of the edit says; UnknownEdit when there is none."""
    found = _last(db, edit)
    if found is None:
        raise UnknownEdit(f"There is no edit {edit}")
    return found


def rise(
    db: Database, risen: State, over: Iterable[int], body: Mapping[str, JSON] | None = None
) -> None:
    """The edit goes live; the live edits `over` are superseded by it. NotLive if one is not."""
    for below in over:
        old = state(db, below)
        if old.kind != "live":
            raise NotLive(f"Edit {below} is {old.kind} and cannot be superseded")
        append(db, replace(old, kind="superseded", cause=risen.edit))
    append(db, replace(risen, kind="live", cause=None), body)


def fall(db: Database, fallen: State, kind: Status, body: Mapping[str, JSON]) -> None:
    """The edit stops standing, as `kind`; what stood directly below it takes its place."""
    below = _below(db, fallen.edit)
    append(db, replace(fallen, kind=kind, cause=None), body)
    for child in below:
        if fallen.kind == "superseded":
            append(db, replace(child, cause=fallen.cause))
        else:
            append(db, replace(child, kind="live", cause=fallen.edit))


def restore(db: Database, fallen: State, over: Iterable[int], body: Mapping[str, JSON]) -> None:
    """The edit stands again where it stood before it fell, above what was below it.

    If that makes it live, it is also above `over` and whatever else is live above those.
    """
    above = _heir(db, fallen.edit)
    once_below = [s for s in _once_below(db, fallen.edit) if s.kind in STANDING]
    if above is None:
        roots = {_root(db, child).edit for child in once_below}
        rise(db, fallen, sorted(roots.union(over)), body)
        return
    for child in once_below:
        if child.cause == above:
            append(db, replace(child, cause=fallen.edit))
    append(db, replace(fallen, kind="superseded", cause=above), body)


def _heir(db: Database, edit: int) -> int | None:
    """The standing edit that a fallen one stood below, or that inherited its place."""
    above: int | None = edit
    while above is not None:
        above = _stood_below(db, above)
        if above is not None and state(db, above).kind in STANDING:
            break
    return above


def _stood_below(db: Database, edit: int) -> int | None:
    """The cause of the last event that said `superseded`, unless the edit was live after it."""
    found = db.execute(
        "SELECT kind, cause FROM event WHERE edit = ? AND kind IN ('live', 'superseded')"
        " ORDER BY seq DESC LIMIT 1",
        (edit,),
    ).fetchone()
    return found[1] if found and found[0] == "superseded" else None


def _root(db: Database, standing: State) -> State:
    while standing.kind == "superseded" and standing.cause is not None:
        standing = state(db, standing.cause)
    return standing


def _below(db: Database, edit: int) -> list[State]:
    """Those whose last event says that `edit` supersedes them."""
    return [s for s in _once_below(db, edit) if s.kind == "superseded" and s.cause == edit]


def _once_below(db: Database, edit: int) -> list[State]:
    """The present state of all that `edit` ever superseded."""
    once = db.execute(
        "SELECT DISTINCT edit FROM event WHERE cause = ? AND kind = 'superseded' ORDER BY edit",
        (edit,),
    ).fetchall()
    return [state(db, child) for (child,) in once]


def _last(db: Database, edit: int) -> State | None:
    found = db.execute(
        f"SELECT {_COLUMNS} FROM event WHERE edit = ? ORDER BY seq DESC LIMIT 1", (edit,)
    ).fetchone()
    return State(*found) if found else None
