"""Every figure, as a pure function of the raw rows of a checkpoint.

Equation numbers are those of Wang et al. 2023, section 4:

    accuracy                  3    mean over edits of 1{the reply to the own prompt is right}
    loc_disagreement          6    mean over edits of the share of their locality probes whose reply
                                   is not the base model's; `_micro` is 7: over the union of probes
    locality                  -    1 - loc_disagreement: agreement, what most papers call Loc
    generality                8    mean over edits of the share of right paraphrases; `_micro` is 9
    retainability             10   (A_now - A_first) / edits since; `retained` has both and the loss
    scalability, _rel         11   mean accuracy of edits made alone, less that of the same edits
                              12   after all; the same as a part of the former

A right reply says an accepted answer and no old one (`match.answers`); an exact one is nothing but
an accepted answer. Intervals hold 95 % of 1,000 resamplings of subjects, not of prompts. None
stands for what is not defined: no edits, no probes, nothing to divide by.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Any

import numpy as np

from lifelong.evaluate.protocol import Reply
from lifelong.evaluate.raw import Row
from lifelong.evaluate.records import LOCALITY
from lifelong.match import answers, contains, exact, same
from lifelong.subject import normalise

Units = Iterable[tuple[str, Sequence[float]]]  # (subject, summands)

FRAMES = 5  # commonest sentences around subject and target

_DRAWS = 1_000
_SEED = 0
_AGES = 10


# -- figures -------------------------------------------------------------------------------------


def estimate(units: Units, value: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any] | None:
    """`value` of the summed summands, with its interval; None without units.

    `value` maps (..., summands) to (...); `n` counts units.
    """
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(()))
    n = 0
    for subject, summands in units:
        sums[subject] = sums[subject] + np.asarray(summands, float)
        n += 1
    if not n:
        return None
    table = np.stack([sums[subject] for subject in sums])  # (subjects, summands)
    draws = np.random.default_rng(_SEED).integers(len(table), size=(_DRAWS, len(table)))
    counts = np.stack([np.bincount(draw, minlength=len(table)) for draw in draws])
    low, high = np.quantile(value(counts @ table), [0.025, 0.975])
    return {"value": float(value(table.sum(0))), "n": n, "low": float(low), "high": float(high)}


def rate(values: Iterable[tuple[str, float]]) -> dict[str, Any] | None:
    """The mean of (subject, value)."""
    return estimate(((s, (v, 1.0)) for s, v in values), lambda t: t[..., 0] / t[..., 1])


def macro(rows: Iterable[Row], value: Callable[[Row], float]) -> dict[str, Any] | None:
    """The mean over edits of the mean over their rows (Eq. 4, 6, 8)."""
    of_edit: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        of_edit[row.subject, row.place].append(value(row))
    return rate((subject, fmean(values)) for (subject, _), values in of_edit.items())


def micro(rows: Iterable[Row], value: Callable[[Row], float]) -> dict[str, Any] | None:
    """The mean over the union of the rows' prompts, each counted once (Eq. 5, 7, 9)."""
    union = {row.prompt: row for row in rows}
    return rate((row.subject, value(row)) for row in union.values())


# -- one reply -----------------------------------------------------------------------------------


def right(row: Row) -> float:
    """Does the reply say an accepted answer and no old one?"""
    return float(answers(said(row), row.accepted, row.old))


def right_subject_aside(row: Row) -> float:
    """The same, where the subject's own name holds the old one: "Apple A5 was made by Google"."""
    beside = f" {normalise(said(row))} ".replace(f" {normalise(row.subject)} ", " ")
    old = [other for other in row.old if contains(beside, other)]
    return float(answers(said(row), row.accepted, old))


def _settled(row: Row) -> float:
    """Is what a question proposes called right or wrong first, and the answer said?"""
    return right(row) * (normalise(said(row)).split()[:1] == [row.kind])


def precise(row: Row) -> float:
    """Is the reply an accepted answer and nothing else?"""
    return float(exact(said(row), row.accepted))


def agrees(row: Row) -> float:
    """Is the reply the base model's, in the same words?"""
    return _compared(row, lambda reply, base: same(reply.text, base.text))


