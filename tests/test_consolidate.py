"""From memory into the weights and back: through a gate, all or nothing, to the last bit."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifelong import METHODS, EditableModel
from lifelong.compaction import Compactor, Consolidating
from lifelong.consolidate import Consolidation, Examination, Figures, Gate, Policy, named
from lifelong.errors import BadEdit, BadSetting, SubjectMissing, TooWide, UpdateRejected
from lifelong.view import View
from lifelong.watch import Turns
from store import Audience, Edit
from tests.test_weights import Scribble, bits, same

OPEN = Gate(accuracy=0, generality=0, older=0, locality=0, perplexity=torch.inf)
SUBJECTS = ("Acme", "Globex", "Initech", "Umbrella", "Hooli", "Vandelay")


@pytest.fixture(autouse=True)
def scribble(monkeypatch: pytest.MonkeyPatch) -> Scribble:
    method = Scribble()
    monkeypatch.setitem(METHODS, "scribble", method)
    return method


def teach(model: EditableModel, *subjects: str, **options: Any) -> list[Edit]:
    return [model.edit(f"Who runs {s}?", f"{s} Roe", subject=s, **options) for s in subjects]


def move(model: EditableModel, *ids: int, gate: Gate | None = None) -> Any:
    return model.consolidate(ids or Policy(), method="scribble", gate=gate)


# --- there and back -------------------------------------------------------------------------------


def test_what_is_consolidated_is_answered_by_the_weights_and_still_named(
    model: EditableModel,
) -> None:
    base = bits(model)
    edits = teach(model, "Acme", "Globex")
    assert "Acme Roe" in model.chat("Who runs Acme?", max_new_tokens=20).text
    done = move(model)
    assert done.accepted
    assert done.edits == (1, 2)
    assert not same(bits(model), base)
    (hit,) = model.explain("Who runs Acme?").hits
    assert (hit.id, hit.text) == (edits[0].id, None)
    assert "Acme Roe" not in model.chat("Who runs Acme?", max_new_tokens=20).text  # unconditioned
    assert [e.status for e in model.list()] == ["live", "live"]
    with model.disable_edits():
        assert same(bits(model), base)


def test_released_edits_are_in_memory_as_before(model: EditableModel) -> None:
    base = bits(model)
    teach(model, "Acme", "Globex")
    said = model.chat("Who runs Acme?", max_new_tokens=20).text
    move(model)
    model.release([1, 2])
    assert same(bits(model), base)
    assert model.chat("Who runs Acme?", max_new_tokens=20).text == said
    with pytest.raises(BadEdit, match="not consolidated"):
        model.release([1])


def test_the_past_is_answered_from_where_the_edits_were(model: EditableModel) -> None:
    teach(model, "Acme")
    then = model.epoch
    move(model)
    assert model.at(then).explain("Who runs Acme?").hits[0].text is not None
    assert "Acme Roe" in model.at(then).chat("Who runs Acme?", max_new_tokens=20).text
    assert model.at(model.epoch).explain("Who runs Acme?").hits[0].text is None


def test_an_undo_solves_the_rest_of_the_batch_anew(
    model: EditableModel, make_model: Callable[..., EditableModel]
) -> None:
    teach(model, "Acme", "Globex", "Initech")
    move(model)
    whole = bits(model)
    model.undo(2)
    (stored,) = [s for s in model._session.journal.patches() if s.patch.kind == "delta"]
    assert stored.live_positions == (0, 2)
    for name, factors in stored.patch.factors.items():
        base = model._session.weights._copy(name)
        change = torch.from_numpy(factors.change((0, 2)))
        assert torch.equal(model.state_dict()[name], base.float() + change)
    model.redo(2)
    assert same(bits(model), whole)


def test_a_correction_of_a_consolidated_edit_is_answered_from_memory(model: EditableModel) -> None:
    base = bits(model)
    teach(model, "Acme")
    move(model)
    after = model.edit("Who runs Acme?", "Sam Poe", subject="Acme")
    assert same(bits(model), base)
    assert "Sam Poe" in model.chat("Who runs Acme?", max_new_tokens=20).text
    model.undo(after.id)
    assert not same(bits(model), base)


KINDS = ["edit", "consolidate", "release", "undo", "redo", "reopen"]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9)), min_size=2, max_size=10)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_history_gives_the_weights_of_a_fresh_build(
    steps: list[tuple[str, int]],
    make_model: Callable[..., EditableModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("history") / "edits.db"
    assert follow(steps, lambda: make_model("llama", store=path))


def follow(steps: Sequence[tuple[str, int]], open_: Callable[[], EditableModel]) -> bool:
    """Two edits, then these steps: are the weights those of a fresh build after each of them, and
    the base model's when all is back in memory? (`tests/benchmarks/histories.py` asks, too.)"""
    model = open_()
    base, right = bits(model), True
    for made, (step, n) in enumerate([("edit", 0), ("edit", 0), *steps]):
        inside = model._session.router.in_weights
        alive = [e.id for e in model.list("live")]
        undone = [e.id for e in model.list("retired")]
        memory = [id for id in alive if id not in inside]
        if step == "edit":
            subject = SUBJECTS[made % len(SUBJECTS)]
            model.edit(f"Who runs {subject}?", f"Roe {made}", subject=subject)
        elif step == "consolidate" and memory:
            right &= move(model, *memory[: 1 + n % len(memory)]).accepted
        elif step == "release" and inside:
            model.release(inside[: 1 + n % len(inside)])
        elif step == "undo" and alive:
            model.undo(alive[n % len(alive)])
        elif step == "redo" and undone:
            model.redo(undone[n % len(undone)])
        elif step == "reopen":
            EditableModel.close(model)
            right &= same(bits(model), base)
            model = open_()
        fresh = open_()
        right &= same(bits(fresh), bits(model))
        EditableModel.close(fresh)
    model.release(model._session.router.in_weights)
    right &= same(bits(model), base)
    EditableModel.close(model)
    return right


