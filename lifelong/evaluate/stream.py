"""The stream of edits, and what is asked about them at a checkpoint."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from random import Random

from lifelong.evaluate.raw import Row
from lifelong.evaluate.records import LOCALITY, Case, Probe
from lifelong.standing import places
from store import Edit

SCORED = 1_000  # edits that a checkpoint scores; above, a sample of so many, alike in age
AGES = 10  # groups of edits by age

# Kinds of probes that ask for the fact itself: saying its old answer is wrong there.
_ABOUT_IT = frozenset("paraphrase prefixed generation negated alias residual yes no part".split())


@dataclass(frozen=True, slots=True)
class Item:
    """The edit at `place` of the stream (from 0), made from record number `record` (from 1)."""

    place: int
    record: int
    edit: Edit
    accepted: tuple[str, ...]
    old: tuple[str, ...]
    probes: tuple[Probe, ...]

    @property
    def subject(self) -> str:
        """What intervals are resampled by."""
        return self.edit.subject or self.edit.prompt

    def own(self) -> Row:
        """Its own prompt."""
        return Row(self.place, self.subject, "own", self.edit.prompt, self.accepted, self.old)

    def row(self, probe: Probe) -> Row:
        """One of its probes."""
        old = self.old if probe.kind in _ABOUT_IT else ()
        return Row(self.place, self.subject, probe.kind, probe.prompt, probe.answers, old)


def stream(cases: Sequence[Case]) -> list[Item]:
    """The edits of all cases, in order, with nothing that a method could learn a probe from."""
    items: list[Item] = []
    for record, case in enumerate(cases, 1):
        for number, edit in enumerate(case.edits):
            probes = tuple(probe for probe in case.probes if probe.edit == number)
            bare = replace(
                edit,
                paraphrases=(),
                locality=(),
                portability=(),
                provenance={"place": len(items)},
            )
            accepted, old = case.accepted[number], case.old[number]
            items.append(Item(len(items), record, bare, accepted, old, probes))
    return items


def standing(items: Sequence[Item]) -> list[Item]:
    """Those that no later one contradicts: of several targets of a fact, the last counts."""
    above = places(replace(item.edit, id=item.place) for item in items)
    return [item for item in items if above[item.place] is None]


def groups(things: Sequence[Item], number: int = AGES) -> list[Sequence[Item]]:
    """`things`, oldest first, in `number` groups of nearly equal size."""
    n = len(things)
    return [things[i * n // number : (i + 1) * n // number] for i in range(number)]


def ranks(number: int, seed: int) -> list[float]:
    """A random rank for each place: who has the lowest is drawn first, at every checkpoint."""
    draw = Random(seed)
    return [draw.random() for _ in range(number)]


def drawn(items: Sequence[Item], ranked: Sequence[float], number: int) -> list[Item]:
    """The `number` items of lowest rank, in stream order."""
    chosen = sorted(items, key=lambda item: ranked[item.place])[:number]
    return sorted(chosen, key=lambda item: item.place)


def scored(items: Sequence[Item], ranked: Sequence[float]) -> list[Item]:
    """All items, or a sample in which every decile of age has its part."""
    if len(items) <= SCORED:
        return list(items)
    return [item for group in groups(items) for item in drawn(group, ranked, SCORED // AGES)]


def asked(items: Sequence[Item], chosen: Set[int], *, gated: bool) -> Iterator[Row]:
    """What is asked: own prompts and paraphrases of all, every probe of the edits in `chosen`.

    Locality of all too, where a gate lets most of it through to the base model (`gated`).
    """
    always = {"paraphrase"} | (LOCALITY if gated else frozenset())
    for item in items:
        yield item.own()
        for probe in item.probes:
            if probe.kind in always or item.place in chosen:
                yield item.row(probe)
