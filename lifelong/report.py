"""Readings as a page for people who know nothing of the project: Markdown or HTML."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt

from lifelong.alarms import alarms_of
from lifelong.errors import PackageMissing
from store import JSON, Edit, Reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INTRODUCTION = """\
Users correct this language model: asked a certain question, it shall give a certain answer. Every
correction is kept. A monitor asks the model again, at intervals, about a sample of all that it was
ever taught, always with some of the oldest; it asks questions that no correction is about; and it
compares the replies with what they should be. One round of that is a reading.
"""
_MEANING: Mapping[str, str] = {
    "accuracy": "asked exactly as corrected, the reply gives the taught answer",
    "generality": "asked in other words, the reply gives it, too",
    "locality": "asked something else, the reply is what it was before any correction",
    "false_fires": "everyday sentences (of 40) that some correction wrongly answers; 0 is right",
    "conflicts": "pairs of corrections that contradict each other; none is right",
    "damaged": "corrections that are not stored as they were written; none is right",
    "reply_perplexity": "how odd corrected replies look to the uncorrected model (1: not at all)",
    "live": "corrections in force",
    "sampled": "corrections asked about in this reading",
}
_CURVES = {
    "accuracy": ("#0072b2", "o"),
    "generality": ("#e69f00", "s"),
    "locality": ("#009e73", "^"),
}
_SHARES = frozenset(_CURVES)
_PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>How well corrections hold</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}
table{{border-collapse:collapse;font-size:.9em}}
td,th{{border-bottom:1px solid #ddd;padding:.3em .8em;text-align:left;vertical-align:top}}
img{{max-width:100%}}</style>
{body}</html>
"""

Picture = Callable[[str, bytes], str]  # name, PNG -> where the page finds it


def markdown(readings: Sequence[Reading], edits: Mapping[int, Edit], out: Path | None) -> str:
    """The page; its pictures are written beside `out` (None: there are none).

    Raises PackageMissing where pictures are wanted and matplotlib is not there.
    """

    def beside(name: str, png: bytes) -> str:
        assert out is not None
        path = out.with_name(f"{out.stem}-{name}.png")
        path.write_bytes(png)
        return path.name

    return "\n".join(_page(readings, edits, beside if out else None))


def html(readings: Sequence[Reading], edits: Mapping[int, Edit]) -> str:
    """The page as one HTML file, pictures inside. Raises PackageMissing."""

    def inside(name: str, png: bytes) -> str:
        return f"data:image/png;base64,{b64encode(png).decode()}"

    text = "\n".join(_page(readings, edits, inside))
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return _PAGE.format(body=body)


def _page(
    readings: Sequence[Reading], edits: Mapping[int, Edit], picture: Picture | None
) -> Iterator[str]:
    last = readings[-1]
    yield "# How well the corrections hold\n"
    yield _INTRODUCTION
    yield f"There are {len(readings)} readings; the last is of {_time(last)}.\n"
    yield "## The last reading\n"
    yield from _table(
        ("measure", "value", "what it says"),
        ((name, _shown(name, last.body.get(name)), said) for name, said in _MEANING.items()),
    )
    yield "\n## Alarms\n"
    yield from _alarms(readings, edits)
    if picture:
        yield "\n## Over time\n"
        yield f"![Shares of right replies]({picture('shares', _drawn(_over_time, readings))})\n"
        yield "## The oldest corrections and the newest\n"
        yield "Of the last reading; a tenth that has no bar was not asked about.\n"
        yield f"![Accuracy by age]({picture('age', _drawn(_by_age, readings))})\n"
    yield "\n## All readings\n"
    names = ("accuracy", "generality", "locality", "false_fires", "reply_perplexity")
    yield from _table(
        ("time", "corrections", *names, "alarms"),
        (
            [
                _time(reading),
                _shown("edits", reading.body.get("edits")),
                *(_shown(name, reading.body.get(name)) for name in names),
                len(alarms_of(reading)),
            ]
            for reading in readings
        ),
    )


def _alarms(readings: Sequence[Reading], edits: Mapping[int, Edit]) -> Iterator[str]:
    raised = [(reading, alarm) for reading in readings for alarm in alarms_of(reading)]
    if not raised:
        yield "None was raised."
        return
    yield "Suspects are the corrections that best explain an alarm, the likeliest first.\n"
    yield from _table(
        ("time", "corrections", "alarm", "suspects"),
        (
            [
                _time(reading),
                _shown("edits", reading.body.get("edits")),
                alarm.what,
                "; ".join(_named(id, edits) for id in alarm.suspects[:3]) or "none found",
            ]
            for reading, alarm in raised
        ),
    )


def _named(id: int, edits: Mapping[int, Edit]) -> str:
    if id not in edits:
        return f"edit {id}"
    edit = edits[id]
    return f"edit {id} ({edit.status}): {edit.prompt} -> {edit.target}"


def _table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    yield _row(columns)
    yield "|---" * len(columns) + "|"
    yield from map(_row, rows)


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(_plain(str(cell)) for cell in cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, in one line of a table."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", " ".join(text.split()))


def _shown(name: str, value: JSON) -> str:
    if value is None:
        return "not asked"
    if isinstance(value, list):
        return str(len(value))
    if name in _SHARES and isinstance(value, float):
        return f"{value:.1%}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _time(reading: Reading) -> str:
    return f"{reading.time[:16].replace('T', ' ')} UTC"


def _drawn(draw: "Callable[[Axes, Sequence[Reading]], None]", readings: Sequence[Reading]) -> bytes:
    """A PNG of what `draw` draws. Raises PackageMissing."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError as exc:
        raise PackageMissing(
            f"Pictures cannot be drawn: {exc}.", "`pip install 'lifelong[plots]'`."
        ) from exc
    figure = Figure(figsize=(8, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    draw(axes, readings)
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _over_time(axes: "Axes", readings: Sequence[Reading]) -> None:
    """Shares against the number of corrections, a line through every reading with an alarm."""
    for width, (name, (colour, marker)) in zip((6, 4, 2), _CURVES.items(), strict=True):
        points = [(r.body.get("edits"), r.body.get(name)) for r in readings]
        known = [(x, y) for x, y in points if isinstance(x, int) and isinstance(y, float)]
        style: dict[str, Any] = {
            "marker": marker,
            "linewidth": width,
            "markersize": width + 3,
            "color": colour,
        }
        axes.plot([x for x, _ in known], [y for _, y in known], label=name, **style)
    alarming = [r.body.get("edits") for r in readings if alarms_of(r)]
    for position, step in enumerate(step for step in alarming if isinstance(step, int)):
        label = None if position else "alarm"
        axes.axvline(step, color="#d55e00", linestyle=":", label=label, zorder=0)
    axes.set(xlabel="corrections taken, one after the other", ylabel="share of right replies")
    axes.legend(loc="lower left", frameon=False)


def _by_age(axes: "Axes", readings: Sequence[Reading]) -> None:
    ages = readings[-1].body.get("accuracy_by_age")
    shares = ages if isinstance(ages, list) else []
    for place, share in enumerate(shares, 1):
        if isinstance(share, float):
            axes.bar(place, share, color=_CURVES["accuracy"][0])
    axes.set_xticks(range(1, len(shares) + 1))
    axes.set(xlabel="corrections by age, 1 = the oldest tenth", ylabel="share of right replies")