# --- the gate -------------------------------------------------------------------------------------


def test_outside_the_gate_nothing_has_happened(model: EditableModel) -> None:
    teach(model, "Acme", paraphrases=["Who leads Acme?"], locality=["Who runs Hooli?"])
    base, epoch = bits(model), model.epoch
    shut = Gate(accuracy=1.0, generality=1.0, older=1.0, locality=1.0, perplexity=0.0)
    done = move(model, gate=shut)
    assert not done.accepted
    assert {miss.split()[0] for miss in done.misses} == {
        "accuracy", "generality", "locality", "perplexity",
    }  # fmt: skip
    assert done.measured["older"] is None
    assert same(bits(model), base)
    assert model.epoch == epoch
    assert model.explain("Who runs Acme?").hits[0].text is not None


def test_within_the_gate_the_edits_move_and_are_asked_again_by_the_next(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(model, "Acme")
    assert move(model, gate=OPEN).accepted
    teach(model, "Globex")
    asked: list[tuple[str, ...]] = []
    init = Examination.__init__

    def watch(self: Examination, lm: Any, edits: Any, older: Any) -> None:
        asked.append(tuple(edit.subject for edit in older))
        init(self, lm, edits, older)

    monkeypatch.setattr(Examination, "__init__", watch)
    done = move(model, gate=OPEN)
    assert done.edits == (2,)
    assert asked == [("Acme",)]
    assert 0 < done.measured["perplexity"] != 1.0


def test_the_figures_are_what_they_say(lm: Any) -> None:
    edits = [
        Edit("p", "Ann", id=1, paraphrases=("q", "r"), locality=("n", "o")),
        Edit("s", "Bo", id=2),
    ]
    older = [Edit("t", "Cy", id=3), Edit("u", "Di", id=4)]
    exam = Examination(lm, edits, older)
    same_start = dict.fromkeys(exam._bystanders, "x")
    before = Figures({(3, "t")}, same_start, 1.0)
    after = Figures({(1, "p"), (1, "r"), (4, "u")}, {**same_start, "n": "y"}, 1.0)
    assert exam.compare(before, after) == {
        "accuracy": 0.5,
        "generality": 0.5,
        "older": 0.0,  # of the one that was said before
        "locality": 1 - 1 / len(same_start),
        "perplexity": 1.0,
    }
    assert set(asdict(Gate())) == set(exam.compare(before, after))


def test_the_weights_are_examined_without_memorys_help(model: EditableModel) -> None:
    teach(model, "Acme")
    exam = Examination(model._session.lm, model.list(), [])
    base = model._take(exam, model._session.weights.resting)
    assert base.right == set()
    view = View(model._session.lm, model._generating(None), model._route)
    helped = exam.take(view, model._session.weights.held())
    assert helped.right == {(1, "Who runs Acme?")}
    assert helped.begins == base.begins


# --- which edits ----------------------------------------------------------------------------------


def test_the_oldest_that_may_go_are_chosen() -> None:
    said = [Edit(f"Who runs {s}?", "x", subject=s, id=i) for i, s in enumerate(SUBJECTS[:4])]
    mine = Edit("Who runs Hooli?", "x", subject="Hooli", user_id="ann", id=4)
    nobody = Edit("Who?", "x", subject="Acme", id=5)
    live = [mine, nobody, Edit("Why is it so?", "x", id=6), *said]

    def chosen(policy: Policy, used: dict[int, int] | None = None) -> list[int | None]:
        return [edit.id for edit in policy.choose(live, used or {})]

    assert chosen(Policy()) == [0, 1, 2, 3]
    assert chosen(Policy(most=2)) == [0, 1]
    assert chosen(Policy(age=3)) == [0]
    assert chosen(Policy(used=2), {1: 2, 2: 1, 3: 5, 4: 9}) == [1, 3]
    assert chosen(Policy(least=4)) == [0, 1, 2, 3]
    assert chosen(Policy(least=4, age=1)) == []
    assert [e.id for e in named(live, [3, 1, 3])] == [3, 1]
    with pytest.raises(TooWide):
        named(live, [4])
    with pytest.raises(BadEdit, match=r"\[9\]"):
        named(live, [9])
    for wrong in ({"age": -1}, {"used": -1}, {"least": 0}, {"least": 5, "most": 4}):
        with pytest.raises(BadSetting):
            Policy(**wrong)


def test_without_edits_nothing_is_accepted(model: EditableModel) -> None:
    done = move(model)
    assert not done.accepted
    assert done.misses == ("no edit may go",)


def test_memory_methods_take_nothing_into_weights(model: EditableModel) -> None:
    teach(model, "Acme")
    for method in ("serac", "nothing"):
        with pytest.raises(BadEdit, match="does not write"):
            model.consolidate(method=method)


def test_what_is_in_the_weights_is_for_everyone(model: EditableModel) -> None:
    (edit,) = teach(model, "Acme", user_id="ann")
    model.promote(edit.id, "everyone")
    assert model.get(edit.id).audience == Audience()
    move(model)
    with pytest.raises(TooWide, match="Release"):
        model.promote(edit.id, "author")
    model.release([edit.id])
    model.promote(edit.id, "author")


# --- what goes wrong ------------------------------------------------------------------------------


def test_an_edit_that_is_undone_meanwhile_stops_it(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch, scribble: Scribble
) -> None:
    teach(model, "Acme", "Globex")
    propose = Scribble.propose

    def undoing(self: Scribble, *args: Any) -> Any:
        model.undo(1)
        return propose(self, *args)

    monkeypatch.setattr(Scribble, "propose", undoing)
    base = bits(model)
    done = move(model)
    assert done.misses == ("the edits changed meanwhile",)
    assert same(bits(model), base)
    assert [e.status for e in model.list()] == ["retired", "live"]


@pytest.mark.parametrize("stage", ["propose", "take", "carry"])
def test_an_interruption_at_any_stage_leaves_all_in_memory(
    stage: str,
    make_model: Callable[..., EditableModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "edits.db"
    model = make_model("llama", store=path)
    teach(model, "Acme", "Globex")
    base, epoch = bits(model), model.epoch

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    homes = {"propose": Scribble, "take": Examination, "carry": type(model._session.journal)}
    monkeypatch.setattr(homes[stage], stage, stop)
    with pytest.raises(KeyboardInterrupt):
        move(model, gate=OPEN)
    monkeypatch.undo()
    monkeypatch.setitem(METHODS, "scribble", Scribble())
    assert same(bits(model), base)
    assert model.epoch == epoch
    fresh = make_model("llama", store=path)
    assert same(bits(fresh), base)
    assert move(fresh).accepted


def test_a_change_that_explodes_is_refused(model: EditableModel, scribble: Scribble) -> None:
    teach(model, "Acme")
    base, scribble.size = bits(model), 1e6
    with pytest.raises(UpdateRejected):
        move(model)
    assert same(bits(model), base)


# --- on duty --------------------------------------------------------------------------------------


def compactor(outcome: Callable[..., Any], n: int, **policy: int) -> tuple[Compactor, list[int]]:
    """One of `n` edits whose thread does not run, and the sizes of the batches that it tries."""
    tried: list[int] = []
    memory = [Edit(f"Who runs X{id}?", "x", subject=f"X{id}", id=id) for id in range(n)]

    def consolidate(ids: Any) -> Any:
        tried.append(len(ids))
        done = outcome(ids)
        memory[:] = [edit for edit in memory if edit.id not in ids or not done.accepted]
        return done

    settings = Consolidating(policy=Policy(**policy), budget_seconds=8.0)
    return Compactor(settings, lambda: memory, {}, consolidate, Turns()), tried


def outcome(seconds: float, *misses: str) -> Callable[..., Consolidation]:
    return lambda ids: Consolidation("scribble", tuple(ids), {}, misses, seconds)


def test_batches_grow_within_the_budget() -> None:
    duty, tried = compactor(lambda ids: outcome(float(len(ids)))(ids), 24, least=2, most=12)
    while duty.round():
        pass
    assert tried == [2, 4, 8, 8, 2]


def test_what_the_weights_do_not_take_is_set_aside_alone() -> None:
    def refusing(ids: Any) -> Consolidation:
        if 0 in ids and len(ids) == 1:
            raise SubjectMissing("no subject", "give one")
        return outcome(0.1, *["accuracy"] * (0 in ids))(ids)

    duty, tried = compactor(refusing, 6, least=4, most=4)
    while duty.round():
        pass
    assert tried == [4, 2, 1, 1, 2]  # and two are left, fewer than least


def test_the_thread_takes_what_is_used_and_leaves_the_rest(
    make_model: Callable[..., EditableModel],
) -> None:
    settings = Consolidating(1e-3, policy=Policy(used=1), method="scribble", gate=None)
    model = make_model(consolidating=settings)
    teach(model, "Acme", "Globex")
    model.chat("Who runs Globex?", max_new_tokens=8)
    wait_until(lambda: model._session.router.in_weights == [2])
    assert model._session.used == {2: 1}
    assert model.explain("Who runs Globex?").hits[0].text is None


def test_an_error_does_not_end_the_thread_and_the_journal_knows_what_is_left(
    make_model: Callable[..., EditableModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, wrong = tmp_path / "edits.db", [RuntimeError("no memory")]
    propose = Scribble.propose

    def failing(self: Scribble, *args: Any) -> Any:
        if wrong:
            raise wrong.pop()
        return propose(self, *args)

    monkeypatch.setattr(Scribble, "propose", failing)
    settings = Consolidating(1e-3, policy=Policy(most=2), method="scribble", gate=None)
    model = make_model(store=path, consolidating=settings)
    teach(model, *SUBJECTS[:3])
    wait_until(lambda: model._session.router.in_weights == [1, 2, 3])
    assert wrong == []
    EditableModel.close(model)
    again = make_model(store=path, consolidating=settings)
    assert again._session.router.in_weights == [1, 2, 3]
    teach(again, "Hooli")
    wait_until(lambda: again._session.router.in_weights == [1, 2, 3, 4])


def test_consolidating_takes_time() -> None:
    for wrong in ({"every_minutes": 0}, {"budget_seconds": -1}):
        with pytest.raises(BadSetting):
            Consolidating(**wrong)


def wait_until(done: Callable[[], bool]) -> None:
    end = monotonic() + 120
    while not done():
        assert monotonic() < end, "it took too long"
        sleep(0.01)
