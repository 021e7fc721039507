"""Composed questions: which are answered after the edits, by how many hops they take.

    multihop                every case; an unedited hop is the model's own to answer
    multihop_all_edited     the cases whose every hop is edited
    multihop_partly_edited  the others
    multihop_with_facts     every case; the unedited hops of all cases are given as a fact base
    hop_wise, .._with_facts the same cases, by the way: each hop led where it leads now

A case is right if any wording of its question gets the answer, or another name of it. Whoever
answers is given the wordings, and nothing else of the case.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lifelong.evaluate.records import Case
from lifelong.facts import fact_of
from lifelong.match import contains
from store import Reference


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many."""

    right: int
    of: int

    @property
    def rate(self) -> float:
        """0 to 1; of nothing, 0."""
        return self.right / self.of if self.of else 0.0


Table = dict[str, Share]


@dataclass(frozen=True, slots=True)
class Told:
    """What was said to each wording, and through which places its chain of hops led."""

    replies: Mapping[str, str]
    ways: Mapping[str, Sequence[str]]


def composed(cases: Iterable[Case]) -> list[Case]:
    """The cases with a composed question whose hops are known."""
    return [case for case in cases if case.chain]


def wordings(case: Case) -> list[str]:
    """The wordings of its composed question."""
    return [probe.prompt for probe in case.probes if probe.kind == "multihop"]


def fact_base(cases: Sequence[Case]) -> list[Reference]:
    """The unedited hops of all cases, read from plain statements ("The capital of A is B.")."""
    edited = {edit.prompt for case in cases for edit in case.edits}
    told = {
        f"{hop.statement} {hop.answers[0]}."
        for case in cases
        for hop in case.chain
        if not hop.edited and hop.statement not in edited
    }
    return [fact_of(statement) for statement in sorted(told)]


def is_right(case: Case, replies: Mapping[str, str]) -> bool:
    """Does any wording's reply say the answer, or another name of it?"""
    answers = {answer for p in case.probes if p.kind == "multihop" for answer in p.answers}
    return any(contains(replies[text], a) for text in wordings(case) for a in answers)


def is_led(case: Case, ways: Mapping[str, Sequence[str]]) -> bool:
    """Does any wording's way lead through what each hop leads to, and nothing else?"""
    return any(
        len(ways[text]) == len(case.chain)
        and all(map(_leads, ways[text], (hop.answers for hop in case.chain)))
        for text in wordings(case)
    )


def _leads(place: str, answers: Sequence[str]) -> bool:
    return any(contains(place, answer) for answer in answers)


def by_hops(cases: Iterable[Case], right: Callable[[Case], bool]) -> Table:
    """The share of right cases: of "all", and of those with "2", "3", ... hops."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for case in cases:
        found = right(case)
        for group in ("all", str(len(case.chain))):
            groups[group].append(found)
    return {group: Share(sum(found), len(found)) for group, found in sorted(groups.items())}


def tables(cases: Sequence[Case], alone: Told, with_facts: Told) -> Iterator[tuple[str, Table]]:
    """Our figures, from the replies to every wording, and their ways, without and with facts."""
    edited = [case for case in cases if case.all_edited]
    partly = [case for case in cases if not case.all_edited]
    yield "multihop", by_hops(cases, lambda case: is_right(case, alone.replies))
    yield "multihop_all_edited", by_hops(edited, lambda case: is_right(case, alone.replies))
    yield "multihop_partly_edited", by_hops(partly, lambda case: is_right(case, alone.replies))
    yield "multihop_with_facts", by_hops(cases, lambda case: is_right(case, with_facts.replies))
    yield "hop_wise", by_hops(cases, lambda case: is_led(case, alone.ways))
    yield "hop_wise_with_facts", by_hops(cases, lambda case: is_led(case, with_facts.ways))
