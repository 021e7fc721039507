"""Fact bases: rows of every form, rows of none, what the store keeps of them, and the commands."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lifelong.cli import app
from lifelong.errors import BadFact
from lifelong.facts import FactBase, fact_of, read, split
from store import Journal, Reference


@pytest.mark.parametrize(
    ("row", "subject", "prompt", "target"),
    [
        ({"subject": "Acme", "relation": "boss", "object": "Ann"},
         "Acme", "The boss of Acme is", "Ann"),
        ({"subject": "Acme", "relation": "{} was founded by", "object": "Ann"},
         "Acme", "Acme was founded by", "Ann"),
        ({"subject": "USA", "relation": "alias", "object": "United States"},
         "USA", "alias", "United States"),
        ({"statement": "The boss of Acme is", "answer": "Ann"},
         "Acme", "The boss of Acme is", "Ann"),
        ({"statement": "The boss of Acme is Ann.", "object": "Ann"},
         "Acme", "The boss of Acme is", "Ann"),
        ("The boss of Acme is Ann Lee.", "Acme", "The boss of Acme is", "Ann Lee"),
        ("H. P. Lovecraft is a citizen of the United States of America.",
         "H. P. Lovecraft", "H. P. Lovecraft is a citizen of the", "United States of America"),
        ("basketball was created in the country of Spain.",
         "basketball", "basketball was created in the country of", "Spain"),
        ("Karl Menger's child is Eva.", "Karl Menger", "Karl Menger's child is", "Eva"),
        ("The head of the Peru government is Dina.",
         "Peru", "The head of the Peru government is", "Dina"),
        ("Pelé plays the position of goalkeeper.",
         "Pelé", "Pelé plays the position of", "goalkeeper"),
    ],
)  # fmt: skip
def test_a_row_is_read(row: object, subject: str, prompt: str, target: str) -> None:
    assert fact_of(row) == Reference(subject, prompt, target)


@pytest.mark.parametrize(
    "row",
    [None, 7, [], {}, {"subject": "Acme"}, {"statement": ""}, {"statement": 7}, "Acme", "...",
     {"subject": "Acme", "relation": "boss", "object": "?!"}, {"statement": "x " * 400 + "is y"}],
)  # fmt: skip
def test_a_row_that_says_nothing_plain_is_refused(row: object) -> None:
    with pytest.raises(BadFact):
        fact_of(row)


def test_a_statement_ends_with_a_name_or_its_last_words() -> None:
    assert split("Ann lives in Newcastle upon Tyne.")[1] == "Newcastle upon Tyne"
    assert split("Ann works as a nurse")[1] == "nurse"


def test_files_are_read_with_a_verdict_a_line(tmp_path: Path) -> None:
    lines = tmp_path / "facts.jsonl"
    lines.write_text('{"statement": "The boss of Acme is Ann."}\n\nno json\n"Bo is a nurse."\n')
    assert [(n, isinstance(f, Reference)) for n, f in read(lines)] == [
        (1, True),
        (3, False),
        (4, True),
    ]
    table = tmp_path / "facts.csv"
    table.write_text("Subject, Relation, Object\nAcme, boss, Ann\nAcme,,\n")
    assert [(n, isinstance(f, Reference)) for n, f in read(table)] == [(2, True), (3, False)]


def test_a_base_knows_subjects_by_every_name() -> None:
    base = FactBase(
        [Reference("Acme", "The boss of Acme is", "Ann", 1), Reference("Acme", "alias", "ACM", 2)]
    )
    assert [fact.id for fact in base.about(base.entity(("acm",)))] == [1]
    assert [m.subject for m in base.gate.find("Who is the boss of ACM?")] == [("acm",)]
    assert [fact.id for fact in base] == [1]


def test_the_store_keeps_facts_and_when_they_were_there(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "s.db", model="m", encoder="e") as journal:
        fact = Reference("Acme", "The boss of Acme is", "Ann")
        before = journal.facts_stamp()
        assert [f.id for f in journal.add_facts([fact, fact])] == [1]
        assert journal.add_facts([fact]) == []
        assert journal.facts_stamp() != before
    with Journal.open(tmp_path / "s.db", model="m", encoder="e") as journal:
        assert [(f.id, f.target) for f in journal.facts()] == [(1, "Ann")]
        assert journal.drop_facts([1, 9]) == 1
        assert journal.facts() == []
        assert [f.id for f in journal.add_facts([fact])] == [2]
        assert journal.verify() == 0


def run(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["facts", *args])
    return done.exit_code, done.output


def test_the_commands(tmp_path: Path, model_folder: Path, encoder_folder: Path) -> None:
    where = ["--store", str(tmp_path / "s.db"), "--model", str(model_folder)]
    where += ["--encoder", str(encoder_folder)]
    rows = tmp_path / "facts.jsonl"
    rows.write_text('"The boss of Acme is Ann."\n"?"\n"Bo is a nurse."\n')
    code, said = run("import", str(rows), *where)
    assert code == 1
    assert "2 added, 0 known before, 1 refused." in said
    assert "line 2" in said
    code, said = run("list", *where, "--json")
    assert [json.loads(line)["subject"] for line in said.splitlines()] == ["Acme", "Bo"]
    assert run("promote", "1", *where)[0] == 0
    assert run("promote", "7", *where)[0] == 1
    assert run("drop", *where)[0] == 1
    assert "2 dropped" in run("drop", "--all", *where)[1]
    with Journal.read(tmp_path / "s.db") as journal:
        assert [(e.subject, e.target) for e in journal.live()] == [("Acme", "Ann")]
        assert journal.facts() == []
