"""`lifelong eval`: how well does a method retain its edits, measured on a file of records?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer import Argument, BadParameter, Option

from lifelong.cli.setup import Setup, stderr, table
from lifelong.evaluate.config import Config, Order
from lifelong.evaluate.report import COLUMNS, composed, summary


def eval_(
    setup: Setup,
    file: Annotated[Path, Argument(help="JSONL: one of the known datasets, or our own records.")],
    out: Annotated[Path, Option(metavar="DIR", help="Where results, report and plots go.")] = Path(
        "lifelong-eval"
    ),
    method: Annotated[str, Option(help="How the edits are made.")] = "serac",
    protocol: Annotated[str, Option(help="`chat` or `completion`.")] = "chat",
    edits: Annotated[int | None, Option(min=1, help="So many records; default: all.")] = None,
    checkpoints: Annotated[
        str, Option(metavar="N,N,...", help="Records after which all is scored; default: the end.")
    ] = "",
    seed: Annotated[int, Option(help="Of samples, orders and intervals.")] = 0,
    order: Annotated[Order, Option(help="Of the records.")] = "given",
    batch: Annotated[int, Option(min=1, help="Edits written at a time.")] = 1,
    baselines: Annotated[
        str, Option(metavar="NAME,...", help="Measured too: none, rag, context.")
    ] = "",
    set_: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="The method's own; repeatable.")
    ] = None,
    probes: Annotated[int, Option(min=0, help="Edits about which every probe is asked.")] = 100,
    scalability: Annotated[int, Option(min=0, help="Edits that are also made alone.")] = 20,
    perplexity: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Held-out text.",
        ),
    ] = None,
    windows: Annotated[
        int, Option(min=0, help="Of 512 tokens, of the held-out text; 0: all of it.")
    ] = 20,
    all_probes: Annotated[
        bool, Option("--all-probes", help="CounterFact's attribute and generation prompts, too.")
    ] = False,
    compared: Annotated[
        int | None,
        Option(min=1, help="Edits that the baselines are asked about; default: all scored."),
    ] = None,
) -> None:
    """Make the edits of FILE, one after the other, and measure what holds at each checkpoint."""
    config = Config(
        file,
        out,
        setup.model,
        setup.encoder,
        method,
        protocol,
        edits,
        _numbers(checkpoints),
        seed,
        order,
        batch,
        _names(baselines),
        _settings(set_ or []),
        probes,
        scalability,
        perplexity,
        windows or None,
        all_probes,
        compared,
        bool(setup.multihop),
    )
    from lifelong.evaluate.eval import evaluate  # here, because torch takes seconds to load

    with _progress() as tell:
        found = evaluate(config, tell)
    shown = [table(COLUMNS, summary(found["results"]))]
    if found["run"]["composed"]:
        shown.append(table(*composed(found["run"]["composed"])))
    setup.show(found, Group(*shown))


def _names(given: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def _numbers(given: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in _names(given))
    except ValueError:
        raise BadParameter(f"{given!r} are no numbers: give 1,10,100, say") from None


def _settings(given: list[str]) -> dict[str, str]:
    pairs = [setting.partition("=") for setting in given]
    if wrong := [key for key, equals, _ in pairs if not (key and equals)]:
        raise BadParameter(f"{wrong[0]!r} is no KEY=VALUE")
    return {key: value for key, _, value in pairs}


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr: what is being done, how far it is, when it will be done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=stderr(), transient=True) as bar:
        task = bar.add_task("loading", total=None)
        doing = "loading"

        def tell(what: str, done: int, of: int) -> None:
            nonlocal doing
            if what != doing:
                doing = what
                bar.reset(task, description=what, total=of)
            bar.update(task, completed=done, total=of)

        yield tell
