"""What every command has in common: where store and model are, how results and errors leave.

stdout carries the result and nothing else, JSON with `--json`. Progress and errors (what happened,
and the remedy) go to stderr. Exit codes: 0 done, 1 refused, 2 usage, 3 store or model unusable.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import update_wrapper
from inspect import Signature, signature
from typing import Annotated, Any, Concatenate, ParamSpec

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text
from typer import Exit, Option, echo

import lifelong
from lifelong.errors import LifelongError, ModelError
from store import (
    Audience,
    DamagedPack,
    Journal,
    KeyReused,
    StoreError,
    UnknownEdit,
    WrongStatus,
)

REFUSED, UNUSABLE = 1, 3

P = ParamSpec("P")


@dataclass(frozen=True)
class Setup:
    """Where the edits are, which model and encoder they are for, who asks, how results look."""

    store: str
    model: str
    encoder: str
    json: bool
    user: str | None = None
    tenant: str | None = None
    multihop: bool = False

    @property
    def asker(self) -> dict[str, Any]:
        """Who asks or corrects, as the runtime's verbs take it."""
        return {"user_id": self.user, "tenant": self.tenant}

    @property
    def audience(self) -> Audience | None:
        """Whose edits are looked at; None for the keeper of the file, who sees them all."""
        asked = Audience(self.user, self.tenant)
        return None if asked == Audience() else asked

    def open(self, monitor: "lifelong.Monitoring | None" = None) -> "lifelong.EditableModel":
        """Model, encoder and edits; a terminal is told what takes so long."""
        with stderr().status(f"Loading {self.model}") as status:
            return lifelong.EditableModel.from_pretrained(
                self.model,
                store=self.store,
                encoder=self.encoder,
                multihop=self.multihop,
                monitor=monitor or lifelong.Monitoring(),
                progress=lambda text, done: status.update(f"{text} ({done:.0%})"),
            )

    def read(self) -> Journal:
        """The edits alone, to look at: no model is loaded."""
        return Journal.read(self.store)

    def tend(self) -> Journal:
        """The edits alone, to undo and redo: no model is loaded."""
        return Journal.tend(self.store)

    def show(self, data: Any, shown: RenderableType) -> None:
        """The result: `data` as JSON where that was asked for, else `shown`."""
        if self.json:
            echo(json.dumps(data))
        elif isinstance(shown, str):
            echo(shown)
        else:
            Console().print(shown)


def with_setup(run: Callable[Concatenate[Setup, P], None]) -> Callable[..., None]:
    """`run` as a command that also takes what every command takes, and tells errors."""

    def command(
        *,
        store: Annotated[
            str, Option(envvar="LIFELONG_STORE", metavar="FILE", help="The database of edits.")
        ] = "lifelong.db",
        model: Annotated[
            str, Option(envvar="LIFELONG_MODEL", help="A name, a Hugging Face id or a folder.")
        ] = "smollm2-135m",
        encoder: Annotated[
            str, Option(envvar="LIFELONG_ENCODER", help="A name, a Hugging Face id or a folder.")
        ] = "minilm",
        user: Annotated[
            str | None, Option(envvar="LIFELONG_USER", help="Who asks or corrects; else everyone.")
        ] = None,
        tenant: Annotated[
            str | None, Option(envvar="LIFELONG_TENANT", help="Whose user; else everyone's.")
        ] = None,
        multihop: Annotated[
            bool,
            Option(
                "--multihop",
                envvar="LIFELONG_MULTIHOP",
                help="Answer what follows from edits, too.",
            ),
        ] = False,
        as_json: Annotated[bool, Option("--json", help="JSON on stdout, nothing else.")] = False,
        **own: Any,
    ) -> None:
        try:
            setup = Setup(store, model, encoder, as_json, user, tenant, multihop)
            run(setup, **own)  # type: ignore[call-arg]
        except (LifelongError, StoreError) as error:
            tell(error)
            raise Exit(exit_code(error)) from error

    _, *own = signature(run).parameters.values()
    *shared, _ = signature(command).parameters.values()
    update_wrapper(command, run)
    command.__signature__ = Signature([*own, *shared])  # type: ignore[attr-defined]
    return command


def exit_code(error: LifelongError | StoreError) -> int:
    """3 where the store or the model cannot be used, 1 where they refused something."""
    if isinstance(error, StoreError):
        refused = isinstance(error, (DamagedPack, KeyReused, UnknownEdit, WrongStatus))
        return REFUSED if refused else UNUSABLE
    return UNUSABLE if isinstance(error, ModelError) else REFUSED


def stderr() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, highlight=False)


def tell(error: Exception) -> None:
    """What happened and the remedy, to stderr."""
    stderr().print(Text(f"Error: {error}", "red"), soft_wrap=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """Values as text, None as nothing."""
    shown = Table()
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text("" if value is None else str(value)) for value in row))
    return shown


def fields(values: Mapping[str, object]) -> Table:
    """Names and values, a line for each of several; those without a value left out."""
    shown = Table.grid(padding=(0, 2))
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in values.items():
        if value not in (None, "", [], {}, ()):
            several = _several(value)
            shown.add_row(Text(name), Text("\n".join(map(str, several))))
    return shown


def _several(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return [f"{name}: {one}" for name, one in value.items()]
    return value if isinstance(value, (list, tuple)) else [value]
