"""The formats of public editing benchmarks, as data: how each is recognised and what it says.

A row of FORMATS is the fields that every record has, and the function that maps one to a `Case`.
No edit carries what is asked about it later: the probes stand beside it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from lifelong.errors import BadRecord
from lifelong.evaluate.records import Case, Hop, Probe, ProbeKind
from lifelong.policy import edit_of
from lifelong.subject import normalise, subject_key
from store import Edit

_BLANK = "_X_"  # TempLAMA's gap
_SHAPE = "Look at a record of the dataset that its other fields belong to."


@dataclass(frozen=True, slots=True)
class Options:
    """What is read where a record leaves a choice.

    `target`: zsRE's counterfactual `alt`, or the first of its right `answers` (a correction).
    `all_probes`: CounterFact's attribute prompts (locality) and generation prompts, too.
    """

    target: Literal["alt", "answers"] = "alt"
    all_probes: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """A record's fields, checked as they are read. A wrong one raises BadRecord with its place."""

    values: Mapping[str, object]
    line: int
    where: str  # "file.jsonl:17", and inside a record the way to these fields

    def text(self, name: str) -> str:
        """A text that must be there."""
        value = self._needed(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value.strip()

    def texts(self, name: str) -> tuple[str, ...]:
        """A text, a list of them or a list of lists of aliases, as one list; () if missing."""
        found = tuple(_flat(self.values.get(name)))
        if not all(isinstance(text, str) for text in found):
            raise self._wrong(name, "a text or a list of texts")
        return tuple(str(text).strip() for text in found)

    def inside(self, name: str) -> "Fields":
        """The fields of an object that must be there."""
        return self._object(name, self._needed(name))

    def each(self, name: str) -> list["Fields"]:
        """The fields of every object in a list; [] if missing."""
        values = self.values.get(name)
        if not isinstance(values, list | None):
            raise self._wrong(name, "a list of objects")
        return [self._object(f"{name}[{i}]", value) for i, value in enumerate(values or ())]

    def groups(self, name: str) -> list[tuple[str, "Fields"]]:
        """(group, fields) of every object in an object of lists; [] if missing."""
        if self.values.get(name) is None:
            return []
        inner = self.inside(name)
        return [(group, fields) for group in inner.values for fields in inner.each(group)]

    def missing(self, name: str) -> BadRecord:
        """The error that the field `name` is not there."""
        return BadRecord(f"{self.where}: the field {name!r} is missing.", _SHAPE)

    def _needed(self, name: str) -> object:
        if name not in self.values:
            raise self.missing(name)
        return self.values[name]

    def _object(self, name: str, value: object) -> "Fields":
        if not isinstance(value, Mapping):
            raise self._wrong(name, "an object")
        return Fields(value, self.line, f"{self.where} {name}")

    def _wrong(self, name: str, what: str) -> BadRecord:
        return BadRecord(f"{self.where}: the field {name!r} is not {what}.", _SHAPE)


def _flat(value: object) -> Iterable[object]:
    if isinstance(value, list):
        return chain.from_iterable(map(_flat, value))
    return () if value is None else (value,)


# --- the parts of a case ------------------------------------------------------------------------


def _asks(
    kind: ProbeKind, prompts: Iterable[str], answers: tuple[str, ...] = ()
) -> tuple[Probe, ...]:
    return tuple(Probe(kind, prompt, answers) for prompt in dict.fromkeys(prompts) if prompt)


def _unique(*texts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _follows(edit: Edit, prompt: str, answers: tuple[str, ...]) -> Probe:
    """What follows from an edit: asked back for its subject, or composed with another fact."""
    back = edit.subject and subject_key(edit.subject) in map(subject_key, answers)
    return Probe("reversed", prompt, answers) if back else Probe("multihop", prompt, answers, 0, 2)


def _case(
    fields: Fields,
    edit: Edit,
    probes: Iterable[Probe],
    old: tuple[str, ...] = (),
    *,
    aliases: tuple[str, ...] = (),
) -> Case:
    """A record with one edit."""
    edit = replace(edit, old=old[0] if old else None)
    return Case(fields.line, (edit,), tuple(probes), (_unique(edit.target, *aliases),), (old,))


# --- the formats --------------------------------------------------------------------------------


def _counterfact(r: Fields, options: Options) -> Case:
    """CounterFact (Meng et al. 2022). Its paraphrases stand behind an unrelated sentence."""
    rewrite = r.inside("requested_rewrite")
    new, true = rewrite.inside("target_new").text("str"), rewrite.inside("target_true").text("str")
    edit = Edit(
        _filled(rewrite.text("prompt"), rewrite.text("subject")),
        new,
        rewrite.text("subject"),
        rewrite.text("relation_id"),
    )
    probes = _asks("paraphrase", r.texts("paraphrase_prompts"), (new,))
    probes += _asks("near", r.texts("neighborhood_prompts"), (true,))
    if options.all_probes:  # attribute prompts: other subjects, of which the new object is true
        probes += _asks("near", r.texts("attribute_prompts"), (new,))
        probes += _asks("generation", r.texts("generation_prompts"), (new,))
    return _case(r, edit, probes, (true,))


def _counterfact_easyedit(r: Fields, _: Options) -> Case:
    """CounterFact in EasyEdit's fields. Its "rephrase" mostly only presupposes the fact."""
    edit = Edit(r.text("prompt"), r.text("target_new"), r.text("subject"))
    probes = _asks("generation", r.texts("rephrase_prompt"), (edit.target,))
    probes += _asks("near", r.texts("locality_prompt"), r.texts("locality_ground_truth"))
    return _case(r, edit, probes, r.texts("ground_truth"))


def _zsre(r: Fields, options: Options) -> Case:
    """zsRE in MEND's fields, some with a one-hop question, which holds for `alt` only."""
    right, alt = r.texts("answers"), options.target == "alt"
    if not right:
        raise BadRecord(f"{r.where}: there are no 'answers'.", _SHAPE)
    edit = Edit(r.text("src"), r.text("alt") if alt else right[0], r.text("subject"))
    probes = _asks("paraphrase", r.texts("rephrase"), (edit.target,) if alt else right)
    unrelated = [text.removeprefix("nq question: ") for text in r.texts("loc")]
    probes += _asks("far", unrelated, r.texts("loc_ans"))
    if alt and "portability" in r.values:
        hop = r.inside("portability")
        probes += (_follows(edit, hop.text("New Question"), hop.texts("New Answer")),)
    return _case(r, edit, probes, right if alt else (), aliases=() if alt else right)


def _knowedit(r: Fields, _: Options) -> Case:
    """KnowEdit's zsRE, wiki_counterfact and wiki_recent (whose old answers are not known)."""
    edit = Edit(r.text("prompt"), r.text("target_new"), r.text("subject"))
    probes = [*_asks("paraphrase", r.texts("rephrase_prompt"), (edit.target,)), *_locality(r)]
    for group, probe in r.groups("portability"):
        prompt, answers = probe.text("prompt"), probe.texts("ground_truth")
        alias = group == "Subject_Aliasing"
        probes.append(Probe("alias", prompt, answers) if alias else _follows(edit, prompt, answers))
    return _case(r, edit, probes, r.texts("ground_truth"))


def _wikibio(r: Fields, _: Options) -> Case:
    """KnowEdit's WikiBio: the next sentence of a biography."""
    return _case(r, Edit(r.text("text"), r.text("labels"), r.text("concept")), _locality(r))


def _locality(r: Fields) -> list[Probe]:
    """KnowEdit's locality: other facts of the same subject, whatever the group is called."""
    return [
        Probe("same_subject", probe.text("prompt"), probe.texts("ground_truth"))
        for _, probe in r.groups("locality")
    ]


def _mquake(r: Fields, _: Options) -> Case:
    """MQuAKE: several edits, and wordings of one question that needs them all."""
    rewrites = r.each("requested_rewrite")
    asked = [rewrite.text("question") for rewrite in rewrites]
    hops = tuple(_hop(hop, asked) for hop in r.each("new_single_hops"))
    before = tuple(_hop(hop, asked) for hop in r.each("single_hops"))
    edits, accepted, old = [], [], []
    for rewrite in rewrites:
        new, true = (rewrite.inside(name).text("str") for name in ("target_new", "target_true"))
        subject = rewrite.text("subject")
        prompt = _filled(rewrite.text("prompt"), subject)
        edits.append(Edit(prompt, new, subject, rewrite.text("relation_id"), true))
        accepted.append(_aliases(new, rewrite.text("question"), hops))
        names = _aliases(true, rewrite.text("question"), before)  # less those that both bear
        old.append((true, *(name for name in names[1:] if name not in accepted[-1])))
    probes = [Probe("paraphrase", asked[i], accepted[i], i) for i in range(len(edits))]
    answers = _unique(r.text("new_answer"), *r.texts("new_answer_alias"))
    probes += [Probe("multihop", text, answers, 0, len(hops)) for text in r.texts("questions")]
    return Case(r.line, tuple(edits), tuple(probes), tuple(accepted), tuple(old), hops)


def _hop(r: Fields, asked: Iterable[str]) -> Hop:
    answers = _unique(r.text("answer"), *r.texts("answer_alias"))
    return Hop(r.text("question"), r.text("cloze"), answers, r.text("question") in asked)


def _aliases(answer: str, question: str, hops: Iterable[Hop]) -> tuple[str, ...]:
    """`answer` and its other names, as the hop that asks this question gives them."""
    known = (hop.answers for hop in hops if hop.question == question and answer in hop.answers)
    return _unique(answer, *chain.from_iterable(known))


def _conflict(r: Fields, _: Options) -> Case:
    """ConflictEdit: later edits contradict earlier ones, directly or by a rule."""
    edits, probes, old = [], [], []
    for i, said in enumerate(r.each("edits")):
        relation, subject = said.inside("relation"), said.inside("subject").text("label")
        new, true = (said.inside(name).text("label") for name in ("new_object", "object"))
        prompt = _filled(relation.text("prompt"), subject)
        edits.append(Edit(prompt, new, subject, relation.text("id"), true))
        old.append((true,))
        probes.append(Probe("paraphrase", _filled(relation.text("query"), subject), (new,), i))
    rule = " ".join((r.text("type"), *r.texts("rule")))
    accepted = tuple((edit.target,) for edit in edits)
    return Case(r.line, tuple(edits), tuple(probes), accepted, tuple(old), rule=rule)


def _templama(r: Fields, _: Options) -> Case:
    """TempLAMA: the answers of one year; the next year's record takes their place.

    The target is the first of the year's answers (`most_recent_answer` is the same every year).
    """
    names = tuple(answer.text("name") for answer in r.each("answer"))
    if not names:
        raise BadRecord(f"{r.where}: there is no 'answer'.", _SHAPE)
    before, _gap, after = r.text("query").partition(_BLANK)
    # Relations whose gap does not come last are those of persons: heads, chairs, coaches.
    prompt = f"{before}Who{after.rstrip('.')}?" if normalise(after) else before.strip()
    return _case(r, Edit(prompt, names[0], None, r.text("relation")), (), aliases=names)


def _fever(r: Fields, _: Options) -> Case:
    """FEVER-Symmetric and VitaminC: the evidence is the edit, to be held for true (SUPPORTS).

    Its claim is in scope, with its own label; where the label is neither SUPPORTS nor REFUTES the
    evidence does not settle the claim, and its answer shall stay.
    """
    evidence = r.text("evidence" if "evidence" in r.values else "evidence_sentence")
    settled = r.text("label") in ("SUPPORTS", "REFUTES")
    kind: ProbeKind = "paraphrase" if settled else "near"
    probe = Probe(kind, r.text("claim"), (r.text("label"),) if settled else ())
    return _case(r, Edit(evidence, "SUPPORTS"), (probe,))


def _knowledge_editor(r: Fields, _: Options) -> Case:
    """zsRE and FEVER as De Cao et al. (2021) gave them: the target is the first alternative."""
    alternatives = r.texts("alternatives")
    if not alternatives:
        raise BadRecord(f"{r.where}: there are no 'alternatives'.", _SHAPE)
    edit = Edit(r.text("input"), alternatives[0])
    right = [answer.texts("answer") for answer in r.each("output")]
    probes = _asks("paraphrase", r.texts("filtered_rephrases"), (edit.target,))
    return _case(r, edit, probes, tuple(chain.from_iterable(right)))


def _qaedit(r: Fields, _: Options) -> Case:
    """QAEdit: questions whose subject is a span of them."""
    edit = Edit(r.text("prompt"), r.text("target"), r.text("subject"))
    probes = _asks("paraphrase", r.texts("rephrase"), (edit.target,))
    for probe in r.each("locality"):
        probes += _asks("far", (probe.text("loc"),), probe.texts("loc_ans"))
    return _case(r, edit, probes)


def _unke(r: Fields, _: Options) -> Case:
    """UnKE: a long answer, and questions about its parts."""
    edit = Edit(r.text("question"), r.text("answer"))
    probes = _asks("paraphrase", r.texts("para_question"), (edit.target,))
    parts = zip(r.texts("sub_question"), r.texts("sub_answer"), strict=False)
    return _case(r, edit, (*probes, *(_follows(edit, ask, (say,)) for ask, say in parts)))


def _own(r: Fields, _: Options) -> Case:
    """Our own JSONL, as `lifelong import` reads it. Its locality may be about anything."""
    provenance = edit_of(r.values).provenance  # which also refuses unknown fields
    subject, relation = (next(iter(r.texts(name)), None) for name in ("subject", "relation"))
    edit = Edit(
        r.text("prompt"), r.text("target"), subject or None, relation or None, provenance=provenance
    )
    probes = _asks("paraphrase", r.texts("paraphrases"), (edit.target,))
    probes += _asks("far", r.texts("locality"))
    probes += tuple(
        _follows(edit, probe.text("prompt"), probe.texts("target"))
        for probe in r.each("portability")
    )
    return _case(r, edit, probes, r.texts("old"))


def _filled(template: str, subject: str) -> str:
    return template.replace("{}", subject)


@dataclass(frozen=True, slots=True)
class Format:
    """A row of FORMATS. Records of a `shared` format may state the same edit for other probes.

    Formats of one `source` may stand in one file.
    """

    fields: frozenset[str]
    case: Callable[[Fields, Options], Case]
    shared: bool = False
    source: str = ""


def _row(
    fields: str, case: Callable[[Fields, Options], Case], *, shared: bool = False, source: str = ""
) -> Format:
    return Format(frozenset(fields.split()), case, shared, source)


FORMATS: Mapping[str, Format] = {
    "mquake": _row("requested_rewrite questions new_answer new_single_hops", _mquake, shared=True),
    "counterfact": _row(
        "requested_rewrite paraphrase_prompts neighborhood_prompts",
        _counterfact,
        source="CounterFact",
    ),
    "counterfact-easyedit": _row(
        "prompt target_new subject ground_truth rephrase_prompt locality_prompt",
        _counterfact_easyedit,
        source="CounterFact",
    ),
    "zsre": _row("subject src rephrase alt answers loc", _zsre),
    "knowedit": _row("prompt target_new subject locality", _knowedit),
    "wikibio": _row("text labels concept locality", _wikibio),
    "conflict": _row("triples edits type", _conflict),
    "templama": _row("query answer date relation", _templama),
    "fever": _row("claim evidence label", _fever, shared=True),
    "fever-sentence": _row("claim evidence_sentence label", _fever, shared=True),
    "knowledge-editor": _row("input alternatives output", _knowledge_editor),
    "qaedit": _row("prompt target subject rephrase locality", _qaedit),
    "unke": _row("question answer para_question sub_question sub_answer", _unke),
    "own": _row("prompt target", _own),
}


def recognise(record: Mapping[str, object]) -> str | None:
    """The first format whose fields `record` has."""
    return next((name for name, row in FORMATS.items() if row.fields <= record.keys()), None)
