"""A file of records -> the cases that are measured, and an account of what was left out and why."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from lifelong.errors import (
    BadDataset,
    BadEdit,
    BadRecord,
    EmptyDataset,
    MixedFormats,
    UnknownFormat,
)
from lifelong.evaluate.formats import FORMATS, Fields, Options, recognise
from lifelong.evaluate.records import Case, ProbeKind
from lifelong.fact import Fact, facts
from lifelong.match import same
from lifelong.subject import normalise

_SHOWN = 3  # lines named in a summary
_REPEATS = {
    False: "edits that state a fact once more",
    True: "edits that contradict an earlier one, which they supersede",
}


@dataclass(frozen=True, slots=True)
class Dropped:
    """A record that asks for no change of its own: its line and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """An edit that states the fact of an earlier one: the lines of both; with another target?"""

    line: int
    earlier: int
    conflicts: bool


@dataclass(frozen=True, slots=True)
class Dataset:
    """The cases of a file. `read` counts its records up to the last one asked for."""

    name: str
    format: str
    options: Options
    sha256: str
    read: int
    cases: tuple[Case, ...]
    dropped: tuple[Dropped, ...]
    repeats: tuple[Repeat, ...]

    @property
    def edits(self) -> int:
        """How many edits the cases have together."""
        return sum(len(case.edits) for case in self.cases)

    @property
    def probes(self) -> Counter[ProbeKind]:
        """How many probes of each kind."""
        return Counter(probe.kind for case in self.cases for probe in case.probes)

    def lines(self) -> list[str]:
        """The account, for people."""
        target = f", target = {self.options.target}" if self.format == "zsre" else ""
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(self.probes.items()))
        why: dict[str, list[int]] = {}
        for dropped in self.dropped:
            why.setdefault(f"dropped, {dropped.why}", []).append(dropped.line)
        for repeat in self.repeats:
            why.setdefault(_REPEATS[repeat.conflicts], []).append(repeat.line)
        return [
            f"{self.name}: {self.format}{target}, sha256 {self.sha256}",
            f"{self.read:,} records read, {len(self.cases):,} kept: {self.edits:,} edits",
            f"probes: {kinds or 'none'}",
            *(f"{reason}: {_counted(lines)}" for reason, lines in why.items()),
        ]


def load(
    path: Path | str,
    *,
    format: str | None = None,
    limit: int | None = None,
    target: Literal["alt", "answers"] = "alt",
    all_probes: bool = False,
) -> Dataset:
    """The first `limit` cases of a JSONL file; its format is read off the first record.

    `target` and `all_probes` are what `formats.Options` says.

    Raises UnknownFormat, MixedFormats, BadRecord or EmptyDataset, with the line, for what was read;
    BadDataset where the file cannot be opened.
    """
    path, options = Path(path), Options(target, all_probes)
    data = _bytes(path)
    cases: list[Case] = []
    dropped: list[Dropped] = []
    seen = _Seen()
    read = 0
    for line, record in _records(path.name, data):
        if len(cases) == limit:
            break
        read += 1
        format = format or _format(record, f"{path.name}:{line}")
        case = _case(Fields(record, line, f"{path.name}:{line}"), format, options)
        if why := _unchanged(case) or seen.before(case, FORMATS[format].shared):
            dropped.append(Dropped(line, why))
        else:
            seen.add(case)
            cases.append(case)
    if not cases or format is None:
        raise EmptyDataset(
            f"{path.name} has {read} records, and {len(cases)} that ask for a change.",
            "Give a file with at least one.",
        )
    digest = sha256(data).hexdigest()
    return Dataset(
        path.name, format, options, digest, read, tuple(cases), tuple(dropped), tuple(seen.repeats)
    )


