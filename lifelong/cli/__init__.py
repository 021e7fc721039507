"""`lifelong`, the command: parse, call, show. The runtime does the work."""

import os

from typer import Typer

from lifelong.cli.ask import ask, check, why
from lifelong.cli.chat import chat
from lifelong.cli.doctor import doctor
from lifelong.cli.edits import edit, history, list_, redo, show, undo
from lifelong.cli.feed import import_
from lifelong.cli.setup import with_setup

COMMANDS = (
    chat, ask, why, edit, undo, redo, import_, list_, show, history, check, doctor,
)  # fmt: skip

app = Typer(
    help="A language model that takes corrections, keeps them, and can undo them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _command in COMMANDS:
    app.command(_command.__name__.rstrip("_"))(with_setup(_command))


def main() -> None:
    """The console script."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read when transformers is imported
    app()
