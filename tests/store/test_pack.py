"""Copies of a store: backups and packs."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from store import (
    DamagedDatabase,
    DamagedPack,
    Edit,
    Hint,
    Journal,
    StoreUnavailable,
    WrongEncoder,
    put_back,
)
from tests.store.samples import say, unit

Reopen = Callable[[], Journal]


@pytest.fixture
def other(tmp_path: Path) -> Journal:
    with Journal.open(tmp_path / "other.db", model="m1", encoder="e1") as journal:
        yield journal


def outline(journal: Journal) -> list[tuple[str, str]]:
    return [(edit.target, edit.status) for edit in journal.edits()]


def fill(journal: Journal) -> None:
    say(journal, "Jane")
    say(journal, "John", 1)
    said = [Edit("a", "one", tenant="acme"), Edit("b", "two", user_id="ann")]
    journal.record(said, Hint("serac", ("one", "two")), unit(5, 6))
    journal.record([Edit("wrong?", "")], None, status="proposed")
    journal.retire(4)
    journal.promote(3, "everyone")


def test_a_pack_carries_edits_patches_and_vectors(
    journal: Journal, other: Journal, tmp_path: Path
) -> None:
    fill(journal)
    say(other, "already here")
    folder = journal.export(tmp_path / "pack")
    new = other.import_(folder)
    assert [edit.id for edit in new] == [2, 3, 4, 5, 6]
    assert outline(other)[1:] == outline(journal)
    assert [p.patch for p in other.patches()][1:] == [p.patch for p in journal.patches()]
    assert (other.vectors([2, 3, 4, 5])[1] == journal.vectors([1, 2, 3, 4])[1]).all()
    assert other.get(4).audience == journal.get(3).audience
    assert other.verify() == other.epoch
    other.retire(3)
    assert other.get(2).status == "live"


def test_importing_again_adds_nothing(journal: Journal, other: Journal, tmp_path: Path) -> None:
    fill(journal)
    folder = journal.export(tmp_path / "pack")
    other.import_(folder)
    other.retire(2)
    epoch = other.epoch
    assert other.import_(folder) == []
    assert (other.epoch, other.get(2).status) == (epoch, "retired")
    assert journal.import_(folder) == []
    assert journal.import_(other.export(tmp_path / "back")) == []
    assert journal.verify() == journal.epoch


def test_a_newer_pack_supersedes_what_came_with_the_older(
    journal: Journal, other: Journal, tmp_path: Path
) -> None:
    say(journal, "Jane")
    other.import_(journal.export(tmp_path / "one"))
    say(journal, "John", 1)
    other.import_(journal.export(tmp_path / "two"))
    assert outline(other) == [("Jane", "superseded"), ("John", "live")]


@pytest.mark.parametrize("name", ["edits.jsonl", "edits.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_pack_changes_nothing(
    journal: Journal, other: Journal, tmp_path: Path, name: str, damage: str
) -> None:
    fill(journal)
    file = journal.export(tmp_path / "pack") / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.raises(DamagedPack, match="Nothing was imported"):
        other.import_(tmp_path / "pack")
    assert other.edits() == []


def test_a_pack_of_nonsense_is_damaged(journal: Journal, other: Journal, tmp_path: Path) -> None:
    say(journal, "Jane")
    folder = journal.export(tmp_path / "pack")
    (folder / "edits.jsonl").write_text('{"id": 1}\n')
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["edits.jsonl"] = hashlib.sha256(b'{"id": 1}\n').hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedPack, match="no edit"):
        other.import_(folder)


def test_a_pack_of_another_encoder_is_refused(journal: Journal, tmp_path: Path) -> None:
    say(journal, "Jane")
    folder = journal.export(tmp_path / "pack")
    with (
        Journal.open(tmp_path / "third.db", model="m1", encoder="e2") as third,
        pytest.raises(WrongEncoder),
    ):
        third.import_(folder)


def test_an_empty_store_travels_too(journal: Journal, other: Journal, tmp_path: Path) -> None:
    assert other.import_(journal.export(tmp_path / "pack")) == []


def test_a_backup_is_the_store_as_of_then(journal: Journal, tmp_path: Path) -> None:
    fill(journal)
    before = journal.edits()
    copy = journal.backup(tmp_path / "copy.db")
    say(journal, "later")
    with Journal.read(copy) as backup:
        assert backup.edits() == before
        assert backup.verify() == journal.epoch - 1
    with pytest.raises(StoreUnavailable, match="exists"):
        journal.backup(copy)
    assert not list(tmp_path.glob("*.part"))


def test_restoring_a_backup(journal: Journal, path: Path, reopen: Reopen, tmp_path: Path) -> None:
    fill(journal)
    before, copy = journal.edits(), journal.backup(tmp_path / "copy.db")
    say(journal, "later")
    journal.close()
    path.write_bytes(path.read_bytes()[:5000])
    put_back(copy, path)
    assert reopen().edits() == before
    assert np.array_equal(reopen().vectors([1])[1], unit(4))
    assert len(list(tmp_path.glob("lifelong.db.set-aside-*"))) == 1


def test_restoring_over_a_store_in_use(journal: Journal, path: Path, tmp_path: Path) -> None:
    say(journal, "Jane")
    copy = journal.backup(tmp_path / "copy.db")
    say(journal, "later")
    aside = put_back(copy, path)
    assert [e.target for e in journal.live()] == ["Jane"]
    with Journal.read(aside) as old:
        assert [e.target for e in old.live()] == ["Jane", "later"]


def test_a_damaged_backup_is_not_put_back(journal: Journal, path: Path, tmp_path: Path) -> None:
    for i in range(40):
        say(journal, "x" * i)
    copy = journal.backup(tmp_path / "copy.db")
    copy.write_bytes(copy.read_bytes()[:-3000])
    with pytest.raises(DamagedDatabase):
        put_back(copy, path)
    assert len(journal.live()) == 40
