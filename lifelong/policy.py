"""What may become an edit, and what it replaces: decided before anything is written."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lifelong.errors import AlreadyTaught, BadEdit, TextTooLong, TooWide
from lifelong.fact import Fact, claims, contradict, same_fact
from lifelong.lm import LM
from lifelong.methods import METHODS, WeightMethod
from lifelong.subject import extract, normalise, visible
from store import Audience, Edit, Probe
from store.records import utc

MAX_PROMPT = 2_000  # characters
MAX_TARGET = 200
MAX_PROBES = 100  # paraphrases, locality or portability probes of one edit

_FIELDS = frozenset(
    """prompt target subject relation old paraphrases locality portability provenance
    user_id tenant key valid_until""".split()
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BIDI = re.compile(r"[\u202a-\u202e\u2066-\u2069]")  # overrides and isolates; joiners are letters


def admit(lm: LM, edit: Edit) -> Edit:
    """The edit as it may be recorded: bidi overrides gone, its subject guessed if not given.

    Raises BadEdit (wrong type, no words, control characters, template tokens), TextTooLong.
    """
    return replace(_cleaned(lm, edit), target=_text(lm, "target", edit.target, MAX_TARGET))


def complaint(lm: LM, edit: Edit) -> Edit:
    """`admit` for an edit without a target, of which `old`, a whole reply, is wrong.

    The reply is put on one line, and cut where it is longer than a prompt may be.
    """
    if not isinstance(edit.old, str):
        raise BadEdit(f"The answer is a {type(edit.old).__name__}.", "Give a text.")
    line = " ".join(_CONTROL.sub(" ", edit.old).split())[:MAX_PROMPT]
    return _cleaned(lm, replace(edit, old=_text(lm, "answer", line, MAX_PROMPT)))


def _cleaned(lm: LM, edit: Edit) -> Edit:
    """All of it but the target."""
    if edit.method not in METHODS:
        raise BadEdit(
            f"There is no method {edit.method!r}.", f"Take one of: {', '.join(sorted(METHODS))}."
        )
    if isinstance(METHODS[edit.method], WeightMethod) and edit.audience != Audience():
        raise TooWide(
            f"{edit.method} writes into the weights, which are everybody's.",
            "Leave user_id and tenant out, or use a memory method.",
        )
    clean = replace(
        edit,
        prompt=_text(lm, "prompt", edit.prompt, MAX_PROMPT),
        subject=_optional(lm, "subject", edit.subject),
        relation=_optional(lm, "relation", edit.relation),
        old=_optional(lm, "old", edit.old, MAX_PROMPT),
        paraphrases=_texts(lm, "paraphrases", edit.paraphrases),
        locality=_texts(lm, "locality", edit.locality),
        portability=_probes(lm, edit.portability),
        provenance=_provenance(edit.provenance),
        user_id=_name("user_id", edit.user_id),
        tenant=_name("tenant", edit.tenant),
        key=_name("key", edit.key),
    )
    if clean.valid_until is not None and clean.valid_until <= utc(datetime.now(UTC)):
        raise BadEdit(f"valid_until, {clean.valid_until}, is past.", "Give a time to come.")
    if clean.subject or not METHODS[edit.method].by_subject:
        return clean
    return replace(clean, subject=extract(clean.prompt))


def refuse_rivals(edits: Sequence[Edit]) -> None:
    """Two edits of one batch, for one audience, may not contradict each other. Raises BadEdit."""
    saying: dict[tuple[Audience, Fact], list[Edit]] = {}
    for edit in edits:
        for fact in claims(edit):
            others = saying.setdefault((edit.audience, fact), [])
            if any(contradict(edit, other) for other in others):
                raise BadEdit(
                    f"Two records of one batch correct the same fact: {edit.prompt!r}.",
                    "Keep the last, or record them one after the other.",
                )
            others.append(edit)


def superseded(edit: Edit, rivals: Sequence[Edit]) -> list[int]:
    """The ids of those `rivals` that `edit` takes the place of: its own audience's.

    `rivals` are the live edits that contradict it where it is to be live, the narrowest audience
    first. Raises AlreadyTaught where those that count say the same, letter for letter.
    """
    count = [other for other in rivals if other.audience == rivals[0].audience]
    for other in count:
        if _spelt(other.target) == _spelt(edit.target) and same_fact(edit, other):
            raise AlreadyTaught(
                f"Edit {other.id} already says {other.target!r} to {other.prompt!r}.",
                "Nothing is to be done; `undo` it first if it is to be recorded anew.",
            )
    return [other.id for other in count if other.audience == edit.audience]


def _spelt(target: str) -> str:
    """A target as people see it: `C` and `C++`, `iphone` and `iPhone` are different corrections."""
    return " ".join(visible(target).split())


def _text(lm: LM, name: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise BadEdit(f"The {name} is a {type(value).__name__}.", "Give a text.")
    text = _BIDI.sub("", value).strip()
    if not normalise(text):
        raise BadEdit(f"The {name} has no words: {value[:40]!r}.", "Give at least one word.")
    if len(text) > limit:
        raise TextTooLong(
            f"The {name} has {len(text)} characters.", f"Shorten it to {limit} or fewer."
        )
    if found := _CONTROL.search(text):
        raise BadEdit(
            f"The {name} holds the control character {found.group()!r}.", "Give one line of text."
        )
    if token := next((token for token in lm.control_tokens if token in text), None):
        raise BadEdit(
            f"The {name} holds {token!r}, which steers this model's chat template.", "Leave it out."
        )
    return text


def _optional(lm: LM, name: str, value: object, limit: int = MAX_TARGET) -> str | None:
    return None if value is None or value == "" else _text(lm, name, value, limit)


def _name(what: str, value: object) -> str | None:
    """Somebody's or something's name: kept as it is, compared letter for letter."""
    if value is None:
        return None
    if isinstance(value, str) and 0 < len(value.strip()) <= len(value) <= MAX_TARGET:
        if not _CONTROL.search(value):
            return value
    raise BadEdit(f"The {what} is {value!r}.", f"Give one line of up to {MAX_TARGET} characters.")


def _several(name: str, values: object) -> Sequence[object]:
    if not isinstance(values, (list, tuple)):
        raise BadEdit(f"{name} is a {type(values).__name__}.", "Give a list.")
    if len(values) > MAX_PROBES:
        raise TextTooLong(f"There are {len(values)} {name}.", f"Give {MAX_PROBES} or fewer.")
    return values


def _texts(lm: LM, name: str, values: object) -> tuple[str, ...]:
    return tuple(_text(lm, name, value, MAX_PROMPT) for value in _several(name, values))


def _probes(lm: LM, probes: Sequence[Probe]) -> tuple[Probe, ...]:
    return tuple(
        Probe(
            _text(lm, "probe's prompt", probe.prompt, MAX_PROMPT),
            _text(lm, "probe's target", probe.target, MAX_TARGET),
        )
        for probe in probes
    )


def _provenance(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadEdit(f"provenance is a {type(value).__name__}.", "Give an object.")
    try:
        json.dumps(dict(value), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise BadEdit(f"provenance cannot be kept ({exc}).", "Give plain JSON.") from exc
    return value


def edit_of(record: Mapping[str, Any], **defaults: Any) -> Edit:
    """The edit that a record of our own JSONL describes. Raises BadEdit for any other shape.

    `{"prompt", "target", "subject"?, "relation"?, "old"?, "paraphrases"?, "locality"?,
    "portability"?: [{"prompt", "target"}], "provenance"?, "user_id"?, "tenant"?, "key"?,
    "valid_until"?}`
    """
    if not isinstance(record, Mapping):
        raise BadEdit(f"The record is a {type(record).__name__}.", "Give an object.")
    if missing := [name for name in ("prompt", "target") if name not in record]:
        raise BadEdit(f"The record has no {missing[0]!r}.", 'It needs "prompt" and "target".')
    if unknown := sorted(set(record) - _FIELDS):
        raise BadEdit(
            f"The record has the unknown field {unknown[0]!r}.",
            f"The fields are: {', '.join(sorted(_FIELDS))}.",
        )
    probes = _several("portability", record.get("portability", ()))
    lists = {name: _several(name, record.get(name, ())) for name in ("paraphrases", "locality")}
    given = {
        **defaults,
        **record,
        **{name: tuple(values) for name, values in lists.items()},
        "portability": tuple(_probe_of(probe) for probe in probes),
    }
    return new_edit(**given)


def new_edit(**fields: Any) -> Edit:
    """An `Edit`. Raises BadEdit where `valid_until` is no time with a UTC offset."""
    try:
        return Edit(**fields)
    except (TypeError, ValueError) as exc:
        raise BadEdit(
            f"valid_until is no time ({exc}).", "Give one like 2027-01-31T12:00:00+00:00."
        ) from exc


def _probe_of(probe: object) -> Probe:
    if isinstance(probe, Mapping) and set(probe) == {"prompt", "target"}:
        return Probe(**probe)
    raise BadEdit(f"{probe!r} is no portability probe.", 'Give {"prompt": ..., "target": ...}.')
