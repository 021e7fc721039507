"""What may become an edit, and what it replaces: decided before anything is written."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lifelong.errors import AlreadyTaught, BadEdit, TextTooLong, TooWide
from lifelong.fact import Fact, facts
from lifelong.lm import LM
from lifelong.methods import METHODS, WeightMethod
from lifelong.subject import extract, normalise, visible
from store import Edit, Probe

MAX_PROMPT = 2_000  # characters
MAX_TARGET = 200
MAX_PROBES = 100  # paraphrases, locality or portability probes of one edit

_FIELDS = frozenset(
    "prompt target subject relation old paraphrases locality portability provenance".split()
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BIDI = re.compile(r"[\u202a-\u202e\u2066-\u2069]")  # overrides and isolates; joiners are letters


def admit(lm: LM, edit: Edit) -> Edit:
    """The edit as it may be recorded: bidi overrides gone, its subject guessed if not given.

    Raises BadEdit (wrong type, no words, control characters, template tokens), TextTooLong.
    """
    if edit.method not in METHODS:
        raise BadEdit(
            f"There is no method {edit.method!r}.", f"Take one of: {', '.join(sorted(METHODS))}."
        )
    if isinstance(METHODS[edit.method], WeightMethod) and (edit.user_id or edit.tenant):
        raise TooWide(
            f"{edit.method} writes into the weights, which are everybody's.",
            "Leave user_id and tenant out, or use a memory method.",
        )
    clean = replace(
        edit,
        prompt=_text(lm, "prompt", edit.prompt, MAX_PROMPT),
        target=_text(lm, "target", edit.target, MAX_TARGET),
        subject=_optional(lm, "subject", edit.subject),
        relation=_optional(lm, "relation", edit.relation),
        old=_optional(lm, "old", edit.old),
        paraphrases=_texts(lm, "paraphrases", edit.paraphrases),
        locality=_texts(lm, "locality", edit.locality),
        portability=_probes(lm, edit.portability),
        provenance=_provenance(edit.provenance),
    )
    return replace(clean, subject=clean.subject or extract(clean.prompt))


def refuse_rivals(edits: Iterable[Edit]) -> None:
    """Two edits of one batch may not state the same fact. Raises BadEdit."""
    seen: set[Fact] = set()
    for edit in edits:
        if not seen.isdisjoint(facts(edit)):
            raise BadEdit(
                f"Two records of one batch correct the same fact: {edit.prompt!r}.",
                "Keep the last, or record them one after the other.",
            )
        seen |= facts(edit)


def superseded(edit: Edit, rivals: Sequence[Edit]) -> list[int]:
    """The ids of `rivals`, the live edits that state the same fact: `edit` takes their place.

    Raises AlreadyTaught where one of them has the same target, letter for letter.
    """
    for other in rivals:
        if _spelt(other.target) == _spelt(edit.target):
            raise AlreadyTaught(
                f"Edit {other.id} already says {other.target!r} to {other.prompt!r}.",
                "Nothing is to be done; `undo` it first if it is to be recorded anew.",
            )
    return [other.id for other in rivals]


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


def _optional(lm: LM, name: str, value: object) -> str | None:
    return None if value is None or value == "" else _text(lm, name, value, MAX_TARGET)


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
    "portability"?: [{"prompt", "target"}], "provenance"?}`
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
    return Edit(**given)


def _probe_of(probe: object) -> Probe:
    if isinstance(probe, Mapping) and set(probe) == {"prompt", "target"}:
        return Probe(**probe)
    raise BadEdit(f"{probe!r} is no portability probe.", 'Give {"prompt": ..., "target": ...}.')
