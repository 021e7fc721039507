"""What the scope classifier learns from: relations in many wordings, "this" for the subject.

`relations.jsonl` beside this file was written for this project: one relation a line, its `prompts`
("{}" for the subject), its other `labels`, and the `ids` under which public data knows it.

In a folder of public data the training parts of ParaRel, LRE, CounterFact, zsRE and MQuAKE
(PokeMQA's questions) are read, and sentences of WikiText-2 that ask for nothing. Whatever is
missing there is left out; so are records about a subject of any development file.
"""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

from lifelong.subject import extract, focus, masked, subject_key, words

_MOST = 16  # wordings of one relation from one source
_ANSWERS = 200  # of one relation
_PLAIN = 3000
_RELATIONS_KEPT, _WORDINGS_KEPT = 0.85, 0.75  # in a part
_LABEL = (
    "The {} of this is",
    "this {}",
    "The name of the {} of this is",
    "What is the {} of this?",
    "Tell me the {} of this.",
)

# Relations that share wordings or answers for some subjects: not negatives of each other.
_OVERLAP = [
    {"height of person", "height of building", "elevation above sea level", "height", "elevation"},
    {"genre of musician", "genre of work", "genre"},
    {"publication date", "start time of series", "date of first performance", "release date"},
    {"inception", "date of official opening", "construction start", "opening year"},
    {"owned by", "parent organization"},
    {"developer", "manufacturer", "production company", "designer", "architect", "inventor"},
    {"creator of artwork", "creator of fictional character", "designer", "developer", "author"},
    {"present in work", "first appearance", "from narrative universe", "part of the series"},
    {"child", "number of children"},
    {"age", "date of birth"},
    {"employer", "work location"},
    {"service entry", "launch date", "maiden flight"},
    {"member of", "airline alliance", "political party", "part of", "member of sports team"},
    {"located in the administrative territorial entity", "country", "P276", "part of"},
    {"location of event", "P276", "headquarters", "country of origin", "location of formation"},
    {"price", "ticket price", "membership fee"},
    {"material", "main ingredient"},
    {"country of manufacture", "country of origin", "location of formation", "country"},
    {"office address", "headquarters"},
    {"dimensions", "length", "width", "height"},
    {"opening hours", "opening time", "closing time", "support hours"},
    {"year of adoption", "entry into force"},
    {"file format", "file extension"},
    {"position held", "occupation", "field of work"},
    {"languages spoken", "native language", "writing language"},
    {"discovered by", "inventor"},
    {"species found in", "affected organ", "geographic range"},
    {"taxonomic family", "parent taxon", "genus", "taxonomic order", "subclass of"},
    {"place of birth", "country of origin"},
    {"population", "member count"},
    {"participant in event", "conflict"},
    {"founder", "inventor"},
    {"taxonomic family", "subclass of", "instance of"},
    {"drainage basin", "drainage basin country", "mouth of the watercourse"},
    {"time period", "set in period"},
    {"mass", "weight", "body weight", "atomic mass"},
    {"species found in", "host", "endemic to", "geographic range"},
    {"political alignment", "ideology", "political ideology"},
    {"shipyard", "manufacturer", "developer"},
    {"ship class", "vessel class"},
    {"manufacturer", "supplier"},
    {"child", "grandchild"},
    {"street", "postal address", "office address"},
    {"part of the series", "media franchise"},
    {"objective", "use"},
    {"anatomical location", "P276"},
    {"budget of organisation", "budget"},
    {"enemy", "competitor"},
    {"diet", "prey"},
    {"organiser", "sponsor"},
    {"league", "part of the series"},
    {"depth", "maximum depth"},
    {"predecessor", "follows"},
    {"successor", "followed by"},
    {"screenwriter", "author"},
    {"colour", "fruit inside color", "official color", "logo colour"},
    {"director", "producer"},
    {"weight", "body weight"},
    {"nickname", "nickname of place"},
    {"conflict", "conflict used in"},
    {"head coach", "coach of sports person", "student of", "teacher"},
    {"motto", "slogan", "theme"},
    {"manufacturer", "brand"},
    {"mouth of the watercourse", "end point", "destination", "outflow"},
    {"tributary", "inflow"},
    {"publication date", "first appearance", "launch date", "point in time", "inception"},
    {"narrative location", "location of event", "P276"},
    {"location of event", "server location"},
    {"duration", "length", "playing time", "journey duration", "length of river"},
    {"duration", "battery life", "shelf life"},
    {"presenter", "event host", "organiser", "conferred by", "moderator", "speaker"},
    {"part of the series", "series"},
    {"film rating", "age rating"},
    {"game engine", "powerplant engine"},
    {"has cause", "cause of disease", "cause of death"},
    {"has effect", "final score"},
    {"favourite food", "diet"},
    {"diameter", "width"},
    {"sponsor", "funder"},
    {"full form", "ideology", "objective", "meaning of a word"},
    {"chief executive officer", "team lead", "department head", "university rector"},
    {"head of government", "mayor", "governor"},
    {"collection", "P276", "island", "street", "neighbourhood", "floor", "room number", "gate"},
    {"date of official opening", "opening year", "inception"},
    {"designer", "illustrator"},
    {"subclass of", "instance of", "beverage type", "species of fictional character"},
    {"participant", "band member", "cast member"},
    {"status", "building status"},
    {"deadline", "registration deadline", "point in time"},
    {"weekly meeting time", "start time", "point in time", "departure time"},
    {"weapon", "armament"},
    {"connector", "plug type"},
]


