"""When is a reading alarming?  Whole faults at once, shares only beyond what chance explains.

    below    upper Wilson bound of the share  <  threshold                     (Wilson 1927)
    drop     upper Newcombe bound of (share now - share before)  <  -drop      (Newcombe 1998)

"Before" pools the trailing window of readings. Bounds are one-sided, at `confidence`; a reading
makes eight such tests, so at the default of 0.9999 noise alone raises an alarm about once in a
thousand readings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist, median
from typing import TYPE_CHECKING, Any

from store import JSON, Reading

if TYPE_CHECKING:  # which needs torch; to look at readings does not
    from lifelong.monitor import Findings, Result

STRANGE = "strange reply"

_SHARES: Mapping[str, float] = {
    "accuracy": 0.9, "generality": 0.5, "locality": 0.6, "oldest": 0.9
}  # fmt: skip


@dataclass(frozen=True)
class Thresholds:
    """What is alarming: shares `below` these, a `drop` of more than this, and the like.

    An edit has a scope without bounds whose scores over the ordinary sentences add up to `stray`:
    as probabilities, that it shapes so many of them. A reply is strange that surprises the base
    model (`perplexity.strangest`) `surprise` times as much as the median reply does.
    """

    below: Mapping[str, float] = field(default_factory=lambda: dict(_SHARES))
    drop: float = 0.0
    window: int = 5
    confidence: float = 0.9999
    stray: float = 1.5
    surprise: float = 5.0


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong, and the edits that best explain it, the likeliest first."""

    kind: str
    what: str
    suspects: tuple[int, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        """As it stands in a reading."""
        return {"kind": self.kind, "what": self.what, "suspects": list(self.suspects)}


def alarms_of(reading: Reading) -> list[Alarm]:
    """The alarms that stand in a reading; none in one of an older version."""
    stored: Any = reading.body.get("alarms") or []
    return [Alarm(a["kind"], a["what"], tuple(a["suspects"])) for a in stored]


def faults(found: "Findings", limits: Thresholds) -> Iterator[Alarm]:
    """What needs no statistics: the edit at fault is known."""
    if found.damaged:
        ids = ", ".join(map(str, found.damaged))
        what = f"Not as written: text, vector, patch or event of edit {ids} fails its hash."
        yield Alarm("damage", what, tuple(found.damaged))
    for newer, older in found.conflicts:
        what = f"Edits {newer} and {older} are both live and say different things of one fact."
        yield Alarm("conflict", what, (newer, older))
    for id, scores in sorted(found.strays.items(), key=lambda item: -sum(item[1].values())):
        if sum(scores.values()) >= limits.stray:
            most = max(scores, key=lambda sentence: scores[sentence])
            what = f"Edit {id} fires, or nearly does, on {len(scores)} ordinary sentences"
            yield Alarm("false fires", f"{what}, most of all on {most!r}.", (id,))
    usual = median(found.strange.values()) if found.strange else 0.0
    for id, nats in sorted(found.strange.items(), key=lambda item: -item[1]):
        if nats > limits.surprise * usual:
            what = f"The reply of edit {id} surprises the base model: {nats:.1f} nats a token"
            yield Alarm(STRANGE, f"{what} (usual: {usual:.1f}).", (id,))


def losses(
    body: Mapping[str, JSON], earlier: Sequence[Reading], limits: Thresholds
) -> Iterator[Alarm]:
    """Shares that are too low, or lower than before, beyond chance; without suspects as yet."""
    z = NormalDist().inv_cdf(limits.confidence)
    before = [reading.body for reading in earlier[-limits.window :]]
    for name, threshold in limits.below.items():
        right, asked = _count(body, name)
        if not asked:
            continue
        _, high = wilson(right, asked, z)
        if high < threshold:
            what = f"{name.capitalize()} is {right} of {asked}, below {threshold:.0%}"
            yield Alarm(name, f"{what} beyond chance.")
            continue
        counts = [_count(b, name) for b in before]
        once, of = sum(right for right, _ in counts), sum(asked for _, asked in counts)
        if of and newcombe((right, asked), (once, of), z)[1] < -limits.drop:
            what = f"{name.capitalize()} fell from {once} of {of} to {right} of {asked}"
            yield Alarm(name, f"{what}, more than chance explains.")


def failures(found: "Findings", name: str) -> "list[Result]":
    """The wrong results behind a share."""
    measure = "accuracy" if name == "oldest" else name
    return [r for r in found.results if r.measure == measure and not r.right]


def wilson(right: int, asked: int, z: float) -> tuple[float, float]:
    """The score interval of a share at `z` standard deviations."""
    p, n = right / asked, asked
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe(now: tuple[int, int], before: tuple[int, int], z: float) -> tuple[float, float]:
    """The hybrid score interval of share now - share before; each is (right, asked)."""
    (p, (p_low, p_high)), (q, (q_low, q_high)) = (
        (right / asked, wilson(right, asked, z)) for right, asked in (now, before)
    )
    low = p - q - sqrt((p - p_low) ** 2 + (q_high - q) ** 2)
    return low, p - q + sqrt((p_high - p) ** 2 + (q - q_low) ** 2)


def _count(body: Mapping[str, JSON], name: str) -> tuple[int, int]:
    """(right, asked); (0, 0) where a reading has none, as those of older versions."""
    counts = body.get("counts")
    found = counts.get(name) if isinstance(counts, dict) else None
    right, asked = found if isinstance(found, list) else (0, 0)
    return (right, asked) if isinstance(right, int) and isinstance(asked, int) else (0, 0)
