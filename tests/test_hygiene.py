"""Hygiene: each locality probe where it belongs among all edits."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lifelong.evaluate.datasets import load
from lifelong.evaluate.hygiene import Clean, clean
from lifelong.evaluate.records import Case, Probe, ProbeKind
from store import Edit

DATA = Path(__file__).parents[2] / "shared" / "data"


def case(
    subject: str | None,
    prompt: str,
    *probes: Probe,
    relation: str | None = None,
    target: str = "Oslo",
    old: Sequence[str] = ("Rome",),
) -> Case:
    edit = Edit(prompt, target, subject, relation, old[0] if old else None)
    return Case(1, (edit,), probes, ((target, f"{target} city"),), (tuple(old),))


def probe(kind: ProbeKind, prompt: str, *answers: str) -> Probe:
    return Probe(kind, prompt, answers)


def counted(found: Clean) -> tuple[int, int, int, int]:
    return found.moved, found.own, found.entailed, found.retagged


NEAR = probe("near", "The seat of Acme is", "Rome")


def test_a_probe_of_another_edits_subject_and_relation_becomes_its_paraphrase() -> None:
    zeta = case("Zeta", "Zeta is based in", NEAR, relation="seat")
    acme = case("Acme", "Acme is based in", relation="Seat", target="Bonn")
    found = clean([zeta, acme])
    assert counted(found) == (1, 0, 0, 0)
    assert found.cases[0].probes == ()
    assert found.cases[1].probes == (
        Probe("paraphrase", "The seat of Acme is", ("Bonn", "Bonn city")),
    )


def test_it_goes_to_the_last_edit_of_that_fact_and_only_once() -> None:
    askers = [case(name, f"{name} is in", NEAR, relation="seat") for name in ("Zeta", "Eta")]
    first = case("Acme", "Acme is in", relation="seat", target="Bonn")
    last = case("Acme", "Acme stands in", relation="seat", target="Kiel")
    found = clean([*askers, first, last])
    assert counted(found) == (2, 0, 0, 0)
    assert [probe.answers[0] for case in found.cases for probe in case.probes] == ["Kiel"]


def test_it_goes_to_the_right_edit_of_a_case() -> None:
    acme = Edit("Acme is in", "Bonn", "Acme", "seat")
    kim = Edit("Kim is a", "poet", "Kim", "job")
    both = Case(2, (kim, acme), (), (("poet",), ("Bonn",)), ((), ()))
    found = clean([case("Zeta", "Zeta is in", NEAR, relation="seat"), both])
    assert found.cases[1].probes == (Probe("paraphrase", NEAR.prompt, ("Bonn",), 1),)


def test_an_edits_own_prompt_is_no_locality_probe() -> None:
    zeta = case("Zeta", "Zeta is in", probe("near", "acme is in", "Rome"))
    assert counted(clean([zeta, case("Acme", "Acme is in")])) == (0, 1, 0, 0)


def test_a_probe_that_asks_for_the_old_answer_of_its_subject_is_left_out() -> None:
    made = probe("same_subject", "The company that made Acme is", "Volvo", "the rome.")
    found = clean([case("Acme", "The maker of Acme is", made)])
    assert counted(found) == (0, 0, 1, 0)
    assert found.cases[0].probes == ()


def test_the_answer_is_compared_with_the_subjects_own_old_answers_only() -> None:
    asked = probe("same_subject", "The founder of Acme is", "Rome")
    acme, zeta = case("Acme", "The maker of Acme is", asked, old=["Bonn"]), case("Zeta", "Zeta in")
    assert clean([acme, zeta]).cases == (acme, zeta)


def test_a_same_subject_probe_is_its_own_edits_even_where_it_is_not_named() -> None:
    asked = probe("same_subject", "Who made it?", "Rome")
    assert counted(clean([case("Acme", "The maker of Acme is", asked)])) == (0, 0, 1, 0)
    assert counted(clean([case(None, "The maker of Acme is", asked)])) == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", ["near", "far"])
def test_another_relation_of_an_edited_subject_is_tagged(kind: ProbeKind) -> None:
    asked = probe(kind, "The founder of Acme was", "Kim")
    zeta = case("Zeta", "Zeta is in", asked, relation="seat")
    for subject in ("Acme", None):  # None: guessed from the prompt
        found = clean([zeta, case(subject, "The colour of Acme is", relation="colour")])
        assert counted(found) == (0, 0, 0, 1)
        assert found.cases[0].probes == (probe("same_subject", asked.prompt, "Kim"),)


@pytest.mark.parametrize(
    "prompt",
    [
        "Acme Fantasy X-2 is in",  # a longer name
        "The Acmes of New Acmeville are in",
        "Acme's rival Kim Bo Lee lives in",  # about somebody else
        "Nobody is in",
    ],
)
def test_in_doubt_a_probe_stays(prompt: str) -> None:
    zeta = case("Zeta", "Zeta is in", probe("near", prompt, "Rome"), relation="seat")
    acme = case("Acme", "Acme is based in", relation="seat")
    assert clean([zeta, acme]).cases == (zeta, acme)


@pytest.mark.parametrize("name", ["Microsoft Office", "Microsoft Office 2007"])
def test_a_loose_mention_moves_nothing(name: str) -> None:
    asked = probe("near", f"{name} was made by", "Rome")
    zeta = case("Zeta", "Zeta is by", asked, relation="maker")
    office = case("Microsoft Office XP", "Microsoft Office XP is by", relation="maker")
    assert clean([zeta, office]).cases == (zeta, office)


def test_only_a_near_probe_has_the_relation_of_its_edit() -> None:
    asked = probe("same_subject", "The founder of Acme is", "Kim")
    acme = case("Acme", "Acme is in", asked, relation="seat")
    assert clean([acme]).cases == (acme,)


def test_other_probes_are_left_alone() -> None:
    kinds: list[ProbeKind] = ["paraphrase", "generation", "alias", "multihop", "reversed"]
    acme = case("Acme", "Acme is in", *(probe(kind, "Acme is in", "Rome") for kind in kinds))
    assert clean([acme]) == Clean((acme,), 0, 0, 0, 0)
    assert len(clean([acme]).lines()) == 4


def test_many_cases_take_seconds() -> None:
    made = [
        case(
            f"Subject{i} Corp",
            f"Subject{i} Corp is in",
            *(probe("near", f"The seat of Subject{7 * i + j} Corp is", "Rome") for j in range(10)),
            relation=f"relation {i % 30}",
        )
        for i in range(5_000)
    ]
    start = time.perf_counter()
    found = clean(made)
    assert time.perf_counter() - start < 60  # a loop over all pairs would take hours
    assert found.moved > 0
    assert found.entailed > 0
    assert sum(len(case.probes) for case in found.cases) == 50_000 - found.entailed


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is missing")
@pytest.mark.parametrize(
    ("name", "counts"),
    [  # moved, own, entailed, retagged
        ("counterfact/full-fields-dev.jsonl", (183, 30, 8, 25)),
        ("counterfact/edit-dev.jsonl", (0, 55, 127, 148)),
        ("zsre/knowedit-dev.jsonl", (0, 0, 184, 0)),  # 15 % of its locality probes
        ("zsre/mend-train-1k.jsonl", (0, 0, 0, 2)),
    ],
)
def test_no_probe_of_a_development_file_is_lost(
    name: str, counts: tuple[int, int, int, int]
) -> None:
    data = load(DATA / name)
    found = clean(data.cases)
    assert counted(found) == counts
    left = sum(len(case.probes) for case in found.cases)
    assert data.probes.total() - found.own - found.entailed - left in range(found.moved + 1)
