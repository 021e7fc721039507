"""Postings: which numbers stand under a hash?  Sixteen bytes an entry, so that millions fit.

Of a million keys two share a 64-bit hash with a probability of 3e-8; what stands under either is
found under both then.
"""

from collections import defaultdict

import numpy as np

_UNSORTED = 65_536  # entries looked up in a dict before they are sorted in


class Postings:
    """A multimap between 64-bit numbers. What was added stays: readers know what is valid."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.int64)  # sorted
        self._values = np.empty(0, np.int64)  # the value beside each, ascending for equal hashes
        self._new: dict[int, set[int]] = defaultdict(set)
        self._unsorted = 0

    def add(self, hashed: int, value: int) -> None:
        """`value` stands under `hashed`; twice is once."""
        self._new[hashed].add(value)
        self._unsorted += 1
        if self._unsorted > max(_UNSORTED, len(self._hashes) // 4):
            self.sort_in()

    def get(self, hashed: int) -> set[int]:
        """What stands under `hashed`."""
        found = set(self._new.get(hashed, ()))
        first = int(np.searchsorted(self._hashes, hashed))
        if first < len(self._hashes) and self._hashes[first] == hashed:
            last = np.searchsorted(self._hashes, hashed, side="right")
            found.update(self._values[first:last].tolist())
        return found

    def sort_in(self) -> None:
        """Make what was added small."""
        if not self._new:
            return
        new = [(hashed, value) for hashed, values in self._new.items() for value in values]
        fresh = np.array(new, np.int64)
        hashes = np.concatenate([self._hashes, fresh[:, 0]])
        values = np.concatenate([self._values, fresh[:, 1]])
        order = np.lexsort((values, hashes))
        hashes, values = hashes[order], values[order]
        first = np.r_[True, (hashes[1:] != hashes[:-1]) | (values[1:] != values[:-1])]
        self._hashes, self._values = hashes[first], values[first]
        self._new.clear()
        self._unsorted = 0