class _Seen:
    """What the cases so far have said."""

    def __init__(self) -> None:
        self.repeats: list[Repeat] = []
        self._said: dict[Fact, tuple[int, str]] = {}  # the latest line and target of every fact
        self._asked: set[tuple[str, ...]] = set()  # edits and probes of whole records

    def before(self, case: Case, shared: bool) -> str | None:
        """Why `case` is nothing new: its targets already stand, or (shared edits) all of it."""
        if shared:
            return "the record is there already" if _asked(case) in self._asked else None
        last = {normalise(edit.prompt): edit.target for edit in case.edits}
        stand = all(
            same(target, self._said.get(("prompt", prompt), (0, ""))[1])
            for prompt, target in last.items()
        )
        return "the prompt has this target already" if stand else None

    def add(self, case: Case) -> None:
        """Remember `case`, and which of its facts an earlier one settled."""
        self._asked.add(_asked(case))
        for edit in case.edits:
            rivals = [self._said[fact] for fact in facts(edit) if fact in self._said]
            if rivals:
                latest = max(line for line, _ in rivals)
                conflicts = not all(same(target, edit.target) for _, target in rivals)
                self.repeats.append(Repeat(case.line, latest, conflicts))
            self._said.update(dict.fromkeys(facts(edit), (case.line, edit.target)))


def _asked(case: Case) -> tuple[str, ...]:
    return (
        *(text for edit in case.edits for text in (edit.prompt, edit.target)),
        *(text for probe in case.probes for text in (probe.prompt, *probe.answers)),
    )


def _counted(lines: list[int]) -> str:
    """How many, and the first few lines."""
    shown = ", ".join(map(str, lines[:_SHOWN])) + (", ..." if len(lines) > _SHOWN else "")
    return f"{len(lines):,} (line{'s' * (len(lines) > 1)} {shown})"


def _unchanged(case: Case) -> str | None:
    """Why a case asks for no change, if so."""
    if not all(normalise(edit.prompt) and normalise(edit.target) for edit in case.edits):
        return "a prompt or target without words"
    for edit, old in zip(case.edits, case.old, strict=True):
        if any(same(edit.target, answer) for answer in old):
            return "the target is a right answer already"
    return None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise BadDataset(f"{path} cannot be read ({exc.strerror}).", "Give a JSONL file.") from exc


def _records(name: str, data: bytes) -> Iterator[tuple[int, Mapping[str, object]]]:
    """(line, record) for every line that is not blank."""
    for line, text in enumerate(data.splitlines(), 1):
        if not text.strip():
            continue
        remedy = "Give one JSON object a line (`jq -c .[]` makes that of an array)."
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise BadRecord(f"{name}:{line}: no JSON ({exc}).", remedy) from exc
        if not isinstance(record, dict):
            raise BadRecord(f"{name}:{line}: a {type(record).__name__}, no record.", remedy)
        yield line, record


def _format(record: Mapping[str, object], where: str) -> str:
    if found := recognise(record):
        return found
    nearest = max(FORMATS, key=lambda name: _likeness(record, name))
    missing = ", ".join(sorted(FORMATS[nearest].fields - record.keys()))
    raise UnknownFormat(
        f"{where}: no known dataset has just the fields {', '.join(sorted(record)) or '(none)'}.",
        f"The nearest is {nearest}, which has besides: {missing}.",
    )


def _likeness(record: Mapping[str, object], name: str) -> float:
    """The share of a format's fields that `record` has."""
    return len(FORMATS[name].fields & record.keys()) / len(FORMATS[name].fields)


def _case(fields: Fields, format: str, options: Options) -> Case:
    if format not in FORMATS:
        raise UnknownFormat(
            f"There is no format {format!r}.", f"Take one of: {', '.join(FORMATS)}."
        )
    if missing := sorted(FORMATS[format].fields - fields.values.keys()):
        other = recognise(fields.values)
        if other and FORMATS[other].source and FORMATS[other].source == FORMATS[format].source:
            return _case(fields, other, options)
        if other:
            raise MixedFormats(
                f"{fields.where}: a record of {other} in a file of {format}.",
                "Give each dataset a file of its own.",
            )
        raise fields.missing(missing[0])
    try:
        case = FORMATS[format].case(fields, options)
    except BadEdit as exc:
        raise BadRecord(f"{fields.where}: {exc.what}", exc.remedy) from exc
    if not case.edits:
        raise BadRecord(f"{fields.where}: the record has no edits.", "Leave it out.")
    return case
