"""Moving house: the edits of a store that was made for another base model or encoder.

Edits in memory come as they are, their vectors encoded anew. What acts inside the model in its own
scope is made anew for this one, or remembered where it is not learnt. What was in the weights is
remembered first; then each delta is consolidated again, as the batch that it was, through the gate.
A batch that the new weights do not hold stays in memory. The old store is only read.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lifelong.consolidate import Consolidation
from lifelong.encoder import Vectors
from lifelong.errors import EditRefused
from lifelong.lm import LM
from lifelong.methods import MemoryMethod, Method, SideMethod
from store import JSON, Edit, Journal, Patch, pack

REMEMBERED = "serac"  # how an edit that was made in the weights is answered from memory


@dataclass(frozen=True, slots=True)
class Moved:
    """The edits that were new here, and what became of each batch that was in the weights."""

    edits: tuple[int, ...]
    batches: tuple[Consolidation, ...]
    refused: tuple[str, ...]  # batches that could not even be tried: why

    def to_json(self) -> dict[str, JSON]:
        """All of it."""
        return {
            "edits": list(self.edits),
            "batches": [batch.to_json() for batch in self.batches],
            "refused": list(self.refused),
        }


def move(
    old: Journal,
    new: Journal,
    lm: LM,
    encode: Callable[[Sequence[Edit]], Vectors],
    methods: Mapping[str, Method],
) -> tuple[list[int], list[tuple[str, list[int]]]]:
    """Add the edits and facts of `old` to `new`, while no edit is installed; the ids that are new.

    And of every delta, which is answered from memory for now, in order, its method and the edits
    that it made live. Raises StoreError.
    """

    def remake(edit: Edit) -> tuple[Edit, Patch]:
        how = methods[edit.method]
        if isinstance(how, SideMethod):
            with suppress(EditRefused):
                return edit, how.propose(lm, [edit])
        if not isinstance(how, MemoryMethod):
            return remake(replace(edit, method=REMEMBERED))
        return edit, how.propose(lm, [edit])

    with TemporaryDirectory() as place:
        folder = old.export(Path(place) / "pack")
        deltas = pack.rebind(folder, new.meta, encode, remake)
        added = [edit.id for edit in new.import_(folder)]
        new.add_facts(old.facts())
    ids = {edit.key: edit.id for edit in new.get_many(added)}
    return added, [(method, [ids[key] for key in keys if key in ids]) for method, keys in deltas]
