"""Many keys -> many ids, in 16 bytes a pair: two arrays of 64-bit numbers, sorted by key.

What came last waits in a dict until there is enough of it to be sorted in. A pair is never taken
back: whoever asks must know by himself which ids still count.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain

import numpy as np

_RECENT = 50_000  # keys in the dict


class Postings:
    """A multimap of integers. The caller keeps changes and look-ups apart."""

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)
        self._ids = np.empty(0, np.int64)
        self._recent: dict[int, list[int]] = defaultdict(list)

    def add(self, keys: Iterable[int], id: int) -> None:
        """From now on `id` is found under each of these keys (64-bit, signed)."""
        for key in keys:
            self._recent[key].append(id)
        if len(self._recent) > _RECENT:
            self._sort_in()

    def get(self, key: int) -> set[int]:
        """The ids under this key."""
        found = set(self._recent.get(key, ()))
        start = int(np.searchsorted(self._keys, key))
        if start < len(self._keys) and self._keys[start] == key:
            end = np.searchsorted(self._keys, key, side="right")
            found.update(self._ids[start:end].tolist())
        return found

    def _sort_in(self) -> None:
        sizes = [len(ids) for ids in self._recent.values()]
        keys = np.repeat(np.array(list(self._recent), np.int64), sizes)
        ids = np.fromiter(chain.from_iterable(self._recent.values()), np.int64)
        order = keys.argsort()
        places = np.searchsorted(self._keys, keys[order])
        self._keys = np.insert(self._keys, places, keys[order])
        self._ids = np.insert(self._ids, places, ids[order])
        self._recent.clear()
