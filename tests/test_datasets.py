"""Datasets: every format as a tiny record, every bad file, every development file."""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lifelong.errors import (
    BadDataset,
    BadRecord,
    EmptyDataset,
    LifelongError,
    MixedFormats,
    UnknownFormat,
)
from lifelong.evaluate.datasets import Dataset, load
from lifelong.evaluate.formats import FORMATS
from lifelong.evaluate.records import Case, Hop, Probe

Record = dict[str, Any]
Load = Callable[..., Dataset]
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def given(tmp_path: Path) -> Load:
    """Load these records, or this text, from a file."""

    def load_(records: Sequence[Record] | str, **options: Any) -> Dataset:
        path = tmp_path / "some.jsonl"
        text = records if isinstance(records, str) else "\n".join(map(json.dumps, records))
        path.write_text(text, encoding="utf-8")
        return load(path, **options)

    return load_


def named(label: str) -> Record:
    return {"id": "Q1", "str": label, "label": label}


def kinds(case: Case) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(probe.kind, probe.prompt, probe.answers) for probe in case.probes]


OWN: Record = {"prompt": "Who runs Acme?", "target": "Ada", "subject": "Acme", "old": "Bob"}
EASYEDIT: Record = {
    "case_id": 7,
    "prompt": "Acme is based in",
    "target_new": "Oslo",
    "subject": "Acme",
    "ground_truth": "Rome",
    "rephrase_prompt": "Acme's staff like",
    "locality_prompt": "Zeta is based in",
    "locality_ground_truth": "Rome",
}
FULL: Record = {
    "requested_rewrite": {
        "prompt": "{} is based in",
        "relation_id": "P159",
        "target_new": named("Oslo"),
        "target_true": named("Rome"),
        "subject": "Acme",
    },
    "paraphrase_prompts": ["Nobody came. Acme's seat is in"],
    "neighborhood_prompts": ["Zeta is based in", "Eta is based in"],
    "attribute_prompts": ["Kappa is based in"],
    "generation_prompts": ["Acme's staff like", "Acme's staff like"],
}
ZSRE: Record = {
    "subject": "Acme",
    "src": "Where is Acme?",
    "pred": "Rome",
    "rephrase": "In which city is Acme?",
    "alt": "Oslo",
    "answers": ["Rome", "Roma"],
    "loc": "nq question: who wrote it",
    "loc_ans": "Nobody",
}
HOP: Record = {"Recalled Relation": "r", "New Question": "Whose seat?", "New Answer": "Norway's"}
KNOWEDIT: Record = {
    "subject": "Ada",
    "prompt": "The mother of Ada is",
    "target_new": "Eve",
    "ground_truth": [["Ann", "Annie"], ["Anna"]],
    "rephrase_prompt": "Ada's mother is",
    "locality": {"Relation_Specificity": [{"prompt": "Ada is a", "ground_truth": [["poet"], []]}]},
    "portability": {
        "Subject_Aliasing": [{"prompt": "The mother of Lady A is", "ground_truth": "Eve"}],
        "Reasoning": [{"prompt": "The home of Ada's mother is", "ground_truth": ["Rome"]}],
        "Logical_Generalization": [
            {"prompt": "A child of Eve is", "ground_truth": "ada"},
            {"prompt": "A sister of Ada is", "ground_truth": "Eva"},
        ],
    },
}


def step(subject: str, answer: str, alias: Sequence[str] = ()) -> Record:
    return {
        "question": f"Where is {subject}?",
        "cloze": f"{subject} is in",
        "answer": answer,
        "answer_alias": list(alias),
    }


def rewrite(subject: str, new: str, true: str) -> Record:
    return {
        "prompt": "{} is in",
        "relation_id": "P131",
        "target_new": named(new),
        "target_true": named(true),
        "subject": subject,
        "question": f"Where is {subject}?",
    }


