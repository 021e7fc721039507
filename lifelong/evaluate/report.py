"""What a run leaves in its folder, for anybody to read: results.json, report.md, two pictures."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lifelong.evaluate.plots import LOOKS, draw, rate

Entry = Mapping[str, Any]

HEADLINES = ("accuracy", "accuracy_em", "generality", "locality")
FURTHER = {
    "accuracy_subject_aside": "accuracy, an old answer within the subject's name set aside",
    "locality.near": "locality: same relation, another subject",
    "locality.far": "locality: something unrelated",
    "locality.same_subject": "locality: same subject, another relation",
    "locality.first_token": "locality, only the reply's first token compared",
    "locality.token_ids": "locality, every token compared",
    "loc_disagreement": "1 - locality, as the survey counts it (Eq. 6): 0 is best",
    "loc_disagreement_micro": "... over the union of all probes (Eq. 7)",
    "generality_micro": "generality over the union of all paraphrases (Eq. 9)",
    "generality_em": "generality, the reply is nothing but the answer",
    "prefixed": "the question behind an unrelated sentence: right",
    "yes_no": "a question that proposes an answer: yes or no, and the right one said",
    "part": "a request of which the fact is one part: answer said",
    "generation_prompts": "prompts that only presuppose the fact: answer said",
    "negation_failures": "the statement denied (... is not): answer said all the same",
    "residual": "the old answer is still said to the question",
    "reversal": "asked from the object to the subject: right",
    "portability": "questions that follow from the edit: right",
    "multihop": "questions of several hops: right in any wording",
    "neighbourhood": "forward: P(true) > P(new) on neighbours",
    "p_new_over_old": "forward: P(new) > P(old)",
    "tf_match": "teacher-forced token match (not accuracy)",
    "bare_target": "chat replies that are nothing but the answer",
    "frame_share": "right replies in one of the five commonest sentences",
    "reply_perplexity_ratio": "perplexity of the reply's other words, over the base's replies",
    "gate.hits": "in scope: the edit shaped the reply",
    "gate.false_fires": "out of scope: some edit shaped the reply",
    "truncated": "replies cut at the limit",
    "scalability": "accuracy made alone, less after all (Eq. 11)",
    "scalability_rel": "the same as a part of the former (Eq. 12)",
}
RATIOS = frozenset({"reply_perplexity_ratio"})  # all others are shares
WORDS = """\
- **accuracy** (Eq. 3): of the edits made so far, the share whose own question is now answered
  rightly: the reply says the answer and not the old one. *exactly*: it says nothing else.
- **generality** (Eq. 8): the same for the question in other words, averaged edit by edit.
- **locality**: other questions that get just the reply that the untouched model gives. The survey
  counts the opposite, disagreement (Eq. 6).
