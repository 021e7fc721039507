"""The queue from the shell: what waits, and what shall become of it."""

from typing import Annotated

from typer import Argument, Option

from lifelong.cli.edits import Id, show_edits, show_step
from lifelong.cli.setup import Setup
from lifelong.errors import BadEdit
from lifelong.standing import Standing, settle, waiting
from store import Audience, Reach

Reason = Annotated[str, Option(help="Why; it stays for ever, so no personal data.")]


def review(setup: Setup) -> None:
    """What waits for `approve` or `reject`: of everybody, of a --tenant, or of a --user."""
    with setup.read() as journal:
        show_edits(setup, waiting(journal, setup.audience or Audience()))


def wrong(
    setup: Setup,
    question: Annotated[str, Argument(help="What was asked.")],
    answer: Annotated[str, Argument(help="What was answered, and is wrong.")],
) -> None:
    """Complain about an answer: nothing changes, and it waits in the queue."""
    with setup.open() as model:
        made = model.wrong(question, answer, **setup.asker)
    data = {"id": made.id, "epoch": made.epoch, "status": made.status}
    setup.show(data, f"Edit {made.id} is {made.status}.")


def approve(
    setup: Setup,
    id: Id,
    target: Annotated[str | None, Option(help="The right answer to a complaint.")] = None,
) -> None:
    """An edit that waits goes live; a complaint does with the right answer."""
    if target is None:
        with setup.tend() as journal:
            if journal.get(id).status == "proposed":
                raise BadEdit(f"Edit {id} is a complaint.", "Give the right answer: --target.")
            show_step(setup, journal, lambda: journal.approve(id))
        return
    with setup.open() as model:
        made = model.approve(id, target)
    data = {"id": made.id, "epoch": made.epoch, "status": made.status}
    setup.show(data, f"Edit {made.id} is {made.status}.")


def reject(setup: Setup, id: Id, reason: Reason = "") -> None:
    """An edit that waits shall not go live."""
    with setup.tend() as journal:
        show_step(setup, journal, lambda: journal.reject(id, reason=reason))


def promote(
    setup: Setup,
    id: Id,
    reach: Annotated[Reach, Argument(help="author, tenant or everyone.")],
    reason: Reason = "",
) -> None:
    """An edit is for its author only, for his tenant, or for everyone."""
    with setup.tend() as journal:
        show_step(setup, journal, lambda: journal.promote(id, reach, reason=reason))


def expire(setup: Setup) -> None:
    """End the edits whose time is over; asking does so by itself."""
    with setup.tend() as journal:
        standing = Standing.of(journal)
        ended = settle(journal, standing, journal.expire)
    show_edits(setup, ended)