MQUAKE: Record = {
    "requested_rewrite": [rewrite("Acme", "Oslo", "Rome"), rewrite("Oslo", "Mali", "Norway")],
    "questions": ["On which continent is Acme?", "Acme's continent?"],
    "answer": "Europe",
    "new_answer": "Africa",
    "new_answer_alias": ["the African continent"],
    "single_hops": [step("Acme", "Rome", ["Roma", "Christiania"]), step("Rome", "Italy")],
    "new_single_hops": [
        step("Acme", "Oslo", ["Christiania"]),
        step("Oslo", "Mali"),
        step("Mali", "Africa"),
    ],
}


def overwrite(new: str, true: str) -> Record:
    relation = {"id": "P26", "prompt": "The spouse of {} is", "query": "Whom did {} marry?"}
    return {
        "relation": relation,
        "subject": named("Ada"),
        "object": named(true),
        "new_object": named(new),
    }


CONFLICT: Record = {
    "triples": [],
    "rule": "P26>P26",
    "type": "coverage",
    "edits": [overwrite("Bob", "Tom"), overwrite("Kim", "Bob")],
}
TEMPLAMA: Record = {
    "query": "Ada plays for _X_.",
    "answer": [{"name": "FC Oslo"}, {"name": "FC Rome"}],
    "date": "2010",
    "most_recent_answer": {"name": "FC Bonn"},
    "relation": "P54",
}
FEVER: Record = {"claim": "It snows in Oslo.", "evidence": "Oslo has snow.", "label": "SUPPORTS"}
EDITOR: Record = {
    "input": "Where is Acme?",
    "prediction": "Rome",
    "alternatives": ["Oslo", "Bonn"],
    "filtered_rephrases": ["In which city is Acme?"],
    "output": [{"answer": "Rome"}, {"answer": "Roma"}],
}
QAEDIT: Record = {
    "prompt": "Where is Acme?",
    "target": "Oslo",
    "subject": "Acme",
    "rephrase": "In which city is Acme?",
    "locality": [{"loc": "who wrote it", "loc_ans": "Nobody"}],
}
UNKE: Record = {
    "question": "What is Acme?",
    "answer": "A firm in Oslo that makes anvils.",
    "para_question": "Describe Acme.",
    "sub_question": ["Where is Acme?", "What does Acme make?", "And what is made of it?"],
    "sub_answer": ["Oslo", "anvils", "anvils"],
}
WIKIBIO: Record = {
    "text": "A passage about ada.",
    "labels": "Ada was born in Oslo.",
    "concept": "ada",
    "locality": {"Relation_Specificity": [{"prompt": "ada's job is", "ground_truth": ["poet"]}]},
}
RECORDS: dict[str, Record] = {
    "mquake": MQUAKE,
    "counterfact": FULL,
    "counterfact-easyedit": EASYEDIT,
    "zsre": ZSRE,
    "knowedit": KNOWEDIT,
    "wikibio": WIKIBIO,
    "conflict": CONFLICT,
    "templama": TEMPLAMA,
    "fever": FEVER,
    "fever-sentence": {"claim": "c", "evidence_sentence": "It snows.", "label": "REFUTES"},
    "knowledge-editor": EDITOR,
    "qaedit": QAEDIT,
    "unke": UNKE,
    "own": OWN,
}


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_recognised_by_its_fields(given: Load, name: str) -> None:
    data = given([RECORDS[name]])
    assert (data.format, data.read, len(data.cases)) == (name, 1, 1)
    assert given([RECORDS[name]], format=name) == data


@pytest.mark.parametrize("name", FORMATS)
def test_an_edit_carries_no_probe_and_every_case_is_whole(given: Load, name: str) -> None:
    (case,) = given([RECORDS[name]]).cases
    assert len(case.edits) == len(case.accepted) == len(case.old)
    for edit, accepted, old in zip(case.edits, case.accepted, case.old, strict=True):
        assert not edit.paraphrases + edit.locality + edit.portability
        assert accepted[0] == edit.target
        assert edit.old == (old[0] if old else None)
    assert all(probe.edit < len(case.edits) for probe in case.probes)