def _identical(row: Row) -> float:
    return _compared(row, lambda reply, base: reply.ids == base.ids)


def _begins_alike(row: Row) -> float:
    return _compared(row, lambda reply, base: reply.ids[:1] == base.ids[:1])


def _compared(row: Row, alike: Callable[[Reply, Reply], bool]) -> float:
    if not row.shape:
        return 1.0  # the route is the base model's: it is the same reply
    assert row.reply is not None
    assert row.base is not None
    return float(alike(row.reply, row.base))


def said(row: Row) -> str:
    """The text of the reply, which must have been asked for."""
    assert row.reply is not None, f"nothing was asked: {row}"
    return row.reply.text


def fired(shape: str) -> list[int]:
    """The places of the edits in what shaped a reply."""
    return [int(place) for place in shape.rpartition(";")[2].split(",") if place]


# -- one checkpoint ------------------------------------------------------------------------------


def quality(rows: Sequence[Row], *, chat: bool) -> dict[str, Any]:
    """All figures that one checkpoint's rows give."""
    kinds = defaultdict(list)
    for row in rows:
        kinds[row.kind].append(row)
    own, paraphrases = kinds["own"], kinds["paraphrase"]
    local = [row for row in rows if row.kind in LOCALITY]
    told = [*own, *paraphrases] if chat else []
    disagreement = macro(local, lambda row: 1 - agrees(row))
    return {
        "accuracy": macro(own, right),
        "accuracy_em": macro(own, precise),
        "accuracy_subject_aside": macro(own, right_subject_aside),
        "generality": macro(paraphrases, right),
        "generality_micro": micro(paraphrases, right),
        "generality_em": macro(paraphrases, precise),
        "locality": _locality(local),
        "loc_disagreement": disagreement,
        "loc_disagreement_micro": micro(local, lambda row: 1 - agrees(row)),
        "neighbourhood": _measured(kinds["near"], "true_over_new"),
        "bare_target": rate((row.subject, precise(row)) for row in told),
        "frame_share": frame_share(told),
        "reply_perplexity_ratio": _perplexity_ratio(own) if chat else None,
        "prefixed": macro(kinds["prefixed"], right),
        "yes_no": macro([*kinds["yes"], *kinds["no"]], _settled),
        "part": macro(kinds["part"], right),
        "generation_prompts": macro(kinds["generation"], right),
        "negation_failures": macro(kinds["negated"], _still_said),
        "residual": macro(kinds["residual"], _old_said),
        "reversal": macro(kinds["reversed"], right),
        "portability": macro([*kinds["alias"], *kinds["multihop"]], right),
        "multihop": _any_phrasing(kinds["multihop"]),
        "age_deciles": age_deciles(own, paraphrases),
        "gate": _gate([*own, *paraphrases], local),
        "truncated": rate((r.subject, float(r.reply.truncated)) for r in rows if r.reply),
        "tf_match": _measured(own, "tf_match"),
        "p_new_over_old": _measured(own, "new_over_old"),
    }


def _locality(local: Sequence[Row]) -> dict[str, Any]:
    of_kind = {
        kind: macro([row for row in local if row.kind == kind], agrees)
        for kind in ("near", "far", "same_subject")
    }
    return {
        "all": macro(local, agrees),
        **of_kind,
        "first_token": macro(local, _begins_alike),
        "token_ids": macro(local, _identical),
    }


def _measured(rows: Sequence[Row], name: str) -> dict[str, Any] | None:
    return macro([row for row in rows if name in row.measured], lambda row: row.measured[name])


def _still_said(row: Row) -> float:
    return float(any(contains(said(row), target) for target in row.accepted))


def _old_said(row: Row) -> float:
    return float(any(contains(said(row), old) for old in row.old))


