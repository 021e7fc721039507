"""How well all edits hold, from the shell: a reading now, a page of all readings so far."""

from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from lifelong.alarms import alarms_of
from lifelong.cli.setup import REFUSED, Setup, fields, stderr
from lifelong.errors import NoReport
from lifelong.report import html, markdown


def check(
    setup: Setup,
    sample: Annotated[int, Option(min=1, help="How many edits are asked again.")] = 20,
) -> None:
    """Re-ask a sample of the live edits and what they must not change; exit 1 on an alarm."""
    with setup.open() as model, stderr().status("Asking again"):
        reading = model.check(sample)
    alarms = alarms_of(reading)
    data = {"id": reading.id, "epoch": reading.epoch, "time": reading.time, **reading.body}
    told = [f"{alarm.what} Suspects: {list(alarm.suspects)}" for alarm in alarms]
    setup.show(data, fields({**data, "counts": None, "alarms": told}))
    if alarms:
        raise Exit(REFUSED)


def report(
    setup: Setup,
    out: Annotated[
        Path | None, Option(metavar="FILE", help="Where to; else to stdout, without pictures.")
    ] = None,
    as_html: Annotated[bool, Option("--html", help="One HTML file instead of Markdown.")] = False,
) -> None:
    """A page, with pictures, of all readings: for people who know nothing of the project."""
    with setup.read() as journal:
        readings = journal.readings()
        edits = {edit.id: edit for edit in journal.edits()}
    if not readings:
        raise NoReport("There is no reading yet.", "`lifelong check` takes one.")
    try:
        page = html(readings, edits) if as_html else markdown(readings, edits, out)
        if out:
            out.write_text(page, encoding="utf-8")
    except OSError as exc:
        raise NoReport(f"The report cannot be written: {exc}.", "Give another --out.") from exc
    data = [{"id": r.id, "epoch": r.epoch, "time": r.time, **r.body} for r in readings]
    setup.show(data, f"{len(readings)} readings: {out}" if out else page)
