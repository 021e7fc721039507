"""The index answers as a sorted list would, whatever the order of its insertions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import VectorIndex
from tests.store.samples import DIM, unit

OPERATIONS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=40)


def brute(vectors: dict[int, np.ndarray], query: np.ndarray, k: int) -> list[tuple[int, float]]:
    scores = [
        (i, float(np.float32((v.astype(float) * query.astype(float)).sum())))
        for i, v in vectors.items()
    ]
    return sorted(scores, key=lambda hit: (-hit[1], hit[0]))[:k]


@given(OPERATIONS, st.integers(1, 12))
def test_index_equals_a_dict_after_any_adds_and_removes(
    operations: list[tuple[int, int]], k: int
) -> None:
    index, truth = VectorIndex(DIM), dict[int, np.ndarray]()
    for id, seed in operations:  # few seeds: equal vectors are common
        if id in truth:
            index.remove([id])
            del truth[id]
        else:
            truth[id] = unit(seed)[0]
            index.add([id], unit(seed))
    query = unit(99)[0]
    assert index.ids() == sorted(truth)
    assert len(index) == len(truth)
    assert index.search(query, k) == brute(truth, query, k)
    some = [id for id in truth if id % 2]
    assert index.search(query, k, among=some) == brute({i: truth[i] for i in some}, query, k)


@given(st.permutations(range(8)), st.integers(1, 8))
def test_insertion_order_does_not_matter(order: list[int], k: int) -> None:
    matrix = unit(*[seed // 3 for seed in range(8)])
    index = VectorIndex.of(np.array(order), matrix[order])
    assert index.search(unit(5)[0], k) == VectorIndex.of(np.arange(8), matrix).search(unit(5)[0], k)


def test_misuse_is_refused() -> None:
    index = VectorIndex.of(np.array([3]), unit(3))
    with pytest.raises(ValueError, match="only once"):
        index.add([3], unit(4))
    with pytest.raises(ValueError, match="only once"):
        index.add([4, 4], unit(4, 4))
    with pytest.raises(ValueError, match="not in the index"):
        index.remove([4])
    with pytest.raises(ValueError, match="length 1"):
        index.add([4], 2 * unit(4))
    with pytest.raises(ValueError, match="expected float32"):
        index.search(unit(4)[0].astype(np.float64), 1)
    assert index.ids() == [3]


def test_an_empty_index_finds_nothing() -> None:
    assert VectorIndex(DIM).search(unit(1)[0], 5) == []
