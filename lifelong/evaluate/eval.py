"""`lifelong eval` as a function: load, run, compute, write down."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from lifelong.errors import OutUnusable
from lifelong.evaluate import hygiene, report
from lifelong.evaluate.config import Config
from lifelong.evaluate.datasets import load
from lifelong.evaluate.derived import derived
from lifelong.evaluate.protocol import PROTOCOLS
from lifelong.evaluate.results import results
from lifelong.evaluate.run import Bench, Tell, check, measure


def evaluate(config: Config, tell: Tell, bench: Bench | None = None) -> dict[str, Any]:
    """Measure, and leave results.json, report.md and plots in `config.out`.

    Raises BadDataset, BadRun, OutUnusable, OtherRun, ModelError, StoreError.
    """
    dataset = load(config.file, limit=config.edits, all_probes=config.all_probes)
    check(config)
    clean = hygiene.clean(dataset.cases)
    chat = PROTOCOLS[config.protocol].chat
    cases = [
        replace(case, probes=(*case.probes, *derived(case, config.seed, chat=chat)))
        for case in clean.cases
    ]
    _writable(config.out)
    bench = bench or Bench.load(config)
    about = {"sha256": dataset.sha256, "format": dataset.format}
    raw = measure(config, cases, bench, about, tell)
    config = replace(config, checkpoints=config.checkpoints or (len(cases),))
    try:
        account = [*dataset.lines(), *clean.lines(), *_beyond(config, len(cases))]
        found = results(raw, config, {"data": about | {"account": account}})
    finally:
        raw.close()
    report.write(config.out, found)
    return found


def _beyond(config: Config, records: int) -> list[str]:
    """Checkpoints that no record reaches stand for the end: a file may hold less than it says."""
    return [
        f"checkpoint {step} stands for all {records} records"
        for step in config.checkpoints
        if step > records
    ]


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise OutUnusable(
            f"{folder} cannot be written to ({exc.strerror}).", "Name another folder with --out."
        ) from exc