def _any_phrasing(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Multi-hop as its papers count it: right if any wording of a question is."""
    best: dict[tuple[str, int, tuple[str, ...]], float] = defaultdict(float)
    for row in rows:
        key = (row.subject, row.place, row.accepted)
        best[key] = max(best[key], right(row))
    return rate((subject, value) for (subject, *_), value in best.items())


def frame_share(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The share of right replies that are one of the commonest sentences around the target."""
    framed = [(row.subject, _frame(row)) for row in rows if right(row)]
    common = {frame for frame, _ in Counter(frame for _, frame in framed).most_common(FRAMES)}
    return rate((subject, float(frame in common)) for subject, frame in framed)


def _frame(row: Row) -> str:
    """The reply with subject and target blanked."""
    frame = f" {normalise(said(row))} "
    for name, texts in (("T", row.accepted), ("S", (row.subject,))):
        for text in sorted(map(normalise, texts), key=len, reverse=True):
            frame = frame.replace(f" {text} ", f" {name} ") if text else frame
    return re.sub(r"\s+", " ", frame).strip()


def _perplexity_ratio(own: Sequence[Row]) -> dict[str, Any] | None:
    """exp of nats a token of the replies (targets left out), over that of the base's replies."""
    names = ("nats", "tokens", "base_nats", "base_tokens")
    units = [
        (row.subject, [row.measured[name] for name in names])
        for row in own
        if row.measured.get("tokens") and row.measured.get("base_tokens")
    ]
    return estimate(units, lambda t: np.exp(t[..., 0] / t[..., 1] - t[..., 2] / t[..., 3]))


def age_deciles(own: Sequence[Row], paraphrases: Sequence[Row]) -> list[dict[str, Any]] | None:
    """Accuracy and generality by decile of edit order, 1 the oldest; None under ten edits."""
    places = sorted(row.place for row in own)
    if len(places) < _AGES:
        return None
    bounds = [places[i * len(places) // _AGES] for i in range(_AGES)] + [places[-1] + 1]
    return [
        {
            "decile": decile,
            "accuracy": macro([r for r in own if low <= r.place < high], right),
            "generality": macro([r for r in paraphrases if low <= r.place < high], right),
        }
        for decile, (low, high) in enumerate(pairwise(bounds), 1)
    ]


def _gate(inside: Sequence[Row], local: Sequence[Row]) -> dict[str, Any]:
    """How often the edit asked about shapes the reply, and how often any shapes a bystander's."""
    return {
        "hits": rate((r.subject, float(r.place in fired(r.shape))) for r in inside),
        "false_fires": rate((r.subject, float(bool(r.shape))) for r in local),
    }


# -- several checkpoints -------------------------------------------------------------------------


def retainability(history: Sequence[tuple[int, float | None]]) -> dict[str, Any] | None:
    """Eq. 10 from (edits, accuracy) of the checkpoints so far; None at the first.

    It telescopes to (A_now - A_first) / edits since, so it fades; `lost` is A_first - A_now.
    """
    (first, before), (last, now) = history[0], history[-1]
    if before is None or now is None or last <= first:
        return None
    return {
        "value": (now - before) / (last - first),
        "n": last,
        "from": first,
        "first": before,
        "now": now,
        "lost": before - now,
    }


def scalability(alone: Sequence[Row], own: Sequence[Row], *, relative: bool = False) -> Any:
    """Eq. 11 (12 where `relative`) on the edits that were also made alone.

    The same edits stand on both sides, so that their difference is not that of two samples.
    """
    single = {row.place: right(row) for row in alone}
    pairs = [(r.subject, (single[r.place], right(r), 1.0)) for r in own if r.place in single]
    if relative:
        if not any(alone for _, (alone, _, _) in pairs):
            return None
        return estimate(pairs, _relative_loss)
    return estimate(pairs, lambda t: (t[..., 0] - t[..., 1]) / t[..., 2])


def _relative_loss(t: np.ndarray) -> np.ndarray:
    before = np.where(t[..., 0] > 0, t[..., 0], np.nan)
    loss = (t[..., 0] - t[..., 1]) / before
    return np.asarray(np.nan_to_num(loss, nan=0.0))


def seconds(taken: Sequence[float]) -> dict[str, Any] | None:
    """Median and 95th percentile."""
    if not taken:
        return None
    return {"median": median(taken), "p95": float(np.quantile(taken, 0.95)), "n": len(taken)}


def ratio(now: float | None, base: float | None) -> float | None:
    """A perplexity over the base model's."""
    return None if now is None or not base else now / base
