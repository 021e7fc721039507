"""Later patches made again as if an edit had never been made: what `undo(id, replay=True)` does.

    before   p1  p2  p3  p4        p2 made the edit
    after    p1  p2' p3' p4'       each proposed anew, while only those before it are installed

A plain undo leaves what was trained beside the edit as it is, to the last bit. Replayed, it is what
a model has that was given the other edits only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lifelong.lm import LM
from lifelong.methods import Method, WeightMethod
from lifelong.weights import BASE, Weights
from store import Journal, Patch, StoredPatch

Remade = tuple[tuple[int, ...], Patch]  # the ids of the edits, in order, and what makes them now


def remade(
    lm: LM,
    weights: Weights,
    methods: Mapping[str, Method],
    patches: tuple[Sequence[StoredPatch], Sequence[StoredPatch]],
    journal: Journal,
) -> list[Remade]:
    """Of the `patches` before and after an undo, in journal order: those to be made again.

    Nothing is installed or written. Raises as the methods do (NotLearnt, UpdateRejected, ...).
    """
    before, after = patches
    gone = {id for stored in before for id in stored.live} - {i for s in after for i in s.live}
    first = min((stored.id for stored in before if stored.live & gone), default=None)
    if first is None:
        return []
    kept = [stored for stored in after if stored.id < first]
    none = frozenset[int]()
    lapsed = [replace(stored, live=none) for stored in before if stored.live & gone]
    lapsed += journal.lapsed()
    found: list[Remade] = []
    for stored in after[len(kept) :]:
        how = methods[stored.patch.method]
        assert isinstance(how, WeightMethod)
        placed = sorted(zip(stored.positions, stored.edits, strict=True))
        ids = tuple(id for _, id in placed if id in stored.live)
        by_id = {edit.id: edit for edit in journal.get_many(ids)}
        with weights.held(BASE):
            how.prepare(lm)
        with weights.held(weights.state(kept)):
            patch = how.propose(lm, [by_id[id] for id in ids], [*lapsed, *kept])
        weights.check(patch)
        kept.append(StoredPatch(stored.id, patch, ids, frozenset(ids), tuple(range(len(ids)))))
        found.append((ids, patch))
    return found