@pytest.mark.parametrize("name", FORMATS)
def test_every_required_field_is_missed(given: Load, name: str) -> None:
    for field in sorted(FORMATS[name].fields):
        short = {key: value for key, value in RECORDS[name].items() if key != field}
        with pytest.raises((BadRecord, MixedFormats), match=r"some\.jsonl:2: "):
            given([RECORDS[name], short])


def test_counterfact(given: Load) -> None:
    (case,) = given([FULL]).cases
    (edit,) = case.edits
    assert (edit.prompt, edit.target, edit.subject) == ("Acme is based in", "Oslo", "Acme")
    assert (edit.relation, case.old) == ("P159", (("Rome",),))
    assert kinds(case) == [
        ("paraphrase", "Nobody came. Acme's seat is in", ("Oslo",)),
        ("near", "Zeta is based in", ("Rome",)),
        ("near", "Eta is based in", ("Rome",)),
    ]
    assert kinds(given([FULL], all_probes=True).cases[0])[3:] == [
        ("near", "Kappa is based in", ("Oslo",)),
        ("generation", "Acme's staff like", ("Oslo",)),
    ]


def test_counterfact_of_easyedit_has_a_column_for_its_rephrase(given: Load) -> None:
    (case,) = given([EASYEDIT]).cases
    assert case.edits[0].relation is None
    assert kinds(case) == [
        ("generation", "Acme's staff like", ("Oslo",)),
        ("near", "Zeta is based in", ("Rome",)),
    ]


def test_zsre_with_the_counterfactual_target(given: Load) -> None:
    data = given([ZSRE | {"portability": HOP}])
    (case,) = data.cases
    assert (case.edits[0].target, case.old) == ("Oslo", (("Rome", "Roma"),))
    assert kinds(case) == [
        ("paraphrase", "In which city is Acme?", ("Oslo",)),
        ("far", "who wrote it", ("Nobody",)),
        ("multihop", "Whose seat?", ("Norway's",)),
    ]
    assert "target = alt" in data.lines()[0]


def test_zsre_with_the_right_target(given: Load) -> None:
    data = given([ZSRE | {"portability": HOP}], target="answers")
    (case,) = data.cases
    assert (case.edits[0].target, case.accepted, case.old) == ("Rome", (("Rome", "Roma"),), ((),))
    assert [probe.kind for probe in case.probes] == ["paraphrase", "far"]  # the hop is alt's
    assert "target = answers" in data.lines()[0]


def test_knowedit(given: Load) -> None:
    (case,) = given([KNOWEDIT]).cases
    assert case.old == (("Ann", "Annie", "Anna"),)
    assert kinds(case) == [
        ("paraphrase", "Ada's mother is", ("Eve",)),
        ("same_subject", "Ada is a", ("poet",)),
        ("alias", "The mother of Lady A is", ("Eve",)),
        ("multihop", "The home of Ada's mother is", ("Rome",)),
        ("reversed", "A child of Eve is", ("ada",)),
        ("multihop", "A sister of Ada is", ("Eva",)),
    ]
    assert [probe.hops for probe in case.probes] == [1, 1, 1, 2, 1, 2]


def test_knowedit_without_what_it_may_lack(given: Load) -> None:
    bare = {key: KNOWEDIT[key] for key in ("subject", "prompt", "target_new")} | {"locality": {}}
    (case,) = given([bare]).cases
    assert (case.probes, case.old, case.edits[0].old) == ((), ((),), None)
    assert given([bare | {"ground_truth": "Ann"}]).cases[0].old == (("Ann",),)