- Every figure is taken after *all* edits so far, by free generation, not right after each edit.
- In brackets: 95 % bootstrap intervals, subjects resampled. A dash: not defined, or not measured.
- An edit whose fact a later one states anew is superseded and no longer counted.
"""


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Leave results, report and pictures in `folder`."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text, encoding="utf-8")
    run, entries = found["run"], found["results"]
    pictures = draw(folder, entries, f"{run['name']}, {run['method']}")
    lines = "\n".join(_report(run, entries, pictures))
    (folder / "report.md").write_text(lines, encoding="utf-8")


def summary(entries: Iterable[Entry]) -> Iterator[list[str]]:
    """A line for every method and checkpoint: the headline figures."""
    for entry in entries:
        taken = entry["seconds_per_edit"]
        yield [
            _name(entry["method"]),
            f"{entry['edits']:,}",
            *(_shown(rate(entry, name)) for name in HEADLINES),
            "-" if taken is None else f"{1000 * taken['median']:.0f} ms",
        ]


COLUMNS = ("method", "edits", "accuracy", "exactly", "generality", "locality", "an edit takes")


def _report(run: Entry, entries: Sequence[Entry], pictures: Sequence[str]) -> Iterator[str]:
    mine = [entry for entry in entries if entry["method"] == run["method"]]
    last = mine[-1]
    yield f"# How well does {run['name']} keep {last['edits']:,} corrections?\n"
    yield (
        f"The model was corrected {last['edits']:,} times by the method `{run['method']}`, "
        f"{_at_a_time(run['batch'])}, with the records of `{Path(run['file']).name}` "
        f"(order: {run['order']}), and asked again (protocol: {run['protocol']}).\n"
    )
    yield WORDS
    yield from _table(COLUMNS, summary(entries))
    for picture in pictures:
        yield f"![{picture}]({picture})\n"
    yield from _ages(last)
    yield "## All figures, at the end\n"
    ends = [entry for entry in entries if entry["edits"] == last["edits"]]
    rows = [
        [what, *(_shown(_at(entry, key), share=key not in RATIOS) for entry in ends)]
        for key, what in FURTHER.items()
        if any(_at(entry, key) for entry in ends)
    ]
    yield from _table(("figure", *(_name(entry["method"]) for entry in ends)), rows)
    yield from _composed(run["composed"])
    yield from _costs(run, last)
    yield "## What was read, and what was left out\n"
    yield from (f"- {line}" for line in run["data"]["account"])
    yield f"- superseded by a later edit: {last['superseded']:,}; refused: {last['refused']:,}\n"
    yield (
        "Every question, reply and cost is in `raw.db` (SQLite), every figure in `results.json`. "
        f"Seed {run['seed']}, model {run['model'][:12]}, code {run['code'][:12]}."
    )


def _ages(last: Entry) -> Iterator[str]:
    yield "## Are old corrections kept?\n"
    kept = last["retainability"]
    if kept:
        yield (
            f"Accuracy went from {kept['first']:.1%} with {kept['from']:,} of the edits to "
            f"{kept['now']:.1%} with {last['edits']:,}: {kept['lost']:.1%} lost. "
            f"(Retainability, Eq. 10: {kept['value']:.2g} an edit. It fades as edits grow in "
            "number, so it is never shown alone.)\n"
        )
    if not last["age_deciles"]:
        yield "There are too few edits to tell old from new ones.\n"
        return
    rows = (
        [f"{age['decile']}", _shown(age["accuracy"]), _shown(age["generality"])]
        for age in last["age_deciles"]
    )
    yield from _table(("tenth, 1 = oldest", "accuracy", "generality"), rows)


COMPOSED = {
    "multihop": "all, the model alone for hops that are not edited",
    "multihop_all_edited": "... those whose every hop is edited",
    "multihop_partly_edited": "... the others",
    "multihop_with_facts": "all, hops that are not edited given as facts",
    "hop_wise": "all, led where every hop leads",
    "hop_wise_with_facts": "... with the facts",
}


def composed(found: Entry) -> tuple[list[str], list[list[str]]]:
    """Columns and lines of the table of composed questions."""
    tables = found["tables"]
    groups = list(tables["multihop"])
    lines = [
        [what, *(_share(tables[name].get(group)) for group in groups)]
        for name, what in COMPOSED.items()
    ]
    return ["cases by hops", *groups], lines


def _composed(found: Entry | None) -> Iterator[str]:
    if not found:
        return
    yield "## What follows from several edits\n"
    yield (
        "Composed questions, right if any wording gets the answer, by the hops they take; "
        f"{found['facts']:,} facts.\n"
    )
    yield from _table(*composed(found))


def _share(found: Entry | None) -> str:
    if not found or not found["of"]:
        return "-"
    return f"{found['right'] / found['of']:.1%} of {found['of']:,}"


def _costs(run: Entry, last: Entry) -> Iterator[str]:
    edit, answer, undo = last["seconds_per_edit"], last["seconds_per_answer"], run["undo"]
    yield "## Costs and proofs\n"
    if edit:
        yield f"- an edit takes {edit['median']:.3f} s (median), {edit['p95']:.3f} s (p95)"
    yield f"- a reply, in batches, takes {answer['median']:.2f} s (median)"
    for what, name in (("the first token", "prefill_ms"), ("each further token", "token_ms")):
        if pace := last[name]:
            yield (
                f"- where no edit fires, {what} takes {pace['value']:.1f} ms, the bare model's "
                f"{pace['base']:.1f} ms (medians of {pace['n']} pairs)"
            )
    if run["restart_seconds"] is not None:
        yield f"- opening the store again takes {run['restart_seconds']:.2f} s"
    yield (
        f"- peak memory: {last['peak_rss_mb']:,.0f} MB, "
        f"{last['peak_rss_over_base_mb']:,.0f} MB more than before the first edit"
    )
    yield f"- an edit takes {last['bytes_per_edit']:,.0f} bytes on disk"
    if last["perplexity_ratio"] is not None:
        yield f"- perplexity of held-out text, over the base's: {last['perplexity_ratio']:.4f}"
    proof = last["proof"]
    yield (
        f"- probes that no edit touches, asked of both models in equal batches: "
        f"{proof['equal']} of {proof['n']} token for token the same"
    )
    half, everything = undo["half"], undo["all"]
    yield (
        f"- a random half undone: {half['equal']} of {half['n']} replies are those of a fresh "
        f"model with the other half; all undone: {everything['equal']} of {everything['n']} logits "
        f"bitwise the base's, weights {'' if undo['weights'] else 'NOT '}the same"
    )
    spent = ", ".join(
        f"{name} {taken['wall']:,.0f} s ({taken['cpu']:,.0f} s of CPU)"
        for name, taken in run["seconds"].items()
        if taken["wall"] >= 1
    )
    yield f"- where the time went: {spent}\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _at(entry: Entry, key: str) -> Entry | None:
    group, _, name = key.rpartition(".")
    found: Entry | None = (entry[group] if group else entry)[name]
    return found


def _shown(figure: Entry | None, *, share: bool = True) -> str:
    if figure is None:
        return "-"
    if not share:
        return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
    return f"{figure['value']:.1%} [{figure['low']:.0%}, {figure['high']:.0%}] of {figure['n']:,}"


def _name(method: str) -> str:
    return LOOKS[method][2] if method in LOOKS else method


def _at_a_time(batch: int) -> str:
    return "one at a time" if batch == 1 else f"{batch} at a time"
