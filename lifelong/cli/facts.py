"""`lifelong facts`: plain knowledge that what follows from an edit may pass through."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, Typer, echo

from lifelong.cli.setup import REFUSED, Setup, stderr, with_setup
from lifelong.errors import BadFact
from lifelong.facts import read
from store import Reference

app = Typer(help="Facts for reference: no edits, but hops of a chain.", no_args_is_help=True)


def import_(
    setup: Setup,
    file: Annotated[
        Path, Argument(help="JSONL or CSV: subject, relation, object; or statements.", exists=True)
    ],
) -> None:
    """Keep the facts of a file; a bad row is told and does not stop the rest."""
    try:
        rows = list(read(file))
    except (OSError, UnicodeDecodeError) as exc:
        raise BadFact(
            f"{file} cannot be read ({exc}).", "Give JSONL, or CSV with a header."
        ) from exc
    if not Path(setup.store).exists():
        setup.open().close()
    with setup.tend() as journal:
        added = journal.add_facts(fact for _, fact in rows if isinstance(fact, Reference))
    refused = [(line, fact) for line, fact in rows if isinstance(fact, BadFact)]
    for line, why in refused:
        stderr().print(f"line {line}: {why}", style="red", markup=False, soft_wrap=True)
    known = len(rows) - len(refused) - len(added)
    data = {"added": len(added), "known": known, "refused": len(refused)}
    setup.show(data, f"{len(added)} added, {known} known before, {len(refused)} refused.")
    if refused:
        raise Exit(REFUSED)


def list_(setup: Setup) -> None:
    """Every fact there is."""
    with setup.read() as journal:
        facts = journal.facts()
    for fact in facts:
        row = {"id": fact.id, "subject": fact.subject, "prompt": fact.prompt, "target": fact.target}
        echo(json.dumps(row) if setup.json else f"fact {fact.id}: {fact.prompt} {fact.target}")


def promote(
    setup: Setup, id: Annotated[int, Argument(help="Of the fact, as `facts list` shows it.")]
) -> None:
    """Make an edit of a fact: from now on the model says it."""
    with setup.read() as journal:
        fact = next((fact for fact in journal.facts() if fact.id == id), None)
    if fact is None:
        raise BadFact(f"There is no fact {id}.", "`lifelong facts list` shows them.")
    with setup.open() as model:
        made = model.edit(fact.prompt, fact.target, subject=fact.subject, **setup.asker)
    setup.show({"id": made.id, "epoch": made.epoch}, f"Edit {made.id} is {made.status}.")


def drop(
    setup: Setup,
    ids: Annotated[list[int] | None, Argument(help="Of the facts.")] = None,
    everything: Annotated[bool, Option("--all", help="Every one.")] = False,
) -> None:
    """Keep these facts no longer."""
    if bool(ids) == everything:
        raise BadFact("It is not plain which facts shall go.", "Give their ids, or --all.")
    with setup.tend() as journal:
        dropped = journal.drop_facts(ids or None)
    setup.show({"dropped": dropped}, f"{dropped} dropped.")


for _command in (import_, list_, promote, drop):
    app.command(_command.__name__.rstrip("_"))(with_setup(_command))