def test_mquake(given: Load) -> None:
    (case,) = given([MQUAKE]).cases
    assert [edit.prompt for edit in case.edits] == ["Acme is in", "Oslo is in"]
    assert case.accepted == (("Oslo", "Christiania"), ("Mali",))
    assert case.old == (("Rome", "Roma"), ("Norway",))  # less the name that both cities bear
    africa = ("Africa", "the African continent")
    assert case.probes == (
        Probe("paraphrase", "Where is Acme?", ("Oslo", "Christiania"), 0),
        Probe("paraphrase", "Where is Oslo?", ("Mali",), 1),
        Probe("multihop", "On which continent is Acme?", africa, 0, 3),
        Probe("multihop", "Acme's continent?", africa, 0, 3),
    )
    assert case.chain[0] == Hop("Where is Acme?", "Acme is in", ("Oslo", "Christiania"), True)
    assert [hop.edited for hop in case.chain] == [True, True, False]
    assert not case.all_edited


def test_mquake_whose_every_hop_is_edited(given: Load) -> None:
    record = MQUAKE | {"new_single_hops": MQUAKE["new_single_hops"][:2]}
    assert given([record]).cases[0].all_edited
    assert not given([OWN]).cases[0].all_edited


def test_conflicting_edits_stay_in_their_order(given: Load) -> None:
    data = given([CONFLICT])
    (case,) = data.cases
    assert [(edit.target, edit.old) for edit in case.edits] == [("Bob", "Tom"), ("Kim", "Bob")]
    assert kinds(case)[1] == ("paraphrase", "Whom did Ada marry?", ("Kim",))
    assert case.probes[1].edit == 1
    assert case.rule == "coverage P26>P26"
    assert [(repeat.line, repeat.earlier, repeat.conflicts) for repeat in data.repeats] == [
        (1, 1, True)
    ]
    with pytest.raises(EmptyDataset):
        given([CONFLICT | {"edits": [overwrite("Bob", "Tom"), overwrite("Kim", "Kim")]}])


def test_templama_year_by_year(given: Load) -> None:
    later = [
        TEMPLAMA | {"date": str(2011 + year), "answer": [{"name": name}]}
        for year, name in enumerate(["FC Oslo", "FC Bonn", "FC Oslo"])
    ]
    data = given([TEMPLAMA, *later])
    assert [case.edits[0].target for case in data.cases] == ["FC Oslo", "FC Bonn", "FC Oslo"]
    assert {case.edits[0].prompt for case in data.cases} == {"Ada plays for"}
    assert data.cases[0].accepted == (("FC Oslo", "FC Rome"),)
    assert [dropped.line for dropped in data.dropped] == [2]
    assert [repeat.earlier for repeat in data.repeats] == [1, 3]
    asked = given([TEMPLAMA | {"query": "_X_ is the chair of Acme."}])
    assert asked.cases[0].edits[0].prompt == "Who is the chair of Acme?"


def test_evidence_is_an_edit_and_its_claims_are_in_scope(given: Load) -> None:
    refuted = FEVER | {"claim": "Oslo is dry.", "label": "REFUTES"}
    open_ = FEVER | {"claim": "Oslo is big.", "label": "NOT ENOUGH INFO"}
    data = given([FEVER, refuted, open_, FEVER])
    assert {(case.edits[0].prompt, case.edits[0].target) for case in data.cases} == {
        ("Oslo has snow.", "SUPPORTS")
    }
    assert [kinds(case)[0] for case in data.cases] == [
        ("paraphrase", "It snows in Oslo.", ("SUPPORTS",)),
        ("paraphrase", "Oslo is dry.", ("REFUTES",)),
        ("near", "Oslo is big.", ()),
    ]
    assert [dropped.line for dropped in data.dropped] == [4]
    assert [repeat.conflicts for repeat in data.repeats] == [False, False]


def test_the_first_alternative_is_the_target(given: Load) -> None:
    (case,) = given([EDITOR]).cases
    assert (case.edits[0].target, case.old) == ("Oslo", (("Rome", "Roma"),))
    assert kinds(case) == [("paraphrase", "In which city is Acme?", ("Oslo",))]


