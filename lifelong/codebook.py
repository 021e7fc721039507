"""Which edit does a hidden state belong to?  GRACE's codebook (Hartvigsen et al. 2023).

    key  ->  (label, radius)      one entry may own the keys of several edits of one label

A key farther from the nearest entry than its radius and the entry's together begins an entry. A
nearer one joins the entry, which grows to hold it, if the labels are equal; if not, it begins an
entry and both shrink to half the distance. Of two edits with one key the newer counts. Whenever an
entry begins, every owned key is asked again: one that is not answered with its label any more is
placed anew. A codebook is made by adding edits in order; to take one out, make it again without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import torch

from lifelong.encoder import Vectors
from lifelong.hooks import tracing
from lifelong.lm import LM
from lifelong.prompt import Slot
from store import Audience, Edit

_CANDIDATES = 4  # that are measured exactly
_APART = 1e-5  # of their distance: how far the balls of two labels stay from each other


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """The edit `id` says `label` at `key` (d,), and `radius` around it unless others are near."""

    id: int
    key: Vectors
    label: str
    radius: float


@dataclass(slots=True)
class _Entry:
    id: int
    label: str
    radius: float


class Codebook:
    """The entries that edits, added in the order of their ids, have made so far."""

    def __init__(self, dim: int) -> None:
        self._taught: dict[int, Taught] = {}
        self._entries: list[_Entry] = []
        self._owned: list[Taught] = []  # by entries that others began
        self._keys = faiss.IndexFlatL2(dim)
        self._made = True  # of all that was taught

    def __len__(self) -> int:
        """How many edits it answers."""
        return len(self._taught)

    @property
    def radii(self) -> dict[int, float]:
        """The radius of every entry, by the edit that began it."""
        self._make()
        return {entry.id: entry.radius for entry in self._entries}

    def add(self, edit: Taught) -> None:
        """One more edit; its label is compared letter for letter."""
        last = max(self._taught, default=0)
        self._taught[edit.id] = edit
        if self._made and edit.id > last:
            self._place(edit)
        else:
            self._made = False

    def remove(self, id: int) -> None:
        """As if this edit had never been added."""
        del self._taught[id]
        self._made = False

    def find(self, key: Vectors) -> tuple[int, float] | None:
        """The edit whose entry covers `key`, and how near it is: 1 at the centre, 0 at the rim."""
        self._make()
        found = self._covering(key)
        if found is None:
            return None
        entry, distance = found
        return entry.id, 1 - distance / entry.radius if distance else 1.0

    def _make(self) -> None:
        if not self._made:
            self._entries.clear()
            self._owned.clear()
            self._keys.reset()
            for id in sorted(self._taught):
                self._place(self._taught[id])
            self._made = True

    def _place(self, edit: Taught) -> None:
        found = self._nearest(edit.key)
        if found is None or found[1] > edit.radius + found[0].radius:
            self._begin(edit, edit.radius)
            return
        entry, distance = found
        if entry.label == edit.label:
            entry.radius = max(entry.radius, distance)
            self._owned.append(edit)
            return
        if not distance:
            self._replace(entry, edit)
            return
        entry.radius = min(entry.radius, distance / 2 * (1 - _APART))
        self._begin(edit, min(edit.radius, distance / 2))

    def _begin(self, edit: Taught, radius: float) -> None:
        self._keys.add(edit.key[None])
        self._entries.append(_Entry(edit.id, edit.label, radius))
        self._ask_again()

    def _replace(self, entry: _Entry, edit: Taught) -> None:
        """Of two edits with one key the newer counts."""
        if edit.id > entry.id:
            entry.id, entry.label = edit.id, edit.label
            self._ask_again()

    def _ask_again(self) -> None:
        answered = [self._says(one.key) == one.label for one in self._owned]
        lost = [one for one, kept in zip(self._owned, answered, strict=True) if not kept]
        self._owned = [one for one, kept in zip(self._owned, answered, strict=True) if kept]
        for one in lost:
            self._place(one)

    def _says(self, key: Vectors) -> str | None:
        found = self._covering(key)
        return found[0].label if found else None

    def _covering(self, key: Vectors) -> tuple[_Entry, float] | None:
        """The nearest entry, if `key` is within its radius, and its distance."""
        found = self._nearest(key)
        return found if found and found[1] <= found[0].radius else None

    def _nearest(self, key: Vectors) -> tuple[_Entry, float] | None:
        """The entry next to `key`, the newest edit's of equals, and its distance."""
        if not self._entries:
            return None
        _, (rows,) = self._keys.search(key[None], min(_CANDIDATES, len(self._entries)))
        keys = (np.asarray(self._keys.reconstruct(int(row))) for row in rows)
        near = [(self._entries[r], _distance(k, key)) for r, k in zip(rows, keys, strict=True)]
        return min(near, key=lambda found: (found[1], -found[0].id))


def _distance(a: Vectors, b: Vectors) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b))


class Books:
    """The codebooks of live edits: one for each audience and each module whose states decide."""

    def __init__(self) -> None:
        self._books: dict[tuple[Audience, str], Codebook] = {}
        self._where: dict[int, tuple[Audience, str]] = {}

    def __contains__(self, id: int) -> bool:
        return id in self._where

    @property
    def modules(self) -> set[str]:
        """Those whose states are asked for."""
        return {module for _, module in self._books}

    def add(self, edit: Edit, slot: Slot) -> None:
        """A live edit; one without a key is found otherwise, and left out."""
        if slot.key is not None:
            where = self._where[edit.id] = edit.audience, slot.module
            book = self._books.setdefault(where, Codebook(len(slot.key)))
            book.add(Taught(edit.id, slot.key, edit.target, slot.radius))

    def discard(self, id: int) -> None:
        """The edit is live no longer, if it was."""
        if where := self._where.pop(id, None):
            self._books[where].remove(id)
            if not len(self._books[where]):
                del self._books[where]

    def find(self, sensed: Mapping[str, Vectors], levels: Sequence[Audience]) -> dict[int, float]:
        """The edits for these audiences whose entry covers states (d,), and how near they are."""
        found = (
            self._books[level, module].find(key)
            for level in levels
            for module, key in sensed.items()
            if (level, module) in self._books
        )
        return dict(filter(None, found))


def states(lm: LM, module: str, texts: Sequence[str]) -> Vectors:
    """What enters `module` at the last token of each text: (n, d) float32.

    Each text runs alone, so that its state does not depend on the others.
    """
    found: list[torch.Tensor] = []
    looked = lm.model.get_submodule(module)

    def look(entered: torch.Tensor, _: torch.Tensor) -> None:
        found.append(entered[0, -1].float().cpu())

    for text in texts:
        ids = torch.tensor([lm.tokenizer.encode(text)], device=lm.device)
        with torch.inference_mode(), tracing(after={looked: look}, stop=looked):
            lm.model.base_model(input_ids=ids, use_cache=False)
    return torch.stack(found).numpy()
