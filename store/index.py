"""The vector index: which live edits are nearest to a prompt. A view, rebuilt from the journal.

Exact inner products over unit vectors, best first, equal scores by id; the answer depends on what
is inside, not on the order in which it came.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Self, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

IdArray: TypeAlias = npt.NDArray[np.int64]
_ROUNDING = 1e-5  # more than float32 inner products of unit vectors differ by order of summation


class VectorIndex:
    """Ids and unit float32 vectors of `dim` numbers, in memory only. Safe for threads."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._lock = Lock()
        self._ids: set[int] = set()
        self._flat = faiss.index_factory(dim, "IDMap2,Flat", faiss.METRIC_INNER_PRODUCT)

    @classmethod
    def of(cls, ids: np.ndarray, matrix: np.ndarray) -> Self:
        """The index of `ids` (n,) and `matrix` (n, d), as `Journal.vectors` returns them."""
        index = cls(matrix.shape[1])
        index.add(ids, matrix)
        return index

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> list[int]:
        """The ids inside, in order."""
        return sorted(self._ids)

    def add(self, ids: Sequence[int] | np.ndarray, vectors: np.ndarray) -> None:
        """Add one unit vector per id: (n,), (n, d). ValueError for an id already inside."""
        matrix = self._checked(vectors, len(ids))
        new = [int(id) for id in ids]
        with self._lock:
            if len(set(new)) < len(new) or self._ids.intersection(new):
                raise ValueError("an id can be in the index only once")
            self._flat.add_with_ids(matrix, np.array(new, np.int64))
            self._ids.update(new)

    def remove(self, ids: Iterable[int]) -> None:
        """Forget these ids. ValueError for one that is not inside."""
        old = {int(id) for id in ids}
        with self._lock:
            if not old <= self._ids:
                raise ValueError(f"not in the index: {sorted(old - self._ids)}")
            self._flat.remove_ids(faiss.IDSelectorBatch(np.array(sorted(old), np.int64)))
            self._ids -= old

    def search(
        self, vector: np.ndarray, k: int, among: Iterable[int] | None = None
    ) -> list[tuple[int, float]]:
        """The `k` best (id, inner product) for one unit vector (d,), of all or `among` some ids."""
        query = self._checked(vector[np.newaxis], 1)
        with self._lock, _one_thread():
            return self._ranked(query, self._candidates(query, k, among))[:k]

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """The vectors of `ids`: (n, d) float32. RuntimeError for an id that is not inside."""
        with self._lock:
            found: np.ndarray = self._flat.reconstruct_batch(np.array(ids, np.int64))
        return found

    def _candidates(self, query: np.ndarray, k: int, among: Iterable[int] | None) -> IdArray:
        """Ids of the k best and of every other that comes as close as the last of them."""
        params = None if among is None else _selecting(among)
        scores, ids = self._flat.search(query, k + 1, params=params)
        found = ids[0] >= 0
        if found.sum() > k and scores[0, k - 1] - scores[0, k] <= _ROUNDING:
            nearly = float(scores[0, k - 1]) - _ROUNDING
            _, _, ids = self._flat.range_search(query, nearly, params=params)
            return ids
        close: IdArray = ids[0][found]
        return close

    def _ranked(self, query: np.ndarray, ids: np.ndarray) -> list[tuple[int, float]]:
        """Exact scores; summed row by row in float64, they do not depend on the neighbours."""
        if not len(ids):
            return []
        matrix = self._flat.reconstruct_batch(ids).astype(np.float64)
        scores = (matrix * query).sum(axis=1).astype(np.float32)
        order = np.lexsort((ids, -scores))
        return [(int(ids[i]), float(scores[i])) for i in order]

    def _checked(self, vectors: np.ndarray, n: int) -> np.ndarray:
        if vectors.dtype != np.float32 or vectors.shape != (n, self._dim):
            raise ValueError(
                f"expected float32 ({n}, {self._dim}), got {vectors.dtype} {vectors.shape}"
            )
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):
            raise ValueError("vectors must have length 1")
        return np.ascontiguousarray(vectors)


def _selecting(among: Iterable[int]) -> faiss.SearchParameters:
    ids = np.fromiter((int(id) for id in among), np.int64)
    return faiss.SearchParameters(sel=faiss.IDSelectorBatch(ids))  # type: ignore[call-arg]


@contextmanager
def _one_thread() -> Iterator[None]:
    """One query is too small to share out, and the setting belongs to the calling thread."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