def test_qaedit_unke_and_wikibio(given: Load) -> None:
    assert kinds(given([QAEDIT]).cases[0]) == [
        ("paraphrase", "In which city is Acme?", ("Oslo",)),
        ("far", "who wrote it", ("Nobody",)),
    ]
    assert kinds(given([UNKE]).cases[0]) == [
        ("paraphrase", "Describe Acme.", (UNKE["answer"],)),
        ("multihop", "Where is Acme?", ("Oslo",)),
        ("multihop", "What does Acme make?", ("anvils",)),
        ("multihop", "And what is made of it?", ("anvils",)),
    ]
    assert kinds(given([WIKIBIO]).cases[0]) == [("same_subject", "ada's job is", ("poet",))]


def test_our_own_records(given: Load) -> None:
    probes = {
        "paraphrases": ["Acme's head?"],
        "locality": ["Who runs Zeta?"],
        "portability": [
            {"prompt": "Where was Acme's head born?", "target": "Oslo"},
            {"prompt": "What does Ada run?", "target": "Acme"},
        ],
    }
    (case,) = given([OWN | probes]).cases
    assert (case.old, case.accepted) == ((("Bob",),), (("Ada",),))
    assert kinds(case) == [
        ("paraphrase", "Acme's head?", ("Ada",)),
        ("far", "Who runs Zeta?", ()),
        ("multihop", "Where was Acme's head born?", ("Oslo",)),
        ("reversed", "What does Ada run?", ("Acme",)),
    ]


# --- what is left out ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (OWN | {"target": "bob."}, "the target is a right answer already"),
        (ZSRE | {"alt": "Roma"}, "the target is a right answer already"),
        (ZSRE | {"alt": ""}, "a prompt or target without words"),
        (OWN | {"prompt": "?!"}, "a prompt or target without words"),
        (OWN, "the prompt has this target already"),
    ],
)
def test_a_record_that_asks_for_no_change_is_told_and_left_out(
    given: Load, record: Record, why: str
) -> None:
    data = given([OWN if "target" in record else ZSRE, record])
    assert [(dropped.line, dropped.why) for dropped in data.dropped] == [(2, why)]
    assert (data.read, data.edits) == (2, 1)
    assert f"dropped, {why}: 1 (line 2)" in data.lines()


def test_another_target_for_the_same_fact_is_kept_and_told(given: Load) -> None:
    other = OWN | {"target": "Cy"}
    reworded = {"prompt": "The head of Acme?", "target": "Eve", "relation": "head"}
    again = [reworded | {"subject": "Acme"}, reworded | {"subject": "the ACME", "prompt": "Head?"}]
    data = given([OWN, other, *again])
    assert [(r.line, r.earlier, r.conflicts) for r in data.repeats] == [
        (2, 1, True),
        (4, 3, False),
    ]
    assert len(data.cases) == 4
    assert "edits that contradict an earlier one, which they supersede: 1 (line 2)" in data.lines()


def test_an_edit_may_contradict_one_and_repeat_another(given: Load) -> None:
    head = {"subject": "Acme", "relation": "head"}
    by_prompt, by_relation = OWN, {"prompt": "The head?", "target": "Eve"} | head
    data = given([by_prompt, by_relation, OWN | head | {"target": "Eve"}])
    assert [(r.line, r.earlier, r.conflicts) for r in data.repeats] == [(3, 2, True)]


def test_edits_that_records_share_are_kept(given: Load) -> None:
    data = given([MQUAKE, MQUAKE | {"questions": ["Which continent has Acme?"]}, MQUAKE])
    assert (data.read, len(data.cases), data.edits) == (3, 2, 4)
    assert [dropped.line for dropped in data.dropped] == [3]
    assert [repeat.conflicts for repeat in data.repeats] == [False, False]


def test_the_limit_counts_records_that_are_kept(given: Load) -> None:
    records = [OWN, OWN, *(OWN | {"prompt": f"Who runs Acme {i}?"} for i in range(5))]
    data = given(records, limit=3)
    assert (data.read, len(data.cases), [case.line for case in data.cases]) == (4, 3, [1, 3, 4])


