"""The multimap against a dict; what is kept of what was read, and no more."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong import kept, postings
from lifelong.kept import Kept
from lifelong.postings import Postings

KEYS = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))


@given(said=st.lists(st.tuples(st.lists(KEYS, max_size=4), st.integers(1, 6)), max_size=20))
def test_postings_equal_a_dict(said: list[tuple[list[int], int]]) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(postings, "_RECENT", 3)
        found, plain = Postings(), defaultdict[int, set[int]](set)
        for keys, id in said:
            found.add(keys, id)
            for key in keys:
                plain[key].add(id)
            for key in (*plain, -4, 2**63 - 1):
                assert found.get(key) == plain.get(key, set())


def test_what_was_used_last_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 2)
    asked: list[list[int]] = []

    def read(ids: list[int]) -> dict[int, str]:
        asked.append(ids)
        return {id: str(id) for id in ids if id < 9}

    known = Kept(read)
    known.put({1: "one", 2: "two"})
    assert known.get([2, 1]) == {2: "two", 1: "one"}
    assert list(known.get([3, 1, 9]).items()) == [(3, "3"), (1, "one")]
    assert known.get([2]) == {2: "2"}
    known.drop([2, 7])
    assert known.get([2]) == {2: "2"}
    assert asked == [[3, 9], [2], [2]]
