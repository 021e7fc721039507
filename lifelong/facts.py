"""Fact bases: plain knowledge that a chain of hops may pass through (`hops.py`).

A row is a subject, a relation and an object; or a statement, whole or with the object apart. A fact
is no edit: it never answers a question by itself, and where an edit says otherwise it is not used.
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from lifelong.errors import BadFact
from lifelong.subject import SubjectGate, Word, normalise, subject_key, visible, words
from store import Reference

ALIASES = frozenset({"alias", "aliases", "also known as", "other name", "same as"})

_LONGEST = 500  # characters of one text
_NAMES = {
    "subject": ("subject", "head", "s"),
    "relation": ("relation", "predicate", "property", "r"),
    "object": ("object", "target", "answer", "tail", "o"),
    "statement": ("statement", "fact", "text", "prompt", "sentence"),
}
_LINKS = frozenset(
    """of the de la le du des di da del della von van der den and al bin y e at in on for upon s
    """.split()
)
# After the last of these a statement says its object.
_BEFORE_OBJECT = frozenset(
    "is was are were been by in at of to as on from with for plays speaks a an the has had".split()
)
_VERB = re.compile(r"\s+(?:is|was|are|were|has|had|plays|speaks|worked|works|died|sings)\b")
_ROLE = re.compile(r"^(?:The|An?)\s(?:[a-z][\w-]*\s)+(?!$)")
_OWNED = re.compile(r"(?:'s|\u2019s|s'|s\u2019)\s[a-z].*$")
_TAIL = re.compile(r"(?:\s[a-z][\w-]*)+$")


class FactBase:
    """Facts by their subject, and the subjects' other names."""

    def __init__(self, facts: Iterable[Reference] = ()) -> None:
        self.gate = SubjectGate()
        self._about: dict[tuple[str, ...], list[Reference]] = defaultdict(list)
        self._named: dict[tuple[str, ...], tuple[str, ...]] = {}
        for fact in facts:
            if is_alias(fact):
                self._named[subject_key(fact.target)] = subject_key(fact.subject)
                self.gate.add(fact.target)
            else:
                self._about[subject_key(fact.subject)].append(fact)
                self.gate.add(fact.subject)

    def __iter__(self) -> Iterator[Reference]:
        return chain.from_iterable(self._about.values())

    def about(self, subject: tuple[str, ...]) -> Sequence[Reference]:
        """The facts about a subject, by id."""
        return self._about.get(subject, ())

    def entity(self, name: tuple[str, ...]) -> tuple[str, ...]:
        """The key of what is called so: its own, or that of what this is another name of."""
        return self._named.get(name, name)


def is_alias(fact: Reference) -> bool:
    """Does the fact give another name of its subject?"""
    return fact.prompt in ALIASES


def read(path: Path) -> Iterator[tuple[int, Reference | BadFact]]:
    """(line, the fact there or what is wrong with it) of a JSONL file, or a CSV file with a header.

    Raises OSError, UnicodeDecodeError.
    """
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = _csv(lines) if path.suffix.lower() == ".csv" else _jsonl(lines)
        for line, row in rows:
            try:
                yield line, fact_of(row)
            except BadFact as refusal:
                yield line, refusal


def fact_of(row: object) -> Reference:
    """The fact of one row: an object with one of the forms above, or a text. Raises BadFact."""
    if isinstance(row, str):
        row = {"statement": row}
    if not isinstance(row, Mapping):
        raise BadFact(f"The row is a {type(row).__name__}.", "Give an object, or a sentence.")
    told = {name: _field(row, name) for name in _NAMES}
    subject, relation, target, statement = (told[name] for name in _NAMES)
    if subject and relation and target:
        name = normalise(relation)
        return Reference(subject, name if name in ALIASES else _asked(subject, relation), target)
    if statement and target:
        said = statement.removesuffix(".").rstrip()
        prompt = said.removesuffix(target).rstrip() or said
        return Reference(subject or _subject(prompt), prompt, target)
    if statement:
        prompt, target = split(statement)
        return Reference(subject or _subject(prompt), prompt, target)
    raise BadFact(
        f"The row has the fields {', '.join(sorted(map(str, row))) or '(none)'}.",
        "Give subject, relation and object; or a statement.",
    )


def split(statement: str) -> tuple[str, str]:
    """A statement up to its object, and that: the name it ends with, or what is said last.

    Raises BadFact.
    """
    said = statement.strip().removesuffix(".")
    found = words(said)
    at = _name_at_the_end(said, found) or _last_words(found)
    if not at:
        raise BadFact(f"It is not plain what {statement!r} says.", "Give subject and object.")
    start = found[at].start
    return said[:start].rstrip(), said[start:]


def _name_at_the_end(said: str, found: Sequence[Word]) -> int:
    """Where the name begins that the statement ends with; 0 where it ends with none."""
    begins = 0
    for at in range(len(found) - 1, 0, -1):
        if said[found[at].start].isupper() or said[found[at].start].isdigit():
            begins = at
        elif not begins or found[at].folded not in _LINKS:
            break
    return begins


def _last_words(found: Sequence[Word]) -> int:
    ends = [at + 1 for at, word in enumerate(found[:-1]) if word.folded in _BEFORE_OBJECT]
    return ends[-1] if ends else 0


def _subject(prompt: str) -> str:
    """Whom a statement is about: A in "A is", "A's R is", "The R of A is", "The R that A does is".

    Raises BadFact.
    """
    before = _VERB.split(prompt)[0].strip()
    rest = _ROLE.sub("", before)
    if rest == before:
        rest = _OWNED.sub("", before)
    elif before.removesuffix(rest).endswith(" the "):  # "The head of the A government"
        rest = _TAIL.sub("", rest)
    if not normalise(rest):
        rest = before.rpartition(" of ")[2]
    if not normalise(rest):
        raise BadFact(f"It is not plain whom {prompt!r} is about.", "Give a subject.")
    return rest


def _asked(subject: str, relation: str) -> str:
    if "{}" in relation:
        return relation.replace("{}", subject)
    return f"The {relation.removeprefix('the ')} of {subject} is"


def _field(row: Mapping[str, object], name: str) -> str:
    """The text of a field under any of its names; empty where there is none. Raises BadFact."""
    value = next((row[key] for key in _NAMES[name] if row.get(key) is not None), "")
    if not isinstance(value, str):
        raise BadFact(f"The {name} is a {type(value).__name__}.", "Give a text.")
    text = " ".join(visible(value).split())
    if len(text) > _LONGEST or (text and not normalise(text)):
        raise BadFact(f"The {name} is no short text: {text[:40]!r}.", "Give up to 500 characters.")
    return text


def _jsonl(lines: Iterable[str]) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _csv(lines: Iterable[str]) -> Iterator[tuple[int, object]]:
    reader = csv.DictReader(lines, skipinitialspace=True)
    for row in reader:
        yield reader.line_num, {str(k).strip().lower(): v for k, v in row.items() if k is not None}
