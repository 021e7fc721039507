"""What was read from the journal lately stays in memory, by id; the rest is read when it is asked.

So a store of up to `MOST` edits answers whatever becomes of its file, and a larger one answers from
memory about what it was asked lately.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 50_000


class Kept(Generic[T]):
    """A bounded cache before `read(ids)`, which leaves out what there is not. Safe for threads."""

    def __init__(self, read: Callable[[list[int]], Mapping[int, T]]) -> None:
        self._read = read
        self._known: OrderedDict[int, T] = OrderedDict()
        self._lock = Lock()

    def get(self, ids: Iterable[int]) -> dict[int, T]:
        """What is known of these ids, in their order. Raises what `read` raises."""
        wanted = list(ids)
        with self._lock:
            found = {id: self._known[id] for id in wanted if id in self._known}
        missing = [id for id in wanted if id not in found]
        if missing:
            found |= self._read(missing)
        self.put(found)
        return {id: found[id] for id in wanted if id in found}

    def put(self, known: Mapping[int, T]) -> None:
        """This is so from now on."""
        with self._lock:
            for id, value in known.items():
                self._known[id] = value
                self._known.move_to_end(id)
            while len(self._known) > MOST:
                self._known.popitem(last=False)

    def drop(self, ids: Iterable[int]) -> None:
        """What was known of these ids may be so no longer."""
        with self._lock:
            for id in ids:
                self._known.pop(id, None)
