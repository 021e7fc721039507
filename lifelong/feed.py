"""Many edits, each with its own verdict: together where they can be, else half by half."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lifelong.errors import EditRefused
from store import Edit, WrongStatus

Refusal = EditRefused | WrongStatus
Record = Edit | Mapping[str, Any]


def record(
    edit_many: Callable[[Sequence[Record]], list[Edit]], records: Sequence[Record]
) -> Iterator[Edit | Refusal]:
    """The edit that each record became, or why it became none, in order.

    `edit_many` is a model's: all of what it is given is recorded, or nothing.
    """
    try:
        recorded: Sequence[Edit | Refusal] = edit_many(records)
    except (EditRefused, WrongStatus) as refusal:
        if len(records) > 1:
            half = len(records) // 2
            yield from record(edit_many, records[:half])
            yield from record(edit_many, records[half:])
            return
        recorded = [refusal]
    yield from recorded
