"""From raw.db to the JSON that a run leaves: nothing is measured here, all of it can be redone."""

from collections.abc import Iterator
from typing import Any

from lifelong.evaluate import metrics
from lifelong.evaluate.config import Config
from lifelong.evaluate.protocol import PROTOCOLS
from lifelong.evaluate.raw import ALONE, Raw


def results(raw: Raw, config: Config, about: dict[str, Any]) -> dict[str, Any]:
    """`{"run": ..., "results": [one entry for every method and checkpoint]}`."""
    undo = raw.noted("undo")
    run = {
        "name": config.model,
        "file": str(config.file),
        **raw.noted("identity"),
        **about,
        "new_tokens": PROTOCOLS[config.protocol].new_tokens,
        "restart_seconds": raw.noted("restart_seconds"),
        "composed": raw.noted("composed"),
        "undo": undo and {**undo, "seconds": metrics.seconds(undo["seconds"])},
        "seconds": raw.phases(),
    }
    entries = [e for name in (config.method, *config.baselines) for e in _of(raw, config, name)]
    return {"run": run, "results": entries}


def _of(raw: Raw, config: Config, name: str) -> Iterator[dict[str, Any]]:
    """The entries of one method, checkpoint by checkpoint."""
    edited = name == config.method
    alone = raw.rows(name, ALONE) if edited else []
    written = raw.written(name)
    history: list[tuple[int, float | None]] = []
    for step in config.checkpoints:
        rows, costs = raw.rows(name, step), raw.costs(name, step) or {}
        found = metrics.quality(rows, chat=PROTOCOLS[config.protocol].chat)
        own = [row for row in rows if row.kind == "own"]
        accuracy = found["accuracy"]
        history.append((costs["edits"], accuracy and accuracy["value"]))
        taken = [s for place, (s, _) in written.items() if place < costs["edits"]]
        yield {
            "method": name,
            "checkpoint": step,
            "batch": config.batch,
            **{key: costs[key] for key in ("edits", "superseded", "scored", "sampled")},
            "refused": sum(bool(why) for p, (_, why) in written.items() if p < costs["edits"]),
            **found,
            "retainability": metrics.retainability(history),
            "scalability": metrics.scalability(alone, own),
            "scalability_rel": metrics.scalability(alone, own, relative=True),
            "perplexity_ratio": metrics.ratio(costs.get("perplexity"), raw.noted("base")),
            "seconds_per_edit": metrics.seconds(taken),
            "seconds_per_answer": metrics.seconds([r.reply.seconds for r in rows if r.reply]),
            "peak_rss_mb": costs["peak_rss_mb"],
            "peak_rss_over_base_mb": costs["peak_rss_mb"] - raw.noted("base_rss_mb"),
            "bytes_per_edit": costs["store_bytes"] / costs["edits"] if edited else None,
            **(costs.get("pace") or {"prefill_ms": None, "token_ms": None}),
            "proof": costs.get("proof"),
        }
