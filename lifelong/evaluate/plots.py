"""Two pictures of a run: metrics against the number of edits, and retention by age."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]

PANELS = {
    "accuracy": "Accuracy\nthe corrected question itself",
    "generality": "Generality\nthe same question in other words",
    "locality": "Locality\nother questions, reply unchanged",
}
LOOKS = {  # colours that the colour-blind tell apart, marks that print tells apart
    "none": ("#888888", "x", "no edits"),
    "rag": ("#e69f00", "s", "plain RAG"),
    "context": ("#009e73", "^", "facts in context"),
}
METHOD = ("#0072b2", "o")
WIDTHS = (4, 3, 2, 1)  # thinner and thinner, for curves may coincide
AGES = {"accuracy": ("#0072b2", "o"), "generality": ("#cc79a7", "D")}


def draw(folder: Path, entries: Sequence[Entry], title: str) -> list[str]:
    """The names of the pictures in `folder`; none where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # an optional dependency
    except ImportError:
        return []
    drawn = ["by-edits.png"]
    figure = Figure(figsize=(11, 4.2), dpi=130, layout="constrained")
    _by_edits(figure, entries, title)
    figure.savefig(folder / drawn[0])
    last = [entry for entry in entries if entry["method"] == entries[0]["method"]][-1]
    if last["age_deciles"]:
        figure = Figure(figsize=(8, 4.2), dpi=130, layout="constrained")
        _by_age(figure, last, title)
        figure.savefig(folder / "by-age.png")
        drawn.append("by-age.png")
    return drawn


def _by_edits(figure: Any, entries: Sequence[Entry], title: str) -> None:
    methods = list(dict.fromkeys(entry["method"] for entry in entries))
    steps = sorted({entry["edits"] for entry in entries})
    panels = {k: label for k, label in PANELS.items() if any(rate(e, k) for e in entries)}
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, label) in zip(row, panels.items(), strict=True):
        for width, method in zip(WIDTHS, methods, strict=False):
            colour, mark, legend = LOOKS.get(method, (*METHOD, method))
            mine = [entry for entry in entries if entry["method"] == method]
            points = [(entry["edits"], shown) for entry in mine if (shown := rate(entry, name))]
            _band(axes, points, (colour, mark, width), legend)
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("corrections made so far")
        if steps[-1] > 20 * steps[0]:
            axes.set_xscale("log")
        axes.set_xticks(steps, [f"{step:,}" for step in steps])
        axes.minorticks_off()
        _share(axes)
    figure.axes[0].set_ylabel("share of questions")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{title}: what holds after all corrections so far", fontsize=11)


def _by_age(figure: Any, entry: Entry, title: str) -> None:
    axes = figure.subplots()
    for width, (name, look) in zip(WIDTHS, AGES.items(), strict=False):
        points = [(age["decile"], age[name]) for age in entry["age_deciles"] if age[name]]
        _band(axes, points, (*look, width), PANELS[name].replace("\n", ": "))
    axes.set_xticks(range(1, 11), ["oldest\ntenth", *map(str, range(2, 10)), "newest\ntenth"])
    axes.set_ylabel("share of questions")
    axes.set_title(f"{title}: are old corrections kept?  ({entry['edits']:,} edits)", fontsize=11)
    _share(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)


def _band(
    axes: Any, points: Sequence[tuple[int, Entry]], look: tuple[str, str, int], legend: str
) -> None:
    if not points:
        return
    colour, mark, width = look
    steps, shown = zip(*points, strict=True)
    lows, highs = [p["low"] for p in shown], [p["high"] for p in shown]
    axes.fill_between(steps, lows, highs, color=colour, alpha=0.15, linewidth=0)
    values = [p["value"] for p in shown]
    style = {"color": colour, "marker": mark, "linewidth": width, "markersize": width + 4}
    axes.plot(steps, values, label=legend, clip_on=False, **style)


def _share(axes: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


def rate(entry: Entry, name: str) -> Entry | None:
    """A rate of an entry; locality is the one over all its probes."""
    found: Entry | None = entry[name]["all"] if name == "locality" else entry[name]
    return found
