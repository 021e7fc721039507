"""The vector index: which live edits are nearest to a prompt. A view, rebuilt from the journal.

Best inner products of unit vectors first, equal ones by id. Up to `EXACT` vectors the search is
exact, so the answer depends on what is inside and not on how it came there. A larger index has a
`Base` of inverted lists below, which may overlook a distant neighbour; what was added since it was
built is searched exactly, and every score is exact.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Self

import faiss
import numpy as np

from store.base import Base, Ids, Matrix
from store.rows import are_unit

EXACT = 100_000  # a scan of so many takes 7 ms; inverted lists take 2 at ten times as many
_FEW = 2_000  # candidates that are scored one by one sooner than a search finds the best of them
_SPARE = 16  # more nominees than asked for: 8-bit codes rank near neighbours roughly
_ROUNDING = 1e-5  # more than float32 inner products of unit vectors differ by order of summation


class VectorIndex:
    """Ids and unit float32 vectors of `dim` numbers. Safe for threads."""

    def __init__(self, dim: int, base: Base | None = None) -> None:
        self._dim = dim
        self._lock = Lock()
        self._base = base
        self._ids: set[int] = set()  # of those in the flat part
        self._flat = faiss.index_factory(dim, "IDMap2,Flat", faiss.METRIC_INNER_PRODUCT)

    @classmethod
    def of(cls, ids: Ids, matrix: Matrix) -> Self:
        """The index of `ids` (n,) ascending and `matrix` (n, d), as `Journal.vectors` has them.

        A large matrix stays in use: it may be mapped from a file, and must not change.
        """
        if len(ids) > EXACT:
            return cls(matrix.shape[1], Base.build(ids, matrix))
        index = cls(matrix.shape[1])
        index.add(ids, matrix)
        return index

    def __len__(self) -> int:
        with self._lock:
            return len(self._ids) + (len(self._base) if self._base else 0)

    def ids(self) -> list[int]:
        """The ids inside, in order."""
        with self._lock:
            return sorted([*self._ids, *(self._base.inside().tolist() if self._base else ())])

    def add(self, ids: Sequence[int] | Ids, vectors: Matrix) -> None:
        """Add one unit vector per id: (n,), (n, d). ValueError for an id already inside."""
        matrix = self._checked(vectors, len(ids))
        new = [int(id) for id in ids]
        with self._lock:
            if len(set(new)) < len(new) or self._held(new):
                raise ValueError("an id can be in the index only once")
            rows = [
                row
                for row, id in enumerate(new)
                if self._base is None or not self._base.come_back(id, matrix[row])
            ]
            fresh = np.array(new, np.int64)[rows]
            self._flat.add_with_ids(matrix[rows], fresh)
            self._ids.update(fresh.tolist())

    def remove(self, ids: Iterable[int]) -> None:
        """Forget these ids. ValueError for one that is not inside."""
        old = {int(id) for id in ids}
        with self._lock:
            if missing := old - self._held(old):
                raise ValueError(f"not in the index: {sorted(missing)}")
            flat = old & self._ids
            self._flat.remove_ids(faiss.IDSelectorBatch(np.array(sorted(flat), np.int64)))
            self._ids -= flat
            if self._base:
                self._base.leave(self._base.held(old - flat))

    def search(
        self, vector: Matrix, k: int, among: Iterable[int] | None = None
    ) -> list[tuple[int, float]]:
        """The `k` best (id, inner product) for one unit vector (d,), of all or `among` some ids."""
        query = self._checked(vector[np.newaxis], 1)
        with self._lock, _one_thread():
            nominees = self._nominees(query, k, None if among is None else self._held(among))
            return self._ranked(query, nominees, k)

    def vectors(self, ids: Sequence[int] | Ids) -> Matrix:
        """The vectors of `ids`, in their order: (n, d). ValueError for one that is not inside."""
        wanted = np.array(ids, np.int64)
        with self._lock:
            if len(self._held(wanted.tolist())) < len(set(wanted.tolist())):
                raise ValueError("not every id is in the index")
            return self._vectors(wanted)

    def _held(self, ids: Iterable[int]) -> set[int]:
        asked = set(ids)
        flat = asked & self._ids
        return flat | set(self._base.held(asked - flat).tolist()) if self._base else flat

    def _vectors(self, ids: Ids) -> Matrix:
        matrix = np.empty((len(ids), self._dim), np.float32)
        flat = np.array([id in self._ids for id in ids.tolist()], bool)
        if flat.any():
            matrix[flat] = self._flat.reconstruct_batch(ids[flat])
        if self._base and not flat.all():
            matrix[~flat] = self._base.vectors(ids[~flat])
        return matrix

    def _nominees(self, query: Matrix, k: int, among: set[int] | None) -> Ids:
        """Ids among which the k best are."""
        if among is not None and len(among) <= _FEW:
            return np.array(sorted(among), np.int64)
        flat = self._flat_nominees(query, k, None if among is None else among & self._ids)
        if self._base is None:
            return flat
        held = None if among is None else self._base.held(among - self._ids)
        return np.concatenate([flat, self._base.nominate(query, k + _SPARE, held)])

    def _flat_nominees(self, query: Matrix, k: int, among: set[int] | None) -> Ids:
        """Ids of the k best, and of every other that comes as close as the last of them."""
        params = None
        if among is not None:
            chosen = faiss.IDSelectorBatch(np.array(sorted(among), np.int64))
            params = faiss.SearchParameters(sel=chosen)  # type: ignore[call-arg]
        scores, ids = self._flat.search(query, k + 1, params=params)
        if ids[0, k] >= 0 and scores[0, k - 1] - scores[0, k] <= _ROUNDING:
            nearly = float(scores[0, k - 1]) - _ROUNDING
            _, _, ids = self._flat.range_search(query, nearly, params=params)
            return ids
        found: Ids = ids[0][ids[0] >= 0]
        return found

    def _ranked(self, query: Matrix, ids: Ids, k: int) -> list[tuple[int, float]]:
        """Exact scores; summed row by row in float64, they do not depend on the neighbours."""
        matrix = self._vectors(ids)
        if len(ids) > k:
            rough = matrix @ query[0]
            close = rough >= np.partition(rough, -k)[-k] - _ROUNDING
            ids, matrix = ids[close], matrix[close]
        scores = (matrix.astype(np.float64) * query).sum(axis=1).astype(np.float32)
        order = np.lexsort((ids, -scores))[:k]
        return [(int(ids[i]), float(scores[i])) for i in order]

    def _checked(self, vectors: Matrix, n: int) -> Matrix:
        if vectors.dtype != np.float32 or vectors.shape != (n, self._dim):
            raise ValueError(
                f"expected float32 ({n}, {self._dim}), got {vectors.dtype} {vectors.shape}"
            )
        if not are_unit(vectors).all():
            raise ValueError("vectors must have length 1")
        return np.ascontiguousarray(vectors)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One query is too small to share out, and the setting belongs to the calling thread."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
