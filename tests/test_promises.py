"""The journal's promises as users of a model see them; `store/test_promises.py` has all twelve."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import store
from lifelong import kept
from lifelong.runtime import EditableModel
from store import (
    DamagedDatabase,
    Journal,
    StoreFull,
    StoreReadOnly,
    WrongBase,
    WrongEncoder,
)
from tests.conftest import HashEncoder, tiny_lm

MakeModel = Callable[..., EditableModel]
QUESTIONS = ["Who runs Acme?", "Where is Globex?", "Who leads Bolt?", "What is the time?"]


def teach(model: EditableModel) -> None:
    model.edit("Who runs Acme?", "Dana Ruiz")
    model.edit("Where is Globex?", "Oslo")
    model.edit("Who leads Bolt?", "Al Moe")
    model.edit("Who runs Acme?", "Eve Poe")
    model.undo(3)


def answers(model: EditableModel) -> list[object]:
    """Texts, edits and scores: everything that a reply depends on."""
    return [model.chat(question) for question in QUESTIONS] + [
        model.explain(question) for question in QUESTIONS
    ]


def test_07_a_replayed_journal_answers_alike(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(store=tmp_path / "edits.db")
    teach(model)
    with Journal.read(tmp_path / "edits.db") as journal:
        journal.backup(tmp_path / "copy.db")
    assert answers(make_model(store=tmp_path / "copy.db")) == answers(model)


def test_09_what_is_derived_may_be_deleted(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.index, "EXACT", 1)
    monkeypatch.setattr(store.snapshot, "EXACT", 1)
    path = tmp_path / "edits.db"
    with make_model(store=path) as model:
        teach(model)
        before = answers(model)
    for _ in range(2):
        with make_model(store=path) as model:
            assert answers(model) == before
        shutil.rmtree(f"{path}.cache", ignore_errors=True)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [("PRAGMA max_page_count = 1", StoreFull), ("PRAGMA query_only = ON", StoreReadOnly)],
)
def test_10_corrections_fail_closed_and_the_chat_goes_on(
    make_model: MakeModel, tmp_path: Path, trouble: str, error: type[Exception]
) -> None:
    model = make_model(store=tmp_path / "edits.db")
    teach(model)
    before = answers(model)
    model._session.journal._file.rows(trouble)
    with pytest.raises(error, match="Nothing was written"):
        model.edit("Where is Acme?", "Rome " * 30, paraphrases=["x" * 1_000] * 90)
    assert answers(model) == before


@pytest.mark.usefixtures("rollback_journal")
def test_10_a_file_that_is_ruined_while_in_use(
    make_model: MakeModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "edits.db"
    model = make_model(store=path)
    teach(model)
    before = answers(model)
    path.write_bytes(b"ruined" * (path.stat().st_size // 6 + 1))
    assert answers(model) == before
    assert "answering as of 6" in caplog.text
    with pytest.raises(store.StoreError):
        model.edit("Where is Acme?", "Rome")


@pytest.mark.usefixtures("rollback_journal")
def test_10_of_a_ruined_file_an_edit_that_is_not_in_memory_is_missed_and_said_to_be(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST", 1)
    path = tmp_path / "edits.db"
    model = make_model(store=path)
    teach(model)
    model.chat("Where is Globex?")
    path.write_bytes(b"ruined" * (path.stat().st_size // 6 + 1))
    assert model.chat("Where is Globex?").edits
    assert not model.chat("What is the time?").edits
    with pytest.raises(store.StoreError, match="restore a backup"):
        model.chat("Who runs Acme?")


@pytest.mark.usefixtures("rollback_journal")
@pytest.mark.parametrize("damaged", ["vector", "text"])
def test_10_a_row_that_is_damaged_before_it_is_read(
    make_model: MakeModel, tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: str
) -> None:
    path = tmp_path / "edits.db"
    model, other = make_model(store=path), make_model(store=path)
    teach(model)
    before = answers(model)
    edit = other.edit("What does Acme sell?", "Rope")
    vector, text = other._session.router.vectors([edit]).tobytes(), edit.to_json().encode()
    spoilt = {"vector": (vector, bytes(1024)), "text": (text, text.replace(b"targ", b"tarG"))}
    path.write_bytes(path.read_bytes().replace(*spoilt[damaged]))
    assert answers(model) == before
    assert "answering as of 6" in caplog.text
    with pytest.raises(DamagedDatabase, match=rf"{damaged} of edit 5 .*Restore a backup"):
        make_model(store=path)


def test_12_another_model_or_encoder_is_refused_and_left_as_it_was(
    make_model: MakeModel, tmp_path: Path
) -> None:
    make_model(store=tmp_path / "edits.db").close()
    other = tiny_lm(seed=1)
    base = type(other.model)
    with pytest.raises(WrongBase, match="lifelong rebase"):
        EditableModel(
            other.model, other.tokenizer, store=tmp_path / "edits.db", encoder=HashEncoder()
        )
    assert type(other.model) is base
    another = HashEncoder()
    another.fingerprint = "hash-256-v2"
    same = tiny_lm()
    with pytest.raises(WrongEncoder, match="lifelong rebase"):
        EditableModel(same.model, same.tokenizer, store=tmp_path / "edits.db", encoder=another)
