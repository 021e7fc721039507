"""`lifelong import`: corrections from JSONL, each line with its own verdict."""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Annotated, Any, BinaryIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer import Argument, Exit, FileBinaryRead, Option, echo

import lifelong
from lifelong.cli.setup import REFUSED, Setup, stderr
from lifelong.errors import BadEdit
from lifelong.feed import Refusal, record
from store import Edit

Record = dict[str, Any]

BATCH = 64  # records of one transaction, where no line waits for the verdict on the one before


def import_(
    setup: Setup,
    file: Annotated[FileBinaryRead, Argument(help="JSONL, one correction a line; - for stdin.")],
    method: Annotated[str, Option(help="How the edits are made.")] = "serac",
) -> None:
    """Record the corrections of a file; a bad line is told and does not stop the rest."""
    total = _count(file) if file.seekable() else None
    recorded = refused = 0
    with setup.open() as model, _progress() as progress:
        task = progress.add_task("importing", total=total)
        for line, verdict in verdicts(
            model, file, method, BATCH if file.seekable() else 1, **setup.asker
        ):
            progress.advance(task)
            _tell(setup, line, verdict)
            if isinstance(verdict, Edit):
                recorded += 1
            else:
                refused += 1
        epoch = model.epoch
    if not setup.json:
        echo(f"{recorded} recorded, {refused} refused, epoch {epoch}.")
    if refused:
        raise Exit(REFUSED)


def verdicts(
    model: "lifelong.EditableModel", lines: Iterable[bytes], method: str, batch: int, **asker: Any
) -> Iterator[tuple[int, Edit | Refusal]]:
    """(line number, the edit on disk or why there is none) for every line that is not blank."""
    numbered = ((n, _read(line)) for n, line in enumerate(lines, 1) if line.strip())
    while some := list(islice(numbered, batch)):
        records = [read for _, read in some if isinstance(read, dict)]
        recorded = record(partial(model.edit_many, method=method, **asker), records)
        for n, read in some:
            yield n, next(recorded) if isinstance(read, dict) else read


def _read(line: bytes) -> Record | BadEdit:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as exc:
        return BadEdit(f"The line is no JSON ({exc}).", "Give one object a line.")
    if isinstance(record, dict):
        return record
    return BadEdit(f"The line is a {type(record).__name__}.", "Give one object a line.")


def _count(file: BinaryIO) -> int:
    start = file.tell()
    total = sum(1 for line in file if line.strip())
    file.seek(start)
    return total


def _tell(setup: Setup, line: int, verdict: Edit | Refusal) -> None:
    if not setup.json:
        if not isinstance(verdict, Edit):
            stderr().print(f"line {line}: {verdict}", style="red", markup=False, soft_wrap=True)
    elif isinstance(verdict, Edit):
        echo(json.dumps({"line": line, "id": verdict.id, "epoch": verdict.epoch}))
    else:
        echo(json.dumps({"line": line, "error": str(verdict)}))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = stderr()
    return Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
