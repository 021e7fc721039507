"""`lifelong store ...`: every command, its JSON, its exit code; packs through a pipe."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlite_utils.utils import sqlite3
from typer.testing import CliRunner, Result

from lifelong.cli import app
from lifelong.cli.store import COMMANDS
from store import Edit, Hint, Journal, Reading, schema
from tests.store.samples import later_release

Run = Callable[..., Result]
NAMES = sorted(command.__name__.rstrip("_") for command in COMMANDS)
ROOT = Path(__file__).parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edits.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """Ann of acme said two things, one of which was undone; nobody said a third."""
    with Journal.open(path, model="m1", encoder="e1", model_name="tiny") as journal:
        ann = {"user_id": "ann", "tenant": "acme"}
        said = [Edit("Where does Ann live?", "Secret Street", **ann), Edit("b", "two", **ann)]
        hint = Hint("serac", ("Secret Street", "two"))
        journal.record(said, hint, np.eye(8, dtype=np.float32)[:2])
        journal.record([Edit("Who runs Acme?", "Jane")], None)
        journal.retire(2)
        journal.note(Reading({"accuracy": 1.0}))
    return path


@pytest.fixture
def run(path: Path) -> Run:
    """`run("status", ...)`: `lifelong store status ...` on a store of its own."""

    def invoke(*arguments: str | Path, input: str | None = None) -> Result:
        words = ["store", *(str(a) for a in arguments)]
        environment = {"LIFELONG_STORE": str(path), "COLUMNS": "250"}
        return CliRunner().invoke(app, words, input, env=environment, catch_exceptions=False)

    return invoke


def data(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def piped(*arguments: str | Path, input: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-c", "from lifelong.cli import main; main()", "store", *arguments],
        input=input,
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def outline(path: Path) -> list[tuple[str, str]]:
    with Journal.read(path) as journal:
        return [(edit.target, edit.status) for edit in journal.edits()]


def spoil(path: Path) -> None:
    """Change the second event behind the store's back."""
    with sqlite3.connect(path) as vandal:
        vandal.execute("DROP TRIGGER event_no_update")
        vandal.execute("UPDATE event SET kind = 'retired' WHERE seq = 2")
    vandal.close()


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_what_every_command_takes(run: Run, name: str) -> None:
    assert f" {name} " in run("--help").stdout
    assert {"--store", "--json"} <= set(run(name, "--help").stdout.split())


def test_path(run: Run, path: Path) -> None:
    assert data(run("path", "--json")) == {"path": str(path), "exists": False}
    assert run("path").stdout == f"{path}\n"
    assert not path.exists()


def test_status(run: Run, filled: Path) -> None:
    found = data(run("status", "--json"))
    assert (found["path"], found["epoch"], found["integrity"]) == (str(filled), 4, "intact")
    assert found["edits"] == {"live": 2, "retired": 1}
    assert found["schema"].startswith("m0")
    assert found["bytes"]["file"] == filled.stat().st_size
    assert (found["made_for"]["model"], found["made_for"]["model_name"]) == ("m1", "tiny")
    assert found["reading"]["body"] == {"accuracy": 1.0}
    assert data(run("status", "--quick", "--json"))["integrity"] == "not checked"
    assert "live: 2" in run("status").stdout


def test_damage_is_named_and_exits_with_3(run: Run, filled: Path) -> None:
    assert data(run("verify", "--json")) == {"epoch": 4}
    spoil(filled)
    checked = run("verify")
    assert (checked.exit_code, checked.stdout) == (3, "")
    assert "breaks at event 2 (edit 2" in checked.stderr
    assert "everything up to epoch 1 holds" in checked.stderr
    status = run("status", "--json")
    assert (status.exit_code, "event 2" in json.loads(status.stdout)["integrity"]) == (3, True)


@pytest.mark.parametrize("name", ["status", "verify", "rebuild", "migrate", "erase"])
def test_what_is_not_there_exits_with_3(run: Run, path: Path, name: str) -> None:
    missing = run(name, *(["1", "--yes"] if name == "erase" else []))
    assert (missing.exit_code, "There is no store" in missing.stderr) == (3, True)
    path.write_bytes(b"no database at all")
    assert run(name, *(["1", "--yes"] if name == "erase" else [])).exit_code == 3


