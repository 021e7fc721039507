"""Which prompts fire, with many CounterFact edits live: the gate and the classifier together.

    python tests/benchmarks/scope_routes.py [DATA] [SIZE ...]

Prints one JSON line a memory size: the share of paraphrases that reach their own edit, of prompts
about neighbours (less those that an edit covers), of questions that ask for another relation of an
edited subject (templates of ParaRel and LRE), and of ordinary sentences that fire at all. A memory
larger than CounterFact's is filled up with edits of ParaRel's subjects. Nothing is generated.
"""

import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lifelong.encoder import SentenceEncoder, load_encoder
from lifelong.router import Route, Router, scope_text
from lifelong.scope import scope_for
from lifelong.subject import SubjectGate, is_longer_name, normalise
from lifelong.train.data import Corpus, corpus, overlapping, relation_names
from store import Edit, Hint, Journal

DATA = Path(__file__).parents[2] / "../shared/data"
SIZES = (100, 1_000, 5_000)
QUESTIONS = 1_000
SENTENCES = 10_000
NEIGHBOURS = 3  # a record


def main(data: Path = DATA, sizes: Sequence[int] = SIZES) -> None:
    """Print the shares for every size."""
    encoder = load_encoder("minilm")
    records = list(lines(data / "counterfact/full-fields-dev.jsonl"))
    others = [
        Edit(r["prompt"], r["target_new"], subject=r["subject"])
        for r in lines(data / "counterfact/edit-dev.jsonl")
    ]
    sentences = [
        r["Text"].strip() for r in json.loads((data / "wikitext-2/me-ppl.json").read_text())
    ]
    texts = corpus(data)
    for size in sizes:
        known = records[:size]
        edits = [edit(record) for record in known]
        subjects = {normalise(e.subject or "") for e in edits}
        more = chain(others, filling(data, texts))
        new = (e for e in more if normalise(e.subject or "") not in subjects)
        edits += islice(new, size - len(edits))
        near = neighbours(known, edits, texts)
        other = other_relations(known, data)
        with memory(encoder, edits) as router:
            print(json.dumps(figures(router, known, near, other, sentences)), flush=True)


def figures(
    router: Router,
    known: Sequence[dict[str, Any]],
    near: Sequence[str],
    other: Sequence[str],
    sentences: Sequence[str],
) -> dict[str, Any]:
    """Shares that fire."""
    asked = [(text, i) for i, r in enumerate(known, 1) for text in r["paraphrase_prompts"]]
    reached = [
        bool(route.hits) and route.hits[0].id == id
        for route, (_, id) in zip(routes(router, [t for t, _ in asked]), asked, strict=True)
    ]
    return {
        "edits": len(router),
        "paraphrases": len(asked),
        "reach their edit": share(reached),
        "neighbours": len(near),
        "neighbours fire": share([bool(r.hits) for r in routes(router, near)]),
        "other relations": len(other),
        "other relations fire": share([bool(r.hits) for r in routes(router, other)]),
        "sentences": len(sentences),
        "sentences fire": share([bool(r.hits) for r in routes(router, sentences)]),
    }


def routes(router: Router, prompts: Sequence[str]) -> Iterator[Route]:
    """Routes, some at a time."""
    for at in range(0, len(prompts), 64):
        yield from router.route(prompts[at : at + 64])


def share(found: Sequence[bool]) -> float:
    """Of true ones."""
    return round(sum(found) / max(1, len(found)), 4)


@contextmanager
def memory(encoder: SentenceEncoder, edits: Sequence[Edit]) -> Iterator[Router]:
    """The router of a journal that holds `edits`; a large one reads from it."""
    scope = scope_for(encoder)
    with Journal.open(":memory:", model="none", encoder=encoder.fingerprint) as journal:
        vectors = Router(journal, encoder, scope).encode(edits)
        journal.record(edits, Hint("serac", ("",) * len(edits)), vectors)
        yield Router.build(journal, encoder, scope)


def edit(record: dict[str, Any]) -> Edit:
    """The edit of a record with ROME's fields."""
    rewrite = record["requested_rewrite"]
    subject = rewrite["subject"]
    return Edit(rewrite["prompt"].format(subject), rewrite["target_new"]["str"], subject=subject)


def filling(data: Path, texts: Corpus) -> Iterator[Edit]:
    """Edits of ParaRel's subjects: one relation of all of them, then the next."""
    paths = sorted(data.glob("pararel/trex_lms_vocab/*.jsonl"))
    subjects = sorted({record["sub_label"] for path in paths for record in lines(path)})
    random.Random(0).shuffle(subjects)
    wordings = [sorted(relation.wordings)[0] for relation in texts.completions.values()]
    wordings += [sorted(relation.wordings)[-1] for relation in texts.completions.values()]
    for wording in wordings:
        for subject in subjects:
            yield Edit(wording.replace("this", subject, 1), "Atlantis", subject=subject)


def neighbours(known: Sequence[dict[str, Any]], edits: Sequence[Edit], texts: Corpus) -> list[str]:
    """Prompts about other subjects, less those that an edit of that subject settles."""
    gate, names = SubjectGate(), relation_names()
    settled = defaultdict[tuple[str, ...], set[str]](set)
    for e in edits:
        wording = scope_text(e)
        settled[gate.add(e.subject or "")] |= {
            relation
            for name, group in texts.completions.items()
            if wording in group.wordings
            for relation in overlapping(name)
        }
    found = []
    for record in known:
        id = record["requested_rewrite"]["relation_id"]
        for text in record["neighborhood_prompts"][:NEIGHBOURS]:
            named = [
                m.subject
                for m in gate.find(text)
                if m.coverage == 1 and not is_longer_name(text, m.spans)
            ]
            if not any(names.get(id, id) in settled[subject] for subject in named):
                found.append(text)
    return found


def other_relations(known: Sequence[dict[str, Any]], data: Path) -> list[str]:
    """Prompts that name an edited subject and ask for a relation that its edit does not settle."""
    names, rng = relation_names(), random.Random(0)
    templates = [(names.get(id, id), text) for id, text in [*pararel(data), *lre(data)]]
    found = []
    while len(found) < QUESTIONS:
        rewrite = rng.choice(known)["requested_rewrite"]
        relation, template = rng.choice(templates)
        settled = names.get(rewrite["relation_id"], rewrite["relation_id"])
        if relation not in overlapping(settled):
            found.append(template.replace("{}", rewrite["subject"]))
    return found


def pararel(data: Path) -> Iterator[tuple[str, str]]:
    """(relation, template)."""
    for path in sorted(data.glob("pararel/graphs_json/*.jsonl")):
        for record in lines(path):
            match = re.match(r"(.*\[X\].*)\[Y\](.{0,11})$", record["pattern"])
            if match:
                yield path.stem, match.group(1).replace("[X]", "{}").strip()


def lre(data: Path) -> Iterator[tuple[str, str]]:
    """(relation, template)."""
    for path in sorted(data.glob("lre_relations/*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for template in record["prompt_templates"] + record.get("prompt_templates_zs", []):
            yield record["name"], template


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSONL file."""
    yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*map(Path, given[:1]), *([tuple(map(int, given[1:]))] if given[1:] else []))
