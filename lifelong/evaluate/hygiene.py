"""Locality probes against the whole edit set.

With thousands of edits live, the locality probe of one record may be in scope of another record's
edit. Such a probe must not count as damage when its answer changes, so before anything is scored:

    it is an edit's own prompt                     -> left out: accuracy asks it already
    same subject and relation as an edit           -> a paraphrase of that edit
    same subject, and its answer is the old one    -> left out: it asks for the fact in other words
    same subject, otherwise                        -> kept, as `same_subject`
    no edit's subject                              -> kept as it is

In doubt a probe stays, and a change counts as damage: "Final Fantasy X-2" is no "Final Fantasy".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lifelong.evaluate.records import LOCALITY, Case, Probe
from lifelong.fact import Fact, facts
from lifelong.subject import Mention, SubjectGate, extract, normalise, subject_key

Subject = tuple[str, ...]  # its key
Place = tuple[int, int]  # of an edit: its case, and its position there


@dataclass(frozen=True, slots=True)
class Clean:
    """Cases whose locality probes no edit covers, and how many probes were touched to that end."""

    cases: tuple[Case, ...]
    moved: int  # now paraphrases
    own: int  # left out: an edit's own prompt
    entailed: int  # left out
    retagged: int  # now `same_subject`

    def lines(self) -> list[str]:
        """The account, for people."""
        return [
            f"locality probes in scope of another edit, now its paraphrases: {self.moved:,}",
            f"locality probes left out, an edit's own prompt: {self.own:,}",
            f"locality probes left out, entailed by an edit: {self.entailed:,}",
            f"locality probes retagged, an edited subject's other relation: {self.retagged:,}",
        ]


def clean(cases: Sequence[Case]) -> Clean:
    """`cases`, all of which will be edited, with each locality probe where it belongs."""
    edited = _Edited(cases)
    kept: list[list[Probe]] = [[p for p in case.probes if p.kind not in LOCALITY] for case in cases]
    moved = own = entailed = retagged = 0
    for i, case in enumerate(cases):
        for probe in case.probes:
            if probe.kind not in LOCALITY:
                continue
            if normalise(probe.prompt) in edited.prompts:
                own += 1
                continue
            subjects = edited.subjects(probe, case)
            if place := edited.covering(probe, case, subjects):
                moved += 1
                there, position = place
                answers = cases[there].accepted[position]
                kept[there].append(Probe("paraphrase", probe.prompt, answers, position))
            elif edited.entails(probe, subjects):
                entailed += 1
            else:
                tagged = replace(probe, kind="same_subject") if subjects else probe
                retagged += tagged.kind != probe.kind
                kept[i].append(tagged)
    new = (
        replace(case, probes=tuple(dict.fromkeys(probes)))
        for case, probes in zip(cases, kept, strict=True)
    )
    return Clean(tuple(new), moved, own, entailed, retagged)


class _Edited:
    """Every edit of all cases, found by prompt, by fact and by subject."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.prompts: set[str] = set()
        self._gate = SubjectGate()
        self._settled: dict[Fact, Place] = {}  # the last edit of a fact is the live one
        self._old: dict[Subject, set[str]] = {}  # subject -> its edits' old answers
        for place, case in enumerate(cases):
            for i, edit in enumerate(case.edits):
                self.prompts.add(normalise(edit.prompt))
                self._settled.update(dict.fromkeys(facts(edit), (place, i)))
                if subject := edit.subject or extract(edit.prompt):
                    old = self._old.setdefault(self._gate.add(subject), set())
                    old.update(normalise(answer) for answer in case.old[i])

    def subjects(self, probe: Probe, case: Case) -> list[Subject]:
        """The edited subjects that a probe is about: it names them in full, and no longer name.

        Where the data calls the probe a `same_subject` one, its own edit's subject is among them.
        """
        about = [
            mention.subject
            for mention in self._gate.find(probe.prompt)
            if mention.coverage == 1 and _names(probe.prompt, mention)
        ]
        subject = case.edits[probe.edit].subject
        if probe.kind == "same_subject" and subject:
            about.append(subject_key(subject))
        return about

    def covering(self, probe: Probe, case: Case, subjects: Iterable[Subject]) -> Place | None:
        """The edit of the same subject and relation. A `near` probe has its own edit's relation."""
        relation = case.edits[probe.edit].relation
        if probe.kind != "near" or not relation:
            return None
        known = (("relation", normalise(relation), *subject) for subject in subjects)
        return next((self._settled[fact] for fact in known if fact in self._settled), None)

    def entails(self, probe: Probe, subjects: Iterable[Subject]) -> bool:
        """Is a labelled answer of `probe` the old answer of an edit of its subject?"""
        answers = {normalise(answer) for answer in probe.answers}
        return any(not answers.isdisjoint(self._old[subject]) for subject in subjects)


def _names(prompt: str, mention: Mention) -> bool:
    """Is the name in `prompt` the mentioned subject's, not a longer one or somebody else's?"""
    name = extract(prompt)
    said = prompt[mention.spans[0][0] : mention.spans[-1][1]]
    return name is None or f" {normalise(name)} " in f" {normalise(said)} "