def test_backup_and_restore(run: Run, filled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert data(run("backup", copy, "--json")) == {"path": str(copy), "epoch": 4}
    assert run("backup", copy).exit_code == 3
    before = outline(filled)
    with Journal.tend(filled) as journal:
        journal.retire(1)
    no = run("restore", copy, input="n\n")
    assert (no.exit_code, outline(filled)[0][1]) == (1, "retired")
    restored = data(run("restore", copy, "--yes", "--json"))
    assert (restored["epoch"], outline(filled)) == (4, before)
    assert outline(Path(restored["set_aside"]))[0][1] == "retired"


def test_restoring_where_nothing_is_needs_no_yes(run: Run, filled: Path, tmp_path: Path) -> None:
    filled.rename(tmp_path / "copy.db")
    assert data(run("restore", tmp_path / "copy.db", "--json"))["set_aside"] is None
    assert len(outline(filled)) == 3


def test_rebuild_throws_the_cache_away(run: Run, filled: Path) -> None:
    old = Path(f"{filled}.cache") / "old"
    old.parent.mkdir()
    old.touch()
    assert data(run("rebuild", "--json")) == {"edits": 1}
    assert not old.exists()


def test_rebuild_of_an_empty_store(run: Run, path: Path) -> None:
    Journal.open(path, model="m", encoder="e").close()
    assert data(run("rebuild", "--json")) == {"edits": 0}


def test_a_pack_goes_out_and_comes_in(run: Run, filled: Path, tmp_path: Path) -> None:
    folder, other = tmp_path / "pack", tmp_path / "other.db"
    assert data(run("export", folder, "--json")) == {"path": str(folder)}
    assert run("export", folder).exit_code == 3
    come = data(run("import", folder, "--store", other, "--json"))
    assert (come["ids"], outline(other)) == ([1, 2, 3], outline(filled))
    again = data(run("import", folder, "--store", other, "--json"))
    assert (again["ids"], again["epoch"]) == ([], come["epoch"])
    (folder / "edits.jsonl").write_text("{}\n")
    spoilt = run("import", folder, "--store", tmp_path / "third.db")
    assert (spoilt.exit_code, "does not match the manifest" in spoilt.stderr) == (1, True)
    assert not (tmp_path / "third.db").exists()


def test_a_pack_of_another_model_is_refused(run: Run, filled: Path, tmp_path: Path) -> None:
    run("export", tmp_path / "pack")
    other = tmp_path / "other.db"
    Journal.open(other, model="m2", encoder="e1").close()
    refused = run("import", tmp_path / "pack", "--store", other)
    assert (refused.exit_code, "made for the model" in refused.stderr) == (3, True)


def test_a_pack_goes_through_a_pipe(filled: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    sent = piped("export", "-", "--store", filled)
    assert sent.returncode == 0, sent.stderr
    for new in ([1, 2, 3], []):
        came = piped("import", "-", "--store", other, "--json", input=sent.stdout)
        assert json.loads(came.stdout)["ids"] == new, came.stderr
    assert outline(other) == outline(filled)
    cut = piped("import", "-", "--store", other, input=sent.stdout[: len(sent.stdout) // 3])
    assert (cut.returncode, b"Nothing was imported" in cut.stderr) == (1, True)


def test_corrections_may_come_through_the_same_pipe(
    path: Path, model_folder: Path, encoder_folder: Path
) -> None:
    line = json.dumps({"prompt": "Who runs Acme?", "target": "Jane"}).encode()
    models = ("--model", model_folder, "--encoder", encoder_folder)
    came = piped("import", "-", "--store", path, *models, "--json", input=line)
    assert json.loads(came.stdout) == {"line": 1, "id": 1, "epoch": 1}, came.stderr


def test_migrate(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = data(run("migrate", "--json"))
    assert now["backup"] is None
    monkeypatch.setattr(schema, "migrations", later_release())
    assert run("status").exit_code == 3
    moved = data(run("migrate", "--json"))
    assert moved["schema"] == "m900_extra"
    assert Path(moved["backup"]).exists()


def test_erase_a_person(run: Run, filled: Path) -> None:
    before = outline(filled)
    assert run("erase", "--user", "ann", "--tenant", "acme", input="n\n").exit_code == 1
    assert outline(filled) == before
    gone = data(run("erase", "--user", "ann", "--tenant", "acme", "--yes", "--json"))
    assert (gone["erased"], gone["copies"]) == ([1, 2], [])
    assert b"Secret Street" not in filled.read_bytes()
    assert data(run("verify", "--json")) == {"epoch": gone["epoch"]}
    assert outline(filled) == [("", "retired"), ("", "retired"), ("Jane", "live")]


def test_an_erased_edit_brings_no_older_one_back_beside_a_newer_one(run: Run, path: Path) -> None:
    with Journal.open(path, model="m1", encoder="e1") as journal:
        about = {"subject": "Acme", "relation": "ceo"}
        journal.record([Edit("Where is Acme's head?", "Kim", **about)], None)
        journal.record([Edit("Who runs Acme?", "Dana", **about)], None, supersedes={0: [1]})
        journal.record([Edit("Where is Acme's head?", "Oslo", subject="Acme")], None)
    assert data(run("erase", "2", "--yes", "--json"))["erased"] == [2]
    assert outline(path) == [("Kim", "superseded"), ("", "retired"), ("Oslo", "live")]
    assert data(run("erase", "3", "--yes", "--json"))["erased"] == [3]
    assert outline(path) == [("Kim", "live"), ("", "retired"), ("", "retired")]


def test_erase_by_tenant_or_ids_and_what_may_still_hold_it(run: Run, filled: Path) -> None:
    copy = Path(f"{filled}.before-m002_next")
    copy.touch()
    assert data(run("erase", "--user", "ann", "--yes", "--json"))["erased"] == []
    assert data(run("erase", "3", "--yes", "--json")) == {
        "erased": [3],
        "epoch": 6,
        "copies": [str(copy)],
    }
    assert data(run("erase", "--tenant", "acme", "--yes", "--json"))["erased"] == [1, 2]
    assert run("erase", "9", "--yes").exit_code == 1
    assert run("erase", "--yes").exit_code == 2


def test_no_command_loads_a_model(filled: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from lifelong.cli import app\n"
        "path, folder = sys.argv[1:]\n"
        "for command in (['path'], ['status'], ['verify'], ['backup', folder + '/copy.db'],\n"
        "    ['restore', folder + '/copy.db', '--yes'], ['rebuild'], ['export', folder + '/p'],\n"
        "    ['import', folder + '/p'], ['migrate'], ['erase', '1', '--yes']):\n"
        "    app(['store', *command, '--store', path], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    arguments = [sys.executable, "-c", script, str(filled), str(tmp_path)]
    done = subprocess.run(arguments, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
