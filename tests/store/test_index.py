"""The index answers as a sorted list would, whatever the order of its insertions."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import Edit, Journal, VectorIndex, open_index, snapshot
from store.base import Base
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


@given(OPERATIONS, st.integers(1, 12))
def test_a_large_index_forgets_and_finds_as_a_small_one(
    operations: list[tuple[int, int]], k: int
) -> None:
    """Over a base of inverted lists; so small a base has one list, and nothing is overlooked."""
    truth = {id: unit(id % 4)[0] for id in range(3, 9)}
    index = VectorIndex(DIM, Base.build(np.array(sorted(truth)), unit(*[i % 4 for i in truth])))
    for id, seed in operations:
        if id in truth:
            index.remove([id])
            del truth[id]
        else:
            truth[id] = unit(seed)[0]
            index.add([id], unit(seed))
    query = unit(99)[0]
    assert (index.ids(), len(index)) == (sorted(truth), len(truth))
    assert index.search(query, k) == brute(truth, query, k)
    some = [id for id in truth if id % 2]
    assert index.search(query, k, among=some) == brute({i: truth[i] for i in some}, query, k)
    assert all((index.vectors([id])[0] == truth[id]).all() for id in truth)


@pytest.fixture
def large_at_10(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "EXACT", 10)


def fill(journal: Journal, n: int) -> None:
    edits = [Edit(f"p{i}", f"t{i}") for i in range(n)]
    journal.record(edits, None, unit(*range(n)))


def same_answers(index: VectorIndex, journal: Journal) -> bool:
    exact = VectorIndex.of(*journal.vectors())
    queries = unit(*range(1000, 1010))
    return index.ids() == exact.ids() and all(
        index.search(query, 3) == exact.search(query, 3) for query in queries
    )


@pytest.mark.usefixtures("large_at_10")
def test_a_snapshot_is_brought_up_to_date_when_opened(journal: Journal) -> None:
    fill(journal, 20)
    assert same_answers(open_index(journal, DIM), journal)
    stamp = journal.cache / "index" / "stamp.json"
    made = stamp.stat().st_mtime_ns
    journal.retire(7)
    fill(journal, 3)
    assert same_answers(open_index(journal, DIM), journal)
    journal.restore(7)
    assert same_answers(open_index(journal, DIM), journal)
    assert stamp.stat().st_mtime_ns == made


@pytest.mark.usefixtures("large_at_10")
@pytest.mark.parametrize("name", ["vectors.f32", "ids.i64", "lists.faiss", "stamp.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_snapshot_is_built_anew(journal: Journal, name: str, damage: str) -> None:
    fill(journal, 20)
    open_index(journal, DIM)
    file = journal.cache / "index" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[:-1])
    assert same_answers(open_index(journal, DIM), journal)
    assert file.read_bytes() != content


@pytest.mark.usefixtures("large_at_10")
def test_another_journals_snapshot_is_not_used(
    journal: Journal, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(journal, 20)
    open_index(journal, DIM)
    journal.close()
    path.unlink()
    with Journal.open(path, model="m1", encoder="e1") as other:
        fill(other, 21)
        assert same_answers(open_index(other, DIM), other)
    assert "another journal" in caplog.text


@pytest.mark.usefixtures("large_at_10")
def test_erasure_deletes_the_snapshot(journal: Journal) -> None:
    fill(journal, 20)
    open_index(journal, DIM)
    journal.erase([3])
    assert not journal.cache.exists()
    assert 3 not in open_index(journal, DIM).ids()


@pytest.mark.usefixtures("large_at_10")
def test_a_snapshot_serves_every_epoch(journal: Journal) -> None:
    fill(journal, 20)
    journal.retire(7)
    open_index(journal, DIM)
    for epoch in (15, 20, 21):
        assert open_index(journal, DIM, epoch).ids() == journal.live_ids(epoch)


@pytest.mark.usefixtures("large_at_10")
def test_where_no_snapshot_can_be_kept_there_is_an_index(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    fill(journal, 20)
    journal.cache.write_text("in the way")
    assert same_answers(open_index(journal, DIM), journal)
    assert "No index snapshot can be kept" in caplog.text
