"""`lifelong`, the command: parse, call, show. The runtime does the work."""

import os

from typer import Typer

from lifelong.cli import (
    ask,
    chat,
    doctor,
    edits,
    eval,
    facts,
    feed,
    locate,
    queue,
    serve,
    stats,
    store,
    train,
    watch,
    weights,
)
from lifelong.cli.setup import with_setup

COMMANDS = (
    chat.chat,
    ask.ask,
    ask.why,
    edits.edit,
    edits.undo,
    edits.redo,
    feed.import_,
    edits.list_,
    edits.search,
    edits.show,
    edits.history,
    ask.diff,
    queue.wrong,
    queue.review,
    queue.approve,
    queue.reject,
    queue.promote,
    queue.expire,
    watch.check,
    watch.report,
    eval.eval_,
    serve.serve,
    stats.stats,
    locate.locate,
    weights.consolidate,
    weights.release,
    weights.export,
    weights.rebase,
    doctor.doctor,
)

app = Typer(
    help="A language model that takes corrections, keeps them, and can undo them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _command in COMMANDS:
    app.command(_command.__name__.rstrip("_"))(with_setup(_command))
app.add_typer(facts.app, name="facts")
app.add_typer(serve.app, name="keys")
app.add_typer(store.app, name="store")
app.add_typer(train.app, name="train")


def main() -> None:
    """The console script."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read when transformers is imported
    app()
