"""The command line: every command, its JSON, its exit code; a chat through a pipe; an import."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils.utils import sqlite3
from typer.testing import CliRunner, Result

from lifelong.cli import COMMANDS, app, chat
from lifelong.cli.feed import verdicts
from lifelong.errors import AlreadyTaught
from lifelong.runtime import DEFAULT_STORE, EditableModel
from store import Edit, Journal

Run = Callable[..., Result]

NAMES = sorted(command.__name__.rstrip("_") for command in COMMANDS)
ROOT = Path(__file__).parent.parent
CHIEF = "Who is the chief of Acme?"
NEAR = "Tell me where Acme runs?"


@pytest.fixture
def run(
    tmp_path: Path, model_folder: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """`run("ask", ...)`: the command on a store of its own, a tiny model and a tiny encoder."""
    monkeypatch.setenv("LIFELONG_STORE", str(tmp_path / "edits.db"))
    monkeypatch.setenv("LIFELONG_MODEL", str(model_folder))
    monkeypatch.setenv("LIFELONG_ENCODER", str(encoder_folder))
    monkeypatch.setenv("COLUMNS", "250")

    def invoke(*arguments: str | Path, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], input, catch_exceptions=False)

    return invoke


def data(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def taught(run: Run) -> Run:
    """`run`, with one edit made."""
    data(run("edit", CHIEF, "Jane", "--json"))
    return run


# -- the commands --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_what_every_command_takes(run: Run, name: str) -> None:
    assert f" {name} " in run("--help").stdout
    said = run(name, "--help").stdout
    for option in ("--store", "--model", "--encoder", "--json", "LIFELONG_STORE", DEFAULT_STORE):
        assert option in said


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in NAMES if f"lifelong {name}" not in readme] == []


def test_edit_ask_why(run: Run) -> None:
    assert data(run("edit", CHIEF, "Jane", "--json")) == {"id": 1, "epoch": 1, "status": "live"}
    answer = data(run("ask", CHIEF, "--json"))
    assert "Jane" in answer["text"]
    assert answer["epoch"] == 1
    [shaped] = answer["edits"]
    assert shaped["id"] == 1
    assert 0.5 < shaped["score"] <= 1
    reason = data(run("why", CHIEF, "--json"))
    hit = {"id": 1, "score": shaped["score"], "prompt": CHIEF, "target": "Jane"}
    assert reason == {"epoch": 1, "hits": [hit], "near": [], "chain": []}


def test_what_nearly_fired_is_named(taught: Run) -> None:
    reason = data(taught("why", NEAR, "--json"))
    assert reason["hits"] == []
    assert [near["id"] for near in reason["near"]] == [1]
    assert "nearly by edit 1" in taught("why", NEAR).stdout


def test_a_chain_is_shown_in_one_line(run: Run) -> None:
    run("edit", "The country of citizenship of Ann Lee is", "Peru", "--subject", "Ann Lee")
    run("edit", "Who leads Peru?", "Bo Roe", "--subject", "Peru")
    asked = ("why", "Who leads the country of citizenship of Ann Lee?", "--multihop")
    shown = " ".join(run(*asked).stdout.split())
    assert "along Ann Lee -country of citizenship-> Peru (edit 1) -leads-> Bo Roe (edit 2)" in shown
    assert [hop["target"] for hop in data(run(*asked, "--json"))["chain"]] == ["Peru", "Bo Roe"]


def test_ask_as_of_an_epoch_and_without_a_template(taught: Run) -> None:
    assert data(taught("ask", CHIEF, "--at", "0", "--json"))["edits"] == []
    assert data(taught("ask", CHIEF, "--at", "1", "--json"))["edits"] != []
    raw = data(taught("ask", CHIEF, "--complete", "--max-new-tokens", "8", "--json"))
    assert raw["text"].startswith("Jane")
    assert taught("ask", CHIEF, "--at", "7").exit_code == 1


def test_people_get_the_answer_alone_on_stdout(taught: Run) -> None:
    result = taught("ask", CHIEF)
    assert "Jane" in result.stdout
    assert "edit 1" not in result.stdout
    assert "by edit 1" in result.stderr


def test_undo_redo(taught: Run) -> None:
    assert data(taught("undo", "1", "--json")) == {"id": 1, "epoch": 2, "status": "retired"}
    assert data(taught("ask", CHIEF, "--json"))["edits"] == []
    assert data(taught("redo", "1", "--json")) == {"id": 1, "epoch": 3, "status": "live"}
    assert "Jane" in data(taught("ask", CHIEF, "--json"))["text"]


def test_undo_with_replay(taught: Run) -> None:
    assert data(taught("undo", "1", "--replay", "--json")) == {
        "id": 1,
        "epoch": 2,
        "status": "retired",
    }


def test_undo_says_what_came_back(taught: Run) -> None:
    taught("edit", CHIEF, "Eve")
    assert taught("undo", "2").stdout.splitlines() == ["Edit 2 is retired.", "Edit 1 is live."]


def test_redo_takes_the_place_of_what_was_taught_meanwhile(taught: Run) -> None:
    taught("undo", "1")
    taught("edit", CHIEF, "Eve")
    taught("redo", "1")
    assert [e["id"] for e in data(taught("list", "--status", "live", "--json"))] == [1]


def test_list_show_history(taught: Run) -> None:
    taught("edit", CHIEF, "Eve", "--subject", "Acme", "--relation", "chief")
    listed = data(taught("list", "--json"))
    assert listed[1] == {
        "id": 2,
        "epoch": 3,
        "status": "live",
        "prompt": CHIEF,
        "target": "Eve",
        "subject": "Acme",
        "relation": "chief",
        "method": "serac",
        "user_id": None,
        "tenant": None,
    }
    assert [edit["status"] for edit in listed] == ["superseded", "live"]
    shown = data(taught("show", "2", "--json"))
    assert listed[1].items() <= shown.items()
    events = data(taught("history", "--json"))
    assert [(e["epoch"], e["id"], e["status"]) for e in events] == [
        (1, 1, "live"),
        (2, 1, "superseded"),
        (3, 2, "live"),
    ]
    assert data(taught("history", "1", "--json")) == events[:2]
    for command in (["list"], ["show", "2"], ["history"]):
        assert "live" in taught(*command).stdout


def test_eval(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))
    file, out = tmp_path / "records.jsonl", tmp_path / "out"
    file.write_text(f"{record(CHIEF, 'Jane')}\n{record('Who runs Bolt?', 'Eve', subject='Bolt')}\n")
    asked = ("eval", file, "--out", out, "--checkpoints", "1,2", "--scalability", "1")
    found = data(run(*asked, "--baselines", "none", "--json"))
    assert [(e["method"], e["checkpoint"]) for e in found["results"]] == [
        (name, step) for name in ("serac", "none") for step in (1, 2)
    ]
    assert found["results"][1]["accuracy"]["value"] == 1
    assert found["run"]["method"] == "serac"
    assert json.loads((out / "results.json").read_text()) == found
    again = run(*asked, "--baselines", "none")
    assert "100.0%" in again.stdout
    assert run(*asked).exit_code == 1  # another run than the one in the folder
    assert run(*asked, "--set", "speed=1").exit_code == 1
    assert run(*asked, "--set", "speed").exit_code == 2
    assert run(*asked[:4], "--checkpoints", "one").exit_code == 2


def test_check_asks_paraphrases_and_locality(run: Run) -> None:
    run("edit", CHIEF, "Jane", "--paraphrase", "Who leads Acme?", "--locality", "Who runs Bolt?")
    reading = data(run("check", "--sample", "3", "--json"))
    assert reading["accuracy"] == reading["generality"] == reading["locality"] == 1.0
    assert (reading["id"], reading["epoch"], reading["sampled"]) == (1, 1, 1)
    assert "accuracy" in run("check").stdout


def test_check_exits_with_1_on_an_alarm(taught: Run, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "edits.db") as db:
        db.execute("UPDATE content SET body = replace(body, 'Jane', 'Joan')")
    db.close()
    result = taught("check", "--json")
    assert result.exit_code == 1
    (alarm,) = (a for a in json.loads(result.stdout)["alarms"] if a["kind"] == "damage")
    assert alarm["suspects"] == [1]
    assert "fails its hash. Suspects: [1]" in taught("check").stdout


def test_report_shows_the_readings_without_a_model(taught: Run, tmp_path: Path) -> None:
    unread = taught("report")
    assert (unread.exit_code, unread.stdout) == (1, "")
    assert "`lifelong check` takes one" in unread.stderr
    data(taught("check", "--json"))
    assert "100.0%" in taught("report").stdout
    (reading,) = data(taught("report", "--out", tmp_path / "page.md", "--json"))
    assert reading["accuracy"] == 1.0
    assert {path.name for path in tmp_path.glob("page*")} == {
        "page.md", "page-shares.png", "page-age.png"
    }  # fmt: skip
    assert taught("report", "--html", "--out", tmp_path / "page.html").exit_code == 0
    assert "<h1>" in (tmp_path / "page.html").read_text()
    nowhere = taught("report", "--out", tmp_path / "no" / "page.md")
    assert (nowhere.exit_code, "cannot be written" in nowhere.stderr) == (1, True)


def test_nothing_but_commands_that_answer_load_a_model(tmp_path: Path) -> None:
    path = tmp_path / "edits.db"
    with Journal.open(path, model="m", encoder="e") as journal:
        journal.record([Edit(CHIEF, "Jane")], None)
    script = (
        "import sys; from lifelong.cli import app\n"
        "for command in (['list'], ['show', '1'], ['history'], ['undo', '1'], ['redo', '1']):\n"
        "    app([*command, '--store', sys.argv[1]], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, cwd=ROOT)
    assert done.returncode == 0


ANN = ("--user", "ann", "--tenant", "red")


def test_an_edit_for_one_user_and_its_promotion(run: Run) -> None:
    data(run("edit", CHIEF, "Jane", *ANN, "--json"))
    eve = ("--user", "ann", "--tenant", "blue")
    for asker, ids in ((ANN, [1]), (eve, []), ((), [])):
        assert [e["id"] for e in data(run("ask", CHIEF, *asker, "--json"))["edits"]] == ids
        assert [e["id"] for e in data(run("why", CHIEF, *asker, "--json"))["hits"]] == ids
    for command in (["list"], ["search", "chief jane"]):
        assert [e["tenant"] for e in data(run(*command, *ANN, "--json"))] == ["red"]
        assert data(run(*command, *eve, "--json")) == []
        assert len(data(run(*command, "--json"))) == 1  # whoever has the file sees it all
    assert data(run("promote", "1", "everyone", "--json"))["status"] == "live"
    assert [e["id"] for e in data(run("ask", CHIEF, *eve, "--json"))["edits"]] == [1]
    assert run("promote", "1", "nobody").exit_code == 2


def test_the_queue(run: Run) -> None:
    assert data(run("edit", CHIEF, "Jane", "--pending", "--json"))["status"] == "pending"
    run("edit", NEAR, "Oslo", "--pending", *ANN)
    assert data(run("wrong", CHIEF, "Kim", "--json"))["status"] == "proposed"
    assert [e["id"] for e in data(run("review", "--json"))] == [1, 2, 3]
    assert [e["id"] for e in data(run("review", "--tenant", "red", "--json"))] == [2]
    assert data(run("approve", "1", "--json"))["status"] == "live"
    assert data(run("reject", "2", "--reason", "no source", "--json"))["status"] == "rejected"
    assert data(run("history", "2", "--json"))[-1]["reason"] == "no source"
    assert run("approve", "3").exit_code == 1
    assert run("approve", "2").exit_code == 1
    made = data(run("approve", "3", "--target", "Eve", "--json"))
    assert (made["id"], made["status"]) == (4, "live")
    statuses = ["superseded", "rejected", "rejected", "live"]
    assert [e["status"] for e in data(run("list", "--json"))] == statuses
    assert data(run("review", "--json")) == []


def test_a_key_a_conflict_and_an_end(taught: Run) -> None:
    made = ("edit", NEAR, "Oslo", "--key", "k", "--until", "2100-01-01T00:00:00+00:00")
    assert data(taught(*made, "--json")) == data(taught(*made, "--json"))
    assert data(taught("show", "2", "--json"))["valid_until"].startswith("2100")
    assert taught("edit", NEAR, "Rome", "--key", "k").exit_code == 1
    refused = taught("edit", CHIEF, "Eve", "--on-conflict", "reject")
    assert (refused.exit_code, "direct, edit 1" in refused.stderr) == (1, True)
    assert taught("edit", CHIEF, "Eve", "--until", "soon").exit_code == 1
    assert data(taught("expire", "--json")) == []
    assert [e["status"] for e in data(taught("list", "--json"))] == ["live", "live"]


def test_diff(taught: Run) -> None:
    taught("edit", CHIEF, "Eve")
    found = data(taught("diff", "1", "3", CHIEF, "--json"))
    assert [(e["id"], e["before"], e["after"]) for e in found["edits"]] == [
        (1, "live", "superseded"),
        (2, None, "live"),
    ]
    assert ["Jane" in found["answers"][0], "Eve" in found["answers"][1]] == [True, True]
    assert data(taught("diff", "3", "3", "--json")) == {"edits": []}
    assert "superseded" in taught("diff", "1", "3").stdout


# -- settings and exit codes ---------------------------------------------------------------------


def test_an_option_wins_over_the_environment(taught: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    data(taught("edit", CHIEF, "Eve", "--store", other, "--json"))
    assert [e["target"] for e in data(taught("list", "--store", other, "--json"))] == ["Eve"]
    assert [e["target"] for e in data(taught("list", "--json"))] == ["Jane"]


REFUSED: list[list[str]] = [
    ["edit", CHIEF],
    ["edit", CHIEF, ""],
    ["edit", CHIEF, "Jane"],
    ["edit", CHIEF, "Eve", "--method", "magic"],
    ["edit", CHIEF, "<|im_end|>"],
    ["edit", "x" * 3000, "Eve"],
    ["undo", "9"],
    ["redo", "1"],
    ["show", "9"],
    ["history", "9"],
]
USAGE: list[list[str]] = [
    [],
    ["frob"],
    ["edit"],
    ["undo", "one"],
    ["undo", "0"],
    ["list", "--status", "odd"],
    ["ask", CHIEF, "--max-new-tokens", "0"],
    ["import", "missing.jsonl"],
    ["chat", "--json"],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda a: " ".join(a)[:30])
def test_what_is_refused_exits_with_1(taught: Run, arguments: list[str]) -> None:
    result = taught(*arguments, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert len(data(taught("history", "--json"))) == 1


def test_undo_twice_is_refused(taught: Run) -> None:
    taught("undo", "1")
    result = taught("undo", "1")
    assert result.exit_code == 1
    assert "`lifelong redo ID` brings a retired edit back" in result.stderr


@pytest.mark.parametrize("arguments", USAGE, ids=lambda a: " ".join(a)[:30] or "none")
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_what_cannot_be_used_exits_with_3(run: Run, tmp_path: Path) -> None:
    missing = run("list")
    assert (missing.exit_code, missing.stdout) == (3, "")
    assert "There is no store" in missing.stderr
    assert not (tmp_path / "edits.db").exists()
    assert run("ask", CHIEF, "--model", tmp_path / "none").exit_code == 3
    assert run("ask", CHIEF, "--encoder", tmp_path / "none").exit_code == 3
    (tmp_path / "edits.db").write_bytes(b"no database at all")
    assert run("edit", CHIEF, "Jane").exit_code == 3
    Journal.open(tmp_path / "other.db", model="m", encoder="e").close()
    other = run("ask", CHIEF, "--store", tmp_path / "other.db")
    assert (other.exit_code, "made for the model" in other.stderr) == (3, True)


def test_doctor(taught: Run, tmp_path: Path) -> None:
    report = data(taught("doctor", "--json"))
    assert report["ok"]
    names = {check["name"] for check in report["checks"]}
    assert {"torch", "sqlite", "model", "encoder", "store", "disk", "all together"} <= names
    assert "journal mode" in taught("doctor").stdout
    (tmp_path / "bad.db").write_bytes(b"no database at all")
    ill = taught("doctor", "--json", "--store", tmp_path / "bad.db", "--model", tmp_path / "none")
    wrong = [check for check in json.loads(ill.stdout)["checks"] if not check["ok"]]
    assert (ill.exit_code, [check["name"] for check in wrong]) == (3, ["model", "store"])
    assert all(check["found"] and check["remedy"] for check in wrong)


def test_doctor_finds_a_store_of_another_model(run: Run, tmp_path: Path) -> None:
    Journal.open(tmp_path / "edits.db", model="m", encoder="e").close()
    ill = run("doctor", "--json")
    wrong = [check["name"] for check in json.loads(ill.stdout)["checks"] if not check["ok"]]
    assert (ill.exit_code, wrong) == (3, ["all together"])


def test_doctor_leaves_no_store_behind(run: Run, tmp_path: Path) -> None:
    assert run("doctor").exit_code == 0
    assert not (tmp_path / "edits.db").exists()


# -- import --------------------------------------------------------------------------------------


def record(prompt: str, target: str, **more: Any) -> str:
    return json.dumps({"prompt": prompt, "target": target, **more})


LINES: list[tuple[str, str | None]] = [
    (record(CHIEF, "Jane"), None),
    ("", "blank"),
    ("{no json", "no JSON"),
    ("[1, 2]", "is a list"),
    ("7", "is a int"),
    (record("Who runs Bolt?", "Eve", subject="Bolt", portability=[]), None),
    (record("Who runs Bolt?", ""), "no words"),
    ('{"prompt": "Who runs Bolt?"}', "has no 'target'"),
    (record(CHIEF, "Jane"), "already says"),
    (record(CHIEF, "Zoe"), None),
    (record(CHIEF, "Jane", colour="red"), "unknown field 'colour'"),
    (record("Who runs \ud800?", "Eve"), "control character"),
    ('{"prompt": "Who runs Cog?", "target": "Al", "provenance": {"x": NaN}}', "cannot be kept"),
    ("[" * 100_000, "no JSON"),
    (record("Who runs Cog?", "Al"), None),
]


@pytest.mark.parametrize("from_stdin", [False, True])
def test_every_line_gets_its_verdict(run: Run, tmp_path: Path, from_stdin: bool) -> None:
    text = "\n".join(line for line, _ in LINES).encode() + b"\n\xff\n"
    (tmp_path / "in.jsonl").write_bytes(text)
    result = run(
        *("import", "-" if from_stdin else tmp_path / "in.jsonl", "--json"),
        input=text if from_stdin else None,
    )
    assert result.exit_code == 1
    verdicts = [json.loads(line) for line in result.stdout.splitlines()]
    expected = [*LINES, ("\xff", "no JSON")]
    numbers = [n for n, (_, error) in enumerate(expected, 1) if error != "blank"]
    assert [verdict["line"] for verdict in verdicts] == numbers
    for verdict in verdicts:
        error = expected[verdict["line"] - 1][1]
        assert set(verdict) == ({"line", "error"} if error else {"line", "id", "epoch"})
        assert (error or "") in verdict.get("error", "")
    live = data(run("list", "--status", "live", "--json"))
    assert [(e["prompt"], e["target"]) for e in live] == [
        ("Who runs Bolt?", "Eve"),
        (CHIEF, "Zoe"),
        ("Who runs Cog?", "Al"),
    ]


def test_import_in_words(run: Run, tmp_path: Path) -> None:
    good = run("import", "-", input=record(CHIEF, "Jane"))
    assert (good.exit_code, good.stdout) == (0, "1 recorded, 0 refused, epoch 1.\n")
    bad = run("import", "-", input="{\n")
    assert (bad.exit_code, bad.stdout) == (1, "0 recorded, 1 refused, epoch 1.\n")
    assert bad.stderr.startswith("line 1: The line is no JSON")


def test_a_pipe_may_wait_for_each_verdict(
    model_folder: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    seen: list[object] = []

    def lines() -> Iterator[bytes]:
        yield record(CHIEF, "Jane").encode()
        assert len(seen) == 1
        yield record(CHIEF, "Jane").encode()
        assert len(seen) == 2

    with EditableModel.from_pretrained(
        str(model_folder), store=tmp_path / "e.db", encoder=str(encoder_folder)
    ) as model:
        for _, verdict in verdicts(model, lines(), "serac", 1):
            seen.append(verdict)
    assert [type(verdict) for verdict in seen] == [Edit, AlreadyTaught]


def test_a_statement_is_an_edit(run: Run) -> None:
    stated = "Actually, the chief of Acme is Jane since May"
    assert run("edit", stated).stdout == "Edit 1 is live: the chief of Acme is -> Jane\n"
    assert data(run("show", "1", "--json"))["provenance"] == {"statement": stated}
    assert "Jane" in run("ask", CHIEF).stdout
    assert run("edit", "Hm").exit_code == 1
    other = run("edit", "As of May Ann Lee leads Acme", "--by-model")
    assert "Edit 2 is live: " in other.stdout


# -- chat ----------------------------------------------------------------------------------------


def talk(run: Run, *lines: str, arguments: Sequence[str] = ()) -> Result:
    result = run("chat", *arguments, input="\n".join(lines))
    assert result.exit_code == 0
    return result


def test_a_chat_is_corrected_and_says_why(run: Run) -> None:
    said = talk(run, CHIEF, "/correct Jane", "Tell me who is the chief of Acme.", "/why", "/edits")
    assert "Edit 1 is live, about Acme" in said.stdout
    assert "Jane" in said.stdout.split("in any words.")[1].split("shaped by")[0]
    assert "shaped by edit 1 (score" in said.stdout
    assert said.stderr == ""
    assert [e["target"] for e in data(run("list", "--json"))] == ["Jane"]
    assert data(run("show", "1", "--json"))["provenance"] == {"source": "chat"}


def test_a_denial_in_a_chat_is_recorded_on_a_yes_only(run: Run) -> None:
    said = talk(run, CHIEF, "No, it's Jane.", "no", "No, it's Eve.", "What is the chief?", "yes")
    assert said.stdout.count("Record it (") == 2
    assert "Nothing was recorded." in said.stdout
    assert data(run("list", "--json")) == []
    said = talk(run, CHIEF, "No, it's Jane.", "/help", "yes")
    assert data(run("list", "--json")) == []
    said = talk(run, CHIEF, "No, it's Jane.", "Yes", CHIEF)
    assert f"Record it ({CHIEF} -> Jane)?" in said.stdout
    assert "Jane" in said.stdout.split("in any words.")[1]


def test_a_follow_up_is_corrected_in_full(run: Run) -> None:
    said = talk(
        run, NEAR, "And who is its chief?", "/correct Jane", "And who is its chief?", "/why"
    )
    (made,) = data(run("list", "--json"))
    assert (made["prompt"], made["subject"]) == ("And who is Acme's chief?", "Acme")
    assert "shaped by edit 1" in said.stdout


def test_undo_redo_base_in_a_chat(taught: Run) -> None:
    base = data(taught("ask", CHIEF, "--at", "0", "--json"))["text"]
    said = talk(taught, CHIEF, "!base", "!undo 1", CHIEF, "!why", "!redo", CHIEF, "/quit", CHIEF)
    edited, undone = said.stdout.split("Edit 1 is retired")
    assert "Jane" in edited
    assert base in edited
    undone, redone = undone.split("Edit 1 is live")
    assert base in undone
    assert "no edit: this is the base model's own answer" in undone
    assert said.stdout.count(base) == 2
    assert "Jane" in redone.split("\n", 1)[1]


def test_a_chat_of_one_user_and_what_others_get_of_it(run: Run) -> None:
    lines = (CHIEF, "/correct Jane", "/for all", "/for you", "Who?", "/wrong")
    said = talk(run, *lines, arguments=ANN).stdout
    assert "Edit 1 is live for everyone." in said
    assert "Complaint 2 waits" in said
    edits = data(run("list", "--json"))
    assert [(e["tenant"], e["status"]) for e in edits] == [(None, "live"), ("red", "proposed")]


def test_a_chat_goes_on_after_errors(run: Run) -> None:
    wrong = ["/correct Jane", "/why", "/base", "/undo", "/redo", "/undo 4", "/undo x", "/frob", "/"]
    said = talk(run, *wrong, "", CHIEF, "/correct", "/correct Jane", "/correct Jane", "/help")
    errors = said.stderr.splitlines()
    assert len(errors) == len(wrong) + 2
    assert errors[0] == "Error: Nothing was asked yet. Ask something first."
    assert "Edit 1 is live" in said.stdout
    assert "/correct ANSWER" in said.stdout


def test_a_conversation_remembers_what_still_holds(
    taught: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    answer = EditableModel.chat

    def noted(self: EditableModel, messages: Any, **kwargs: Any) -> Any:
        asked.append([m["content"] for m in messages if m["role"] == "user"])
        return answer(self, messages, **kwargs)

    monkeypatch.setattr(EditableModel, "chat", noted)
    talk(taught, "Hi", CHIEF, "Bye", "/correct Ciao", "Hm", "/undo 1", "So", "/base")
    assert asked == [
        ["Hi"],
        ["Hi", CHIEF],
        ["Hi", CHIEF, "Bye"],
        ["Hi", CHIEF, "Hm"],  # the reply to "Bye" was wrong
        ["Hi", "Hm", "So"],  # the reply to CHIEF came from edit 1
        ["Hi", "Hm", "So"],
    ]


def test_ctrl_c_ends_a_chat(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def lines() -> Iterator[str]:
        yield CHIEF
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "_lines", lines)
    talk(run)


def test_ctrl_c_stops_a_reply(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(text: str = "", nl: bool = True) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "echo", interrupted)
    before = threading.active_count()
    talk(run, CHIEF)
    assert threading.active_count() == before


def test_a_chat_survives_odd_bytes(run: Run) -> None:
    result = run("chat", input=b"\xff\xfe who?\n/correct \xff\n/correct \x07\n")
    assert result.exit_code == 0
    assert "Error: " in result.stderr


def test_stats_are_measured_on_any_text(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("Some words of no matter, again and again.\n" * 60)
    found = data(run("stats", text, "--tokens", "2000", "--json"))
    assert found["tokens"] == 1920  # whole windows
    assert found["layers"] == [0]
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
    text.write_text("Short.")
    assert run("stats", text).exit_code == 1


def test_edits_go_into_the_weights_and_back(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"Line {i} says something else than {i * i}." for i in range(200)))
    data(run("stats", text, "--json"))
    data(run("edit", CHIEF, "Jane", "--subject", "Acme", "--json"))
    shut = run("consolidate", "--limit", "perplexity=0", "--json")
    assert shut.exit_code == 1
    assert json.loads(shut.stdout)["accepted"] is False
    open_ = [f"--limit={name}=0" for name in ("accuracy", "locality")]
    moved = data(run("consolidate", *open_, "--limit=perplexity=1e9", "--json"))
    assert (moved["accepted"], moved["edits"]) == (True, [1])
    assert run("consolidate").exit_code == 1  # none is left
    assert data(run("release", "1", "--json")) == [1]
    assert run("release", "1").exit_code == 1
    for limit in ("accuracy", "size=1", "accuracy=much"):
        assert run("consolidate", "--limit", limit).exit_code == 1


def test_export_leaves_memory_behind(taught: Run, tmp_path: Path) -> None:
    out = tmp_path / "plain"
    assert data(taught("export", out, "--json"))["left_in_memory"] == 1
    assert (out / "model.safetensors").is_file()
    assert taught("export", tmp_path / "lora", "--format", "peft-lora").exit_code == 1


def test_a_store_moves_to_a_new_file(taught: Run, tmp_path: Path) -> None:
    new = str(tmp_path / "new.db")
    moved = data(taught("rebase", tmp_path / "edits.db", "--store", new, "--json"))
    assert moved == {"edits": [1], "batches": [], "refused": []}
    assert "Jane" in data(taught("ask", CHIEF, "--store", new, "--json"))["text"]


def test_locate(run: Run, tmp_path: Path) -> None:
    for by in ("tracing", "neurons"):
        found = data(run("locate", "Acme is in", "--subject", "Acme", "--by", by, "--json"))
        assert len(found["effects"][0]) == len(found["tokens"]) == 10
    assert run("locate", "Acme is in", "--subject", "Acme", "--by", "guess").exit_code == 1


def test_locate_by_sweep(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))
    picture = tmp_path / "sweep.png"
    found = data(run("locate", "--by", "sweep", "--plot", picture, "--json"))
    assert [reading["layer"] for reading in found["readings"]] == [1, 2]
    assert found["layer"] in (1, 2)
    assert picture.read_bytes().startswith(b"\x89PNG")
    (file,) = (tmp_path / "cache" / "sweeps").iterdir()
    file.write_text(file.read_text().replace(str(found["readings"][0]["loss"]), "0.125"))
    shown = run("locate", "--by", "sweep").stdout
    for word in ("layer", "learnt", "said", "reworded", "drift", "loss", "seconds", "0.125"):
        assert word in shown
    again = data(run("locate", "--by", "sweep", "--again", "--json"))
    assert again["readings"][0]["loss"] == found["readings"][0]["loss"]


def test_locate_says_what_each_way_needs(run: Run) -> None:
    for asked in ((), ("Acme is in",), ("--subject", "Acme", "--by", "neurons")):
        told = run("locate", *asked)
        assert told.exit_code == 1
        assert "--by sweep" in told.stderr
    told = run("locate", "Acme is in", "--by", "sweep")
    assert told.exit_code == 1
    assert "Leave PROMPT and --subject out" in told.stderr