def test_the_account_names_the_file_and_its_hash(given: Load, tmp_path: Path) -> None:
    data = given([ZSRE, ZSRE | {"alt": "Rome"}])
    digest = sha256((tmp_path / "some.jsonl").read_bytes()).hexdigest()
    assert data.sha256 == digest
    assert data.lines() == [
        f"some.jsonl: zsre, target = alt, sha256 {digest}",
        "2 records read, 1 kept: 1 edits",
        "probes: far 1, paraphrase 1",
        "dropped, the target is a right answer already: 1 (line 2)",
    ]


# --- bad files ----------------------------------------------------------------------------------


def test_blank_lines_count_as_lines(given: Load) -> None:
    data = given(f"\n\n{json.dumps(OWN)}\r\n  \n")
    assert [case.line for case in data.cases] == [3]


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file(given: Load, text: str) -> None:
    with pytest.raises(EmptyDataset, match="0 records"):
        given(text)


def test_a_file_whose_every_record_is_left_out(given: Load) -> None:
    with pytest.raises(EmptyDataset, match="2 records, and 0 that ask"):
        given([OWN | {"target": "Bob"}] * 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1, 2]", "a list, no record"),
        ("3", "a int, no record"),
    ],
)
def test_a_line_that_is_no_record(given: Load, text: str, told: str) -> None:
    with pytest.raises(BadRecord, match=rf"some\.jsonl:2: {told}"):
        given(f"{json.dumps(OWN)}\n{text}")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(b'{"prompt": "\xff\xfe", "target": "x"}')
    with pytest.raises(BadRecord, match=r"some\.jsonl:1: no JSON"):
        load(path)


def test_an_unknown_format_names_the_nearest(given: Load) -> None:
    short = {key: value for key, value in ZSRE.items() if key != "loc"}
    with pytest.raises(UnknownFormat, match=r"some\.jsonl:1: .*nearest is zsre.*: loc\.") as caught:
        given([short])
    assert caught.value.remedy
    with pytest.raises(UnknownFormat, match=r"\(none\)"):
        given([{}])
    with pytest.raises(UnknownFormat, match="Take one of: mquake"):
        given([OWN], format="squad")


def test_the_formats_of_one_source_may_be_mixed(given: Load) -> None:
    other = EASYEDIT | {"prompt": "Eta is based in", "subject": "Eta"}
    for records in ([FULL, other], [other, FULL]):
        found = [kinds(case)[0][0] for case in given(records).cases]
        assert sorted(found) == ["generation", "paraphrase"]


def test_mixed_formats(given: Load) -> None:
    with pytest.raises(MixedFormats, match=r"some\.jsonl:2: a record of zsre in a file of own"):
        given([OWN, ZSRE])
    with pytest.raises(MixedFormats, match=r"some\.jsonl:1: a record of own in a file of zsre"):
        given([OWN], format="zsre")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (FULL | {"requested_rewrite": "x"}, "'requested_rewrite' is not an object"),
        (FULL | {"requested_rewrite": {}}, "some.jsonl:1 requested_rewrite: .*is missing"),
        (FULL | {"paraphrase_prompts": [1]}, "'paraphrase_prompts' is not a text or a list"),
        (EASYEDIT | {"target_new": None}, "'target_new' is not a text"),
        (KNOWEDIT | {"locality": []}, "'locality' is not an object"),
        (KNOWEDIT | {"locality": {"x": {}}}, "some.jsonl:1 locality: .*'x' is not a list"),
        (KNOWEDIT | {"locality": {"x": [1]}}, r"'x\[0\]' is not an object"),
        (MQUAKE | {"requested_rewrite": []}, "the record has no edits"),
        (ZSRE | {"answers": []}, "no 'answers'"),
        (TEMPLAMA | {"answer": []}, "no 'answer'"),
        (EDITOR | {"alternatives": []}, "no 'alternatives'"),
        (OWN | {"paraphrases": "x"}, "some.jsonl:1: paraphrases is a str"),
        (OWN | {"note": "x"}, "some.jsonl:1: .*unknown field 'note'"),
        (OWN | {"target": 3}, "'target' is not a text"),
        (OWN | {"paraphrases": [3]}, "'paraphrases' is not a text"),
    ],
)
def test_a_field_of_the_wrong_shape(given: Load, record: Record, told: str) -> None:
    with pytest.raises(BadRecord, match=told) as caught:
        given([record])
    assert caught.value.remedy


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(BadDataset, match="cannot be read"):
            load(path)
    assert issubclass(BadDataset, LifelongError)


