"""`lifelong doctor`: is everything there that an answer needs?"""

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # as in store/file.py
from typer import Exit

from lifelong.cli.setup import UNUSABLE, Setup, fields, stderr
from lifelong.errors import LifelongError
from store import StoreError, StoreFull, StoreUnavailable
from store.file import safe_journal_mode

_ROOM = 100 << 20  # bytes under which the disk counts as full
_REINSTALL = "Install it again: `pip install --force-reinstall lifelong`."


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return self.found if self.ok else f"NOT OK: {self.found} {self.remedy}"


def doctor(setup: Setup) -> None:
    """Look at libraries, model, encoder, store and disk; say what to do about what is wrong."""
    findings = []
    with stderr().status("Looking") as status:
        for name, look in _LOOKS.items():
            status.update(f"Looking at {name}")
            findings.append(_finding(name, look, setup))
        if all(finding.ok for finding in findings):
            findings.append(_finding("all together", _together, setup))
    ok = all(finding.ok for finding in findings)
    data = {"ok": ok, "checks": [asdict(finding) for finding in findings]}
    setup.show(data, fields({finding.name: finding for finding in findings}))
    if not ok:
        raise Exit(UNUSABLE)


def _finding(name: str, look: Callable[[Setup], str], setup: Setup) -> Finding:
    try:
        return Finding(name, True, look(setup))
    except LifelongError as error:
        return Finding(name, False, error.what, error.remedy)
    except StoreError as error:
        return Finding(name, False, f"{error.args[0]}.", f"{error.remedy}.")
    except (ImportError, OSError) as error:
        return Finding(name, False, f"cannot be loaded: {error}", _REINSTALL)


def _version(module: str) -> Callable[[Setup], str]:
    return lambda _: str(import_module(module).__version__)


def _sqlite(_: Setup) -> str:
    mode = safe_journal_mode(sqlite3.sqlite_version_info)
    return f"{sqlite3.sqlite_version}, journal mode {mode}"


def _resolved(name: str) -> str:
    from lifelong.models import resolve  # here, because a torch that will not load is a finding

    return f"{name}: {resolve(name, progress=False)}"


def _store(setup: Setup) -> str:
    folder = Path(setup.store).absolute().parent
    if not Path(setup.store).exists():
        if not os.access(folder, os.W_OK):
            raise StoreUnavailable(f"{folder} is no folder that can be written to")
        return f"{setup.store}: none yet, the first correction makes it"
    with setup.read() as journal:
        epoch = journal.verify()
        return f"{setup.store}: {len(journal.live())} live edits, intact up to epoch {epoch}"


def _disk(setup: Setup) -> str:
    folder = next(there for there in Path(setup.store).absolute().parents if there.exists())
    free = shutil.disk_usage(folder).free
    if free < _ROOM:
        raise StoreFull(f"{folder} has {free >> 20} MB left")
    return f"{free >> 20:,} MB free in {folder}"


def _together(setup: Setup) -> str:
    there = Path(setup.store).exists()
    with (setup if there else replace(setup, store=":memory:")).open() as model:
        return f"{type(model).__name__} loads, with {len(model.list('live'))} live edits"


_LOOKS: Mapping[str, Callable[[Setup], str]] = {
    "python": lambda _: platform.python_version(),
    "torch": _version("torch"),
    "transformers": _version("transformers"),
    "sentence-transformers": _version("sentence_transformers"),
    "faiss": _version("faiss"),
    "sqlite": _sqlite,
    "model": lambda setup: _resolved(setup.model),
    "encoder": lambda setup: _resolved(setup.encoder),
    "store": _store,
    "disk": _disk,
}