@dataclass(frozen=True)
class Relation:
    """Wordings that ask for the same fact, and answers that such a question has had."""

    sources: tuple[tuple[str, ...], ...]  # the wordings of each data set
    answers: tuple[str, ...]

    @property
    def wordings(self) -> frozenset[str]:
        """All of them."""
        return frozenset().union(*self.sources)


@dataclass(frozen=True)
class Corpus:
    """Named relations; those as CounterFact completes them; pairs (wording, other wording, answer)
    of unnamed ones; plain sentences.
    """

    relations: Mapping[str, Relation]
    completions: Mapping[str, Relation]
    pairs: tuple[tuple[str, str, str], ...]
    plain: tuple[str, ...]

    def part(self, seed: int) -> "Corpus":
        """Without some of the relations and pairs, and without some wordings of the others.

        What learns from the part meets new relations and new wordings in the whole.
        """
        rng = random.Random(seed)
        kept = {
            name: replace(relation, sources=tuple(_thinned(s, rng) for s in relation.sources))
            for name, relation in self.relations.items()
            if name in self.completions or rng.random() < _RELATIONS_KEPT
        }
        pairs = (pair for pair in self.pairs if rng.random() < _RELATIONS_KEPT)
        return replace(self, relations=kept, pairs=tuple(pairs))


