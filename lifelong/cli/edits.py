"""Edits from the shell: make, retire, restore, look. Only `edit` loads a model."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from typer import Argument, Option

import lifelong
from lifelong.cli.setup import Setup, fields, stderr, table
from lifelong.extract import PLAIN
from lifelong.fact import follows
from lifelong.match import matching
from lifelong.standing import Standing, retire, settle
from store import Edit, Event, Journal, Status

Id = Annotated[int, Argument(help="As `lifelong list` shows it.", min=1)]

_LISTED = tuple("id epoch status prompt target subject relation method user_id tenant".split())


def edit(
    setup: Setup,
    prompt: Annotated[
        str, Argument(help="The question; without TARGET, what is so, in any words.")
    ],
    target: Annotated[str | None, Argument(help="What the answer shall say.")] = None,
    by_model: Annotated[
        bool, Option("--by-model", help="Without TARGET: the model finds it in PROMPT.")
    ] = False,
    subject: Annotated[
        str | None, Option(help="Whom or what it is about; guessed if not given.")
    ] = None,
    relation: Annotated[str | None, Option(help="Which property of the subject.")] = None,
    paraphrase: Annotated[
        list[str] | None, Option(help="The question in other words, for `check`; repeatable.")
    ] = None,
    locality: Annotated[
        list[str] | None, Option(help="A prompt that must not change, for `check`; repeatable.")
    ] = None,
    method: Annotated[
        str | None, Option(help="How the edit is made; serac, or language-patch for a rule.")
    ] = None,
    old: Annotated[str | None, Option(help="The answer that was wrong.")] = None,
    until: Annotated[str | None, Option(help="When it ends: ISO 8601 with offset.")] = None,
    key: Annotated[str | None, Option(help="The same request has the same key.")] = None,
    on_conflict: Annotated[
        str, Option(help="With what is live: supersede it, reject this one, or have a review.")
    ] = "supersede",
    pending: Annotated[bool, Option("--pending", help="It waits for `lifelong approve`.")] = False,
    ripple: Annotated[
        Literal["report", "apply"] | None,
        Option(help="Report what would follow, and write nothing; or apply that, too."),
    ] = None,
) -> None:
    """Correct an answer: from now on, asked PROMPT in any words, the model says TARGET."""
    with setup.open() as model:
        teach: Any = model.edit
        lm = lifelong.LM.of(model, model.tokenizer)
        made = teach(  # an Edit, or a Ripple
            prompt,
            target,
            extractor=lifelong.ByModel(lm) if by_model else PLAIN,
            subject=subject,
            relation=relation,
            paraphrases=paraphrase or (),
            locality=locality or (),
            method=method,
            old=old,
            valid_until=until,
            key=key,
            on_conflict=on_conflict,
            pending=pending,
            ripple=ripple,
            **setup.asker,
        )
        along = model.list(made.status, **setup.asker) if ripple == "apply" else []
    if ripple == "report":
        _show_ripple(setup, made)
        return
    others = [other for other in along if follows(other, made)]
    data: dict[str, Any] = {"id": made.id, "epoch": made.epoch, "status": made.status}
    understood = "" if target else f": {made.prompt} -> {made.target}"
    said = [f"Edit {other.id} is {other.status}." for other in others]
    said = [f"Edit {made.id} is {made.status}{understood or '.'}", *said]
    if ripple == "apply":
        data["along"] = [other.id for other in others]
    setup.show(data, "\n".join(said))


def undo(
    setup: Setup,
    id: Id,
    replay: Annotated[
        bool, Option("--replay", help="Make again what was trained while it was there.")
    ] = False,
) -> None:
    """Retire an edit: every answer is as if it had never been made."""
    if replay:
        with setup.open() as model:
            before = model.epoch
            with stderr().status("Making later edits again"):
                model.undo(id, replay=True)
            _show_what_came(setup, model.journal, before, id)
        return
    with setup.tend() as journal:
        standing = Standing.of(journal)
        show_step(setup, journal, lambda: retire(journal, standing, id))


def redo(setup: Setup, id: Id) -> None:
    """Bring a retired edit back."""
    with setup.tend() as journal:
        show_step(setup, journal, lambda: journal.restore(id))


def list_(
    setup: Setup, status: Annotated[Status | None, Option(help="Only these.")] = None
) -> None:
    """Every edit ever made (that --user of --tenant sees), and what became of it."""
    with setup.read() as journal:
        show_edits(setup, journal.edits(status, audience=setup.audience))


def search(
    setup: Setup,
    text: Annotated[str, Argument(help="Words, all of them in the edit.")],
    status: Annotated[Status | None, Option(help="Only these.")] = None,
) -> None:
    """The edits (that --user of --tenant sees) with these words, prompt to relation."""
    with setup.read() as journal:
        show_edits(setup, matching(journal.edits(status, audience=setup.audience), text))


def show(setup: Setup, id: Id) -> None:
    """One edit, whole."""
    with setup.read() as journal:
        found = asdict(journal.get(id))
    setup.show(found, fields(found))


def history(
    setup: Setup, id: Annotated[int | None, Argument(help="Of this edit only.")] = None
) -> None:
    """What happened, in order, to all edits or to one."""
    with setup.read() as journal:
        events = [_row(event) for event in journal.history(id)]
    shown = ("epoch", "id", "status", "time", "cause")
    setup.show(events, table(shown, ([event[name] for name in shown] for event in events)))


def show_edits(setup: Setup, edits: Iterable[Edit]) -> None:
    """A line an edit."""
    rows = [{name: getattr(edit, name) for name in _LISTED} for edit in edits]
    shown = ("id", "status", "prompt", "target", "subject", "user_id", "tenant")
    setup.show(rows, table(shown, ([row[name] for name in shown] for row in rows)))


def show_step(setup: Setup, journal: Journal, step: Callable[[], Edit]) -> None:
    """Take the step; show the edit, and in words what else came of it."""
    before = journal.epoch
    _show_what_came(setup, journal, before, settle(journal, Standing.of(journal), step).id)


def _show_what_came(setup: Setup, journal: Journal, before: int, id: int) -> None:
    events, status = journal.history(since=before), journal.get(id).status
    final = {event.edit_id: event.kind for event in events}
    said = "\n".join(f"Edit {edit} is {kind}." for edit, kind in final.items())
    setup.show({"id": id, "epoch": events[-1].seq, "status": status}, said)


def _show_ripple(setup: Setup, found: "lifelong.Ripple") -> None:
    """A line a consequence, and a line a live edit that is at odds with any of it."""
    follows = [
        {name: getattr(c.edit, name) for name in ("prompt", "target", "subject", "relation")}
        | {"kind": c.kind, "certain": c.certain}
        for c in found.follows
    ]
    conflicts = [
        {"kind": c.kind, "id": c.edit.id, "prompt": c.edit.prompt, "target": c.edit.target}
        for c in found.conflicts
    ]
    said = [f"{c}{'' if c.certain else ' (told only)'}" for c in found.follows]
    said += [f"at odds with: {conflict}" for conflict in found.conflicts]
    data = {"follows": follows, "conflicts": conflicts}
    setup.show(data, "\n".join(said) or "Nothing follows, and nothing is at odds with it.")


def _row(event: Event) -> Mapping[str, Any]:
    return {
        "epoch": event.seq,
        "id": event.edit_id,
        "status": event.kind,
        "time": event.time,
        "cause": event.cause,
        **event.body,
    }
