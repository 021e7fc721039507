"""Journals in a temporary folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lifelong.db"


@pytest.fixture
def reopen(path: Path) -> Iterator[Callable[[], Journal]]:
    """Open the store again; every journal opened here is closed afterwards."""
    opened: list[Journal] = []

    def again() -> Journal:
        opened.append(Journal.open(path, model="m1", encoder="e1", model_name="tiny"))
        return opened[-1]

    yield again
    for journal in opened:
        journal.close()


@pytest.fixture
def journal(reopen: Callable[[], Journal]) -> Journal:
    return reopen()