def _thinned(wordings: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    kept = tuple(text for text in wordings if rng.random() < _WORDINGS_KEPT)
    return kept if len(kept) > 1 else tuple(wordings)


def overlapping(relation: str) -> set[str]:
    """`relation` and those whose questions it may answer."""
    return {relation}.union(*(group for group in _OVERLAP if relation in group))


def spoken(relation: str) -> str:
    """`relation` as a word to use in a sentence; "" where it is an id ("P276")."""
    return "" if relation[1:].isdigit() else relation


def relation_names() -> dict[str, str]:
    """Our name of a relation by the ids under which public data knows it."""
    return {id: record["relation"] for record in _relations() for id in record.get("ids", ())}


def corpus(data: Path | None) -> Corpus:
    """Our own relations, and the training parts of public sets under `data` where they exist."""
    sources: dict[str, list[list[str]]] = defaultdict(list)
    answers: dict[str, list[str]] = defaultdict(list)
    names = relation_names()
    for record in _relations():
        name = record["relation"]
        sources[name].append([_this(prompt, "{}") for prompt in record["prompts"]])
        labels = [name, *record.get("labels", ())]
        sources[name].append([form.format(label) for label in labels for form in _LABEL])
    if data is None:
        return Corpus(_collected(sources, answers), {}, (), ())
    held_out = development_subjects(data)
    completed: dict[str, set[str]] = defaultdict(set)
    for id, wording, _ in _counterfact(data, held_out):
        if wording:
            completed[names.get(id, id)].add(wording)
    for found in (
        [*_pararel(data), *_lre(data)],
        [*_counterfact(data, held_out)],
        [*_mquake(data, held_out, names)],
    ):
        some: dict[str, set[str]] = defaultdict(set)
        for id, wording, answer in found:
            name = names.get(id, id)
            if wording:
                some[name].add(wording)
            if answer:
                answers[name].append(answer)
        for name, texts in some.items():
            sources[name].append(_few(sorted(texts), _MOST))
    completions = {name: [sorted(texts)] for name, texts in completed.items()}
    return Corpus(
        _collected(sources, answers),
        _collected(completions, answers),
        tuple(_zsre(data, held_out)),
        tuple(_plain(data)),
    )


def _collected(
    sources: Mapping[str, Sequence[Sequence[str]]], answers: Mapping[str, Sequence[str]]
) -> dict[str, Relation]:
    return {
        name: Relation(
            tuple(tuple(dict.fromkeys(texts)) for texts in found),
            tuple(_few(sorted(set(answers.get(name, ()))), _ANSWERS)),
        )
        for name, found in sorted(sources.items())
        if len(set().union(*found)) > 1
    }


def _few(texts: Sequence[str], most: int) -> list[str]:
    """At most `most` of `texts`, the same ones every time."""
    return random.Random(0).sample(texts, min(most, len(texts)))


def _this(template: str, mark: str) -> str:
    at = template.index(mark)
    return focus(template, ((at, at + len(mark)),))


def _relations() -> Iterator[dict[str, Any]]:
    text = files("lifelong.train").joinpath("relations.jsonl").read_text(encoding="utf-8")
    yield from map(json.loads, text.splitlines())


def _pararel(data: Path) -> Iterator[tuple[str, str | None, str | None]]:
    """(relation, wording, answer), as the other sources."""
    for path in sorted(data.glob("pararel/graphs_json/*.jsonl")):
        for record in lines(path):
            match = re.match(r"(.*\[X\].*)\[Y\](.{0,11})$", record["pattern"])
            if match:
                yield path.stem, match.group(1).replace("[X]", "this").strip(), None
    for path in sorted(data.glob("pararel/trex_lms_vocab/*.jsonl")):
        yield from ((path.stem, None, record["obj_label"]) for record in lines(path))


def _lre(data: Path) -> Iterator[tuple[str, str | None, str | None]]:
    for path in sorted(data.glob("lre_relations/*/*.json")):
        if path.stem.startswith("occupation_"):
            continue  # "{} are typically" asks for two relations at once
        record = json.loads(path.read_text(encoding="utf-8"))
        for template in record["prompt_templates"] + record.get("prompt_templates_zs", []):
            yield record["name"], _this(template, "{}"), None
            yield record["name"], template.replace("{}", "this"), None
        yield from ((record["name"], None, str(s["object"])) for s in record["samples"])


def _counterfact(
    data: Path, held_out: frozenset[tuple[str, ...]]
) -> Iterator[tuple[str, str | None, str | None]]:
    """CounterFact's subjects and true answers are ParaRel's, which knows the relation.

    All relations but one: sport.
    """
    relations: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in sorted(data.glob("pararel/trex_lms_vocab/*.jsonl")):
        for record in lines(path):
            relations[record["sub_label"], record["obj_label"]].add(path.stem)
    for record in lines(data / "counterfact/train.jsonl"):
        subject = record["subject"]
        known = relations.get((subject, record["ground_truth"]), {"P641"})
        if len(known) == 1 and subject_key(subject) not in held_out:
            yield next(iter(known)), masked(record["prompt"], subject), record["target_new"]


def _mquake(
    data: Path, held_out: frozenset[tuple[str, ...]], names: Mapping[str, str]
) -> Iterator[tuple[str, str | None, str | None]]:
    openings = sorted((id for id in names if "{}" in id), key=len, reverse=True)
    for record in lines(data / "mquake/edit-to-questions.jsonl"):
        subject = _shared_subject(record["edit"], record["questions"])
        if subject is None or subject_key(subject) in held_out:
            continue
        edit = record["edit"].replace(subject, "{}", 1)
        opening = next((id for id in openings if edit.startswith(f"{id} ")), None)
        if opening:
            yield opening, opening.replace("{}", "this"), edit[len(opening) + 1 :]
            yield from ((opening, masked(q, subject), None) for q in record["questions"])


def _shared_subject(statement: str, questions: Sequence[str]) -> str | None:
    """The longest capitalised run of words of `statement` that all `questions` hold."""
    spots = words(statement)
    runs = (statement[a.start : b.end] for a, b in combinations([*spots, *spots], 2))
    named = {run for run in runs if run and (run[0].isupper() or run[0].isdigit())}
    shared = [run for run in named if all(run.lower() in q.lower() for q in questions)]
    return max(shared, key=lambda run: (len(run), run), default=None)


def _zsre(data: Path, held_out: frozenset[tuple[str, ...]]) -> Iterator[tuple[str, str, str]]:
    for record in lines(data / "zsre/mend-train-1k.jsonl"):
        subject = record["subject"]
        asked, again = masked(record["src"], subject), masked(record["rephrase"], subject)
        if asked and again and subject_key(subject) not in held_out:
            yield asked, again, record["pred"]


def _plain(data: Path) -> Iterator[str]:
    """Sentences with "this" for a name in them."""
    path = data / "wikitext-2/valid.txt"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    text = re.sub(r" @(.)@ ", r"\1", text)
    sentences = re.findall(r"[A-Z][^.!?\n=]{20,80} [.!?]", text)
    for sentence in _few(sentences, _PLAIN):
        subject = extract(sentence)
        if subject and (clause := masked(sentence, subject)):
            yield clause


def development_subjects(data: Path) -> frozenset[tuple[str, ...]]:
    """The keys of all subjects of the development files under `data`."""
    found = set()
    for path in sorted(data.glob("*/*-dev.jsonl")):
        for record in lines(path):
            rewrites = record.get("requested_rewrite", [])
            named = [record, *(rewrites if isinstance(rewrites, list) else [rewrites])]
            found |= {subject_key(r["subject"]) for r in named if "subject" in r}
    return frozenset(found)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file; none where it is missing."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