# --- the development files ----------------------------------------------------------------------

# file: format, records, cases, edits, probes of each kind
FILES: dict[str, tuple[str, int, int, int, dict[str, int]]] = {
    "counterfact/edit-dev.jsonl": (
        "counterfact-easyedit", 5000, 4999, 4999, {"generation": 4999, "near": 4999},
    ),
    "counterfact/train.jsonl": (
        "counterfact-easyedit", 10000, 9997, 9997, {"generation": 9997, "near": 9997},
    ),
    "counterfact/full-fields-dev.jsonl": (
        "counterfact", 700, 700, 700, {"paraphrase": 1400, "near": 6995},
    ),
    "zsre/mend-train-1k.jsonl": ("zsre", 1000, 975, 975, {"paraphrase": 975, "far": 975}),
    "zsre/mend-eval-portability-dev.jsonl": (
        "zsre", 500, 482, 482, {"paraphrase": 482, "far": 482, "multihop": 482},
    ),
    "zsre/knowedit-dev.jsonl": (
        "knowedit", 650, 623, 623,
        {"paraphrase": 623, "same_subject": 1246, "multihop": 373, "alias": 117, "reversed": 133},
    ),
    "knowedit/wiki-counterfact-dev.jsonl": (
        "knowedit", 700, 686, 686,
        {"same_subject": 998, "multihop": 312, "alias": 676, "reversed": 88},
    ),
    "knowedit/wiki-recent-dev.jsonl": (
        "knowedit", 285, 285, 285,
        {"same_subject": 1024, "multihop": 266, "alias": 22, "reversed": 15},
    ),
    "knowedit/wikibio-train.jsonl": ("wikibio", 464, 464, 464, {"same_subject": 928}),
    "mquake/mquake-2002-dev.jsonl": (
        "mquake", 1000, 1000, 2211, {"paraphrase": 2211, "multihop": 3000},
    ),
    "mquake/conflicting-dev.jsonl": (
        "mquake", 300, 300, 365, {"paraphrase": 365, "multihop": 900},
    ),
    "conflicts/reverse-edit-dev.jsonl": ("conflict", 300, 300, 600, {"paraphrase": 600}),
    "conflicts/composite-edit-dev.jsonl": ("conflict", 300, 294, 588, {"paraphrase": 588}),
    "conflicts/coverage-edit-dev.jsonl": ("conflict", 300, 300, 600, {"paraphrase": 600}),
    "fever/symmetric-dev.jsonl": ("fever", 708, 708, 708, {"paraphrase": 708}),
    "temporal/templama-val.jsonl": ("templama", 4654, 1282, 1282, {}),
}  # fmt: skip


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is missing")
@pytest.mark.parametrize("name", FILES)
def test_every_development_file_loads(name: str) -> None:
    data = load(DATA / name)
    found = (data.format, data.read, len(data.cases), data.edits, dict(data.probes))
    assert found == FILES[name]
    assert data.read == len(data.cases) + len(data.dropped)
    assert all(probe.prompt for case in data.cases for probe in case.probes)


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is missing")
@pytest.mark.parametrize("name", ["memprompt/word-tasks.jsonl", "mquake/edit-to-questions.jsonl"])
def test_files_without_edits_are_of_no_format(name: str) -> None:
    with pytest.raises(UnknownFormat):
        load(DATA / name)
