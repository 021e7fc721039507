"""Many edits, each with its own verdict: together where they can be, else half by half."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from lifelong.errors import EditRefused
from store import Edit, WrongStatus

Refusal = EditRefused | WrongStatus


class Learner(Protocol):
    """What takes edits: an EditableModel."""

    def edit_many(
        self, records: Sequence[Edit | Mapping[str, Any]], *, method: str | None = None
    ) -> list[Edit]:
        """All of them, or a refusal and none."""
        ...


def record(
    model: Learner, records: Sequence[Edit | Mapping[str, Any]], method: str
) -> Iterator[Edit | Refusal]:
    """The edit that each record became, or why it became none, in order."""
    try:
        recorded: Sequence[Edit | Refusal] = model.edit_many(records, method=method)
    except (EditRefused, WrongStatus) as refusal:
        if len(records) > 1:
            half = len(records) // 2
            yield from record(model, records[:half], method)
            yield from record(model, records[half:], method)
            return
        recorded = [refusal]
    yield from recorded
