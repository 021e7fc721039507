"""Records and patches survive their bytes; damaged bytes are a typed error."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import DamagedPatch, Edit, Extension, Hint, Hook, Probe, from_bytes

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
EDITS = st.builds(
    Edit,
    prompt=TEXT,
    target=TEXT,
    subject=st.none() | TEXT,
    old=st.none() | TEXT,
    paraphrases=TEXTS,
    portability=st.lists(st.builds(Probe, TEXT, TEXT), max_size=2).map(tuple),
    provenance=st.dictionaries(TEXT, st.none() | st.integers() | TEXT, max_size=2),
    user_id=st.none() | TEXT,
)


@given(EDITS)
def test_an_edit_survives_its_json(edit: Edit) -> None:
    assert Edit.from_json(edit.to_json()) == edit


@given(TEXTS)
def test_a_hint_survives_its_bytes(texts: tuple[str, ...]) -> None:
    hint = Hint("serac", texts)
    assert Hint.from_bytes(hint.to_bytes()) == hint
    assert hint.to_bytes() == hint.to_bytes()


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_reader(blob: bytes) -> None:
    with pytest.raises(DamagedPatch):
        from_bytes(blob)


@given(st.data())
def test_a_cut_patch_is_a_damaged_patch(data: st.DataObject) -> None:
    blob = Hint("serac", ("Acme is run by Jane Roe",)).to_bytes()
    with pytest.raises(DamagedPatch, match="bytes cannot be read"):
        from_bytes(blob[: data.draw(st.integers(0, len(blob) - 1))])


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "spell", "method": "serac", "texts": []},
        {"kind": "hint", "method": "serac"},
        {"kind": "hint", "method": "serac", "texts": [1]},
        ["hint"],
    ],
)
def test_a_patch_that_makes_no_sense_is_damaged(body: object) -> None:
    header = json.dumps({"__metadata__": {"patch": json.dumps(body)}}).encode()
    with pytest.raises(DamagedPatch):
        from_bytes(struct.pack("<Q", len(header)) + header)


def test_provenance_must_be_json() -> None:
    with pytest.raises(TypeError, match="cannot be stored"):
        Edit("p", "t", provenance={"who": object()}).to_json()  # type: ignore[dict-item]


def hook(n: int, **change: object) -> Hook:
    """One row an edit."""
    rows = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
    said = {"tensors": {"key": rows, "bias": rows[:, 0]}, "owner": np.arange(n), **change}
    return Hook("grace", "model.layers.2.mlp", facts={"loss": [0.5]}, **said)  # type: ignore[arg-type]


@given(st.integers(0, 4), st.sampled_from([Hook, Extension]))
def test_a_hook_survives_its_bytes(n: int, cls: type[Hook]) -> None:
    made = hook(n)
    patch = cls(made.method, made.module, made.tensors, made.owner, made.facts)
    again = from_bytes(patch.to_bytes())
    assert again == patch
    assert type(again) is cls
    assert (again.module, again.facts) == (patch.module, {"loss": [0.5]})
    assert np.array_equal(again.tensors["key"], patch.tensors["key"])
    assert patch.to_bytes() == again.to_bytes()
    assert patch != replace(patch, module="model.layers.1.mlp")


@given(st.integers(0, 4), st.integers(0, 3))
def test_erasing_an_edit_leaves_no_row_of_it(n: int, gone: int) -> None:
    rest, kept = hook(n).without(gone), [i for i in range(n) if i != gone]
    assert rest.owner.tolist() == kept
    assert np.array_equal(rest.tensors["key"], hook(n).tensors["key"][kept])
    assert np.array_equal(rest.tensors["bias"], hook(n).tensors["bias"][kept])


def test_every_row_has_an_owner_and_only_numbers() -> None:
    with pytest.raises(ValueError, match="belongs to one edit"):
        hook(2, owner=np.arange(1))
    endless = hook(1, tensors={"key": np.full((1, 2), np.inf, np.float32)})
    with pytest.raises(DamagedPatch, match="must be finite"):
        from_bytes(endless.to_bytes())
