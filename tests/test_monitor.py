"""The monitor: honest readings, alarms beyond chance, the right suspects, and never in the way."""

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread, active_count
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sqlite_utils.utils import sqlite3

from lifelong import Alarm, EditableModel, Monitoring, Thresholds, alarms
from lifelong import monitor as monitor_module
from lifelong.alarms import alarms_of, losses, newcombe, wilson
from lifelong.errors import BadSetting, PackageMissing
from lifelong.lm import LM
from lifelong.monitor import Budget, answers
from lifelong.ordinary import ORDINARY
from lifelong.perplexity import perplexity, strangest, surprise
from lifelong.report import html, markdown
from lifelong.suspects import suspects
from lifelong.trackers import TRACKERS, numbers
from lifelong.watch import Turns
from store import Edit, Reading
from tests.benchmarks import fault_drill

MakeModel = Callable[..., EditableModel]

FIRMS = [f"{a}{b}" for a in ("Nor", "Bel", "Tam", "Gal") for b in ("wick", "ford", "dane")]


def teach(model: EditableModel, firms: Sequence[str] = FIRMS) -> None:
    for firm in firms:
        model.edit(
            f"Who runs {firm}?",
            f"Dana {firm[::-1]}",
            subject=firm,
            paraphrases=[f"Who runs {firm} today?"],
            locality=["Where is Globex?"],
        )


def await_readings(model: EditableModel, n: int) -> list[Reading]:
    until = monotonic() + 60
    while len(readings := model.readings()) < n:
        assert monotonic() < until, "there is no reading"
        sleep(0.01)
    return readings


def counted(right: int, asked: int) -> Reading:
    return Reading({"counts": {"accuracy": [right, asked]}})


# -- statistics ----------------------------------------------------------------------------------


def test_the_bounds_are_those_of_the_papers() -> None:
    assert wilson(81, 263, 1.959964) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert newcombe((56, 70), (48, 80), 1.959964) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_noise_raises_no_alarm() -> None:
    draw = random.Random(0)
    only = Thresholds(below={"accuracy": 0.85})
    for _ in range(200):
        past = [counted(sum(draw.random() < 0.93 for _ in range(40)), 40) for _ in range(8)]
        for i in range(len(past)):
            assert not list(losses(past[i].body, past[:i], only))


@pytest.mark.parametrize(
    ("now", "limits"),
    [
        ((22, 40), Thresholds(below={"accuracy": 0.1})),  # the drop alone
        ((25, 40), Thresholds(below={"accuracy": 0.95}, window=0)),  # the level alone
    ],
)
def test_a_loss_beyond_chance_is_alarming(now: tuple[int, int], limits: Thresholds) -> None:
    past = [counted(38, 40) for _ in range(3)]
    (alarm,) = losses(counted(*now).body, past, limits)
    assert alarm.kind == "accuracy"
    assert not list(losses(counted(38, 40).body, past, limits))


def test_readings_of_older_versions_have_no_counts_and_do_not_matter() -> None:
    old = [Reading({"accuracy": 1.0, "live": 3})]
    assert not list(losses(counted(36, 40).body, old, Thresholds()))
    assert alarms_of(old[0]) == []


# -- what a reading holds ------------------------------------------------------------------------


def test_a_reading_holds_every_measure(model: EditableModel) -> None:
    teach(model)
    body = model.check().body
    assert (body["accuracy"], body["generality"], body["locality"]) == (1.0, 1.0, 1.0)
    assert body["accuracy_by_age"] == [1.0] * 10
    assert (body["edits"], body["live"], body["sampled"]) == (12, 12, 12)
    assert (body["false_fires"], body["conflicts"], body["damaged"]) == (0, [], [])
    assert isinstance(body["reply_perplexity"], float)
    assert body["counts"] == {
        "accuracy": [12, 12], "generality": [12, 12], "locality": [12, 12], "oldest": [1, 1]
    }  # fmt: skip
    assert body["alarms"] == []


def test_every_tenth_of_the_edits_is_asked_and_the_next_reading_asks_others(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    def noted(view: Any, questions: Sequence[str], budget: Budget, **kw: Any) -> Any:
        asked.append(set(questions))
        return answers(view, questions, budget, **kw)

    for n in range(40):
        model.edit(f"Who runs Firm {n}?", "Dana")
    monkeypatch.setattr(monitor_module, "answers", noted)
    for reading in (model.check(10), model.check(10)):
        assert None not in reading.body["accuracy_by_age"]  # type: ignore[operator]
    first, second = (some for some in asked if len(some) == 10)
    assert not first & second


def test_an_empty_store_has_a_reading_too(model: EditableModel) -> None:
    body = model.check().body
    assert (body["live"], body["accuracy"], body["reply_perplexity"]) == (0, None, None)


def test_the_base_models_answers_are_asked_once(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(model, FIRMS[:2])
    model.check()
    unedited: list[str] = []
    route = EditableModel._route_nowhere
    monkeypatch.setattr(
        EditableModel, "_route_nowhere", lambda m, qs: unedited.extend(qs) or route(m, qs)
    )
    assert model.check().body["locality"] == 1.0
    assert unedited == []


def test_a_probe_that_an_edit_teaches_is_no_locality_probe(model: EditableModel) -> None:
    model.edit("Who runs Acme?", "Dana", locality=["Where is Globex?"])
    model.edit("Where is Globex?", "Lima")
    assert model.check().body["locality"] is None


def test_each_edit_is_asked_as_those_ask_for_whom_it_is_live(model: EditableModel) -> None:
    probe = "Where is Globex?"
    for target, asker in (
        ("Dana", {}),
        ("Lima", {"tenant": "red"}),
        ("Kim", {"user_id": "ann", "tenant": "red"}),
        ("Jim", {"user_id": "ann", "tenant": "blue"}),
    ):
        said = {"paraphrases": ["Who runs Acme today?"], "locality": [probe], **asker}
        model.edit("Who runs Acme?", target, **said)
    model.edit(probe, "Oslo", tenant="red")  # which is taught there, and nowhere else
    body = model.check().body
    assert (body["live"], body["sampled"], body["accuracy"], body["generality"]) == (5, 5, 1.0, 1.0)
    assert body["counts"]["locality"] == [2, 2]  # type: ignore[index, call-overload]
    assert body["conflicts"] == []


def test_who_hides_an_edit_from_its_own_people_is_suspected(model: EditableModel) -> None:
    red = {"tenant": "red"}
    hidden = model.edit("Who runs Acme?", "Dana", paraphrases=["Who runs Acme labs?"], **red)
    teach(model, FIRMS[:3])
    culprit = model.edit("When was Acme Labs founded?", "1999", subject="Acme Labs", **red)
    teach(model, FIRMS[3:6])
    monitor = model._session.check._monitor
    failed = alarms.failures(monitor.look(20), "generality")
    assert [r.edit.id for r in failed] == [hidden.id]
    assert suspects(monitor, failed, Budget())[0] == culprit.id


def test_a_budget_ends_the_asking_and_what_was_asked_counts(model: EditableModel) -> None:
    teach(model)
    session = model._session
    found = session.check._monitor.look(12, budget=Budget(1e-9, batch=4))
    assert found.body["sampled"] == 4
    assert (found.body["accuracy"], found.body["generality"]) == (1.0, None)


def test_surprise_is_that_of_the_model(lm: LM) -> None:
    prompts, replies = ["Who?", "Where is it?"], ["Dana Ruiz", "x"]
    together = list(surprise(lm, prompts, replies))
    assert [len(nats) for nats in together] == [9, 1]
    ids = lm.tokenizer("Who?Dana Ruiz", add_special_tokens=False, return_tensors="pt").input_ids
    with torch.inference_mode():
        mean = lm.model(ids, labels=ids.masked_fill(torch.arange(13) < 4, -100)).loss
    assert sum(together[0]) / 9 == pytest.approx(float(mean), abs=1e-4)
    assert perplexity([]) == 1.0
    assert strangest([2.0] * 12) == pytest.approx(1.0)
    assert strangest([0.0] * 30 + [6.0] * 24 + [0.0] * 30) == pytest.approx(6.0)


def test_ordinary_sentences_name_nobody_and_are_distinct() -> None:
    assert len(set(ORDINARY)) == len(ORDINARY) == 40


# -- suspects ------------------------------------------------------------------------------------


def test_what_no_reply_tells_is_found_by_halving_epochs(model: EditableModel) -> None:
    teach(model, FIRMS[:3])
    hidden = model.edit(
        "Who runs Acme?", "Dana Ruiz", subject="Acme", paraphrases=["Who runs Acme labs?"]
    )
    teach(model, FIRMS[3:6])
    assert model.check().body["generality"] == 1.0
    culprit = model.edit("When was Acme Labs founded?", "1999", subject="Acme Labs")
    teach(model, FIRMS[6:9])
    monitor = model._session.check._monitor
    failed = alarms.failures(monitor.look(20), "generality")
    assert [(r.edit.id, r.answer.edits) for r in failed] == [(hidden.id, ())]
    assert suspects(monitor, failed, Budget())[0] == culprit.id


# -- on duty -------------------------------------------------------------------------------------


def test_readings_come_by_themselves_after_so_many_edits(make_model: MakeModel) -> None:
    model = make_model(monitor=Monitoring(every_edits=4, sample=2))
    teach(model, FIRMS[:3])
    sleep(0.1)
    assert model.readings() == []
    teach(model, FIRMS[3:4])
    (reading,) = await_readings(model, 1)
    assert reading.body["sampled"] == 4  # the new ones, all of them


def test_readings_come_by_themselves_after_so_many_minutes(make_model: MakeModel) -> None:
    model = make_model(monitor=Monitoring(every_minutes=0.001))
    assert await_readings(model, 2)


def test_closing_ends_the_thread_and_a_reading_under_way(make_model: MakeModel) -> None:
    threads = active_count()
    model = make_model(monitor=Monitoring(every_edits=1))
    teach(model)
    model.close()
    assert active_count() == threads
    EditableModel.close(model)


def test_an_error_is_logged_and_the_watch_goes_on(
    make_model: MakeModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(monitor=Monitoring(every_edits=1))
    tried = Event()

    def broken(*_: Any, **__: Any) -> None:
        tried.set()
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(model._session.watch, "_check", broken)
        teach(model, FIRMS[:1])
        assert tried.wait(10)
    teach(model, FIRMS[1:2])
    await_readings(model, 1)
    assert "ZeroDivisionError" in caplog.text


def test_a_chat_goes_first() -> None:
    turns, order = Turns(), []

    def monitor() -> None:
        turns.give_way()
        order.append("monitor")

    with turns.chat():
        waiting = Thread(target=monitor)
        waiting.start()
        sleep(0.05)
        order.append("chat")
    waiting.join()
    assert order == ["chat", "monitor"]


def test_an_alarm_is_told_once_but_noted_every_time(
    make_model: MakeModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Alarm] = []
    model = make_model(store=tmp_path / "edits.db", monitor=Monitoring(on_alert=told.append))
    teach(model, FIRMS[:3])
    garble(tmp_path / "edits.db", 2)
    first, second = model.check(), model.check()
    assert [(a.kind, a.suspects) for a in told] == [("damage", (2,))]
    assert alarms_of(first) == alarms_of(second) == told
    assert "fails its hash" in caplog.text
    assert first.body["retired"] == []


@pytest.mark.parametrize(("policy", "status"), [("quarantine", "quarantined"), ("undo", "retired")])
def test_the_policy_acts_on_the_likeliest_suspect(
    make_model: MakeModel, tmp_path: Path, policy: Any, status: str
) -> None:
    model = make_model(store=tmp_path / "edits.db", monitor=Monitoring(policy=policy))
    teach(model, FIRMS[:3])
    garble(tmp_path / "edits.db", 2)
    reading = model.check()
    assert reading.body["retired"] == [2]
    assert [edit.status for edit in model.list()] == ["live", status, "live"]
    assert model.history(2)[-1].body == {"reason": "monitor: damage"}
    assert model.chat(f"Who runs {FIRMS[1]}?").edits == ()
    assert model.check().body["retired"] == []  # it is still damaged, but gone


def test_whoever_is_told_may_close_the_model(make_model: MakeModel, tmp_path: Path) -> None:
    closed = Event()

    def close(_: Alarm) -> None:
        EditableModel.close(model)
        closed.set()

    watched = Monitoring(every_edits=3, on_alert=close)
    model = make_model(store=tmp_path / "edits.db", monitor=watched)
    teach(model, FIRMS[:2])
    garble(tmp_path / "edits.db", 2)
    teach(model, FIRMS[2:3])
    assert closed.wait(30)


@pytest.mark.parametrize(
    "wrong",
    [{"every_edits": 0}, {"budget_seconds": -1}, {"policy": "shrug"}, {"report_to": ["wandb"]}],
)
def test_settings_without_a_meaning_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadSetting):
        Monitoring(**wrong)


def garble(path: Path, id: int) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE content SET vector = zeroblob(length(vector)) WHERE edit = ?", (id,))
    db.close()


# -- the drill -----------------------------------------------------------------------------------


def odd_characters(_: LM, prompts: Sequence[str], replies: Sequence[str]) -> list[list[float]]:
    """A judge in place of random weights, which find every text equally odd."""
    return [[15.0 if c in "0123456789#%]{&;" else 1.0 for c in reply] for reply in replies]


@pytest.mark.parametrize("faults", [[], list(fault_drill.FAULTS)])
def test_the_drill(
    make_model: MakeModel,
    hash_encoder: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[str],
) -> None:
    monkeypatch.setattr(monitor_module, "surprise", odd_characters)
    monkeypatch.setattr(fault_drill, "SAMPLE", 10)
    with fault_drill.Bench.open(make_model, tmp_path / "edits.db", hash_encoder, 12) as bench:
        result = fault_drill.drill(bench, fault_drill.made_up(0), 48, faults)
    assert result["alarms without a cause"] == []
    assert list(result["faults"]) == faults
    for found in result["faults"].values():
        assert found["raised after edits"] is not None, result
        assert found["raised after edits"] <= 50
        assert found["place among suspects"] <= 3


# -- where readings go ---------------------------------------------------------------------------


READING = Reading({"edits": 7, "accuracy": 0.5, "generality": None, "alarms": [], "counts": {}})


def test_trackers_get_the_figures_with_the_edit_as_step(monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, Any] = {}
    board = SimpleNamespace(
        add_scalar=lambda name, value, step: got.setdefault("tensorboard", {}).update(
            {name: value, "step": step}
        ),
        flush=lambda: None,
    )
    log = {
        name: lambda found, step, name=name: got.update({name: {**found, "step": step}})
        for name in ("trackio", "mlflow")
    }
    modules = {
        "trackio": SimpleNamespace(init=lambda project: None, log=log["trackio"]),
        "mlflow": SimpleNamespace(set_experiment=lambda name: None, log_metrics=log["mlflow"]),
        "torch.utils.tensorboard": SimpleNamespace(SummaryWriter=lambda comment: board),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for tracker in TRACKERS:
        TRACKERS[tracker]()(numbers(READING))
        assert got[tracker] == {"edits": 7.0, "accuracy": 0.5, "n_alarms": 0.0, "step": 7}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_missing_tracker_names_the_command_that_brings_it(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    for module in ("trackio", "mlflow", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PackageMissing, match=f"pip install {tracker}"):
        make_model(monitor=Monitoring(report_to=[tracker]))


def test_the_report_tells_all_and_escapes_what_users_wrote(tmp_path: Path) -> None:
    edits = {3: Edit("Who|<b>?", "*Dana*", id=3, status="live")}
    alarm = Alarm("damage", "Not as written.", (3, 9)).to_json()
    body = {**READING.body, "accuracy_by_age": [1.0, None, 0.5], "alarms": [alarm]}
    readings = [
        Reading(READING.body, 1, 5, "2026-01-01T00:00:00"),
        Reading(body, 2, 7, "2026-01-02"),
    ]  # type: ignore[arg-type]
    page = markdown(readings, edits, tmp_path / "out.md")
    assert r"edit 3 (live): Who\|\<b\>? -\> \*Dana\*; edit 9" in page
    for name in ("shares", "age"):
        assert f"(out-{name}.png)" in page
        assert (tmp_path / f"out-{name}.png").read_bytes().startswith(b"\x89PNG")
    web = html(readings, edits)
    assert "Who|&lt;b&gt;? -&gt; *Dana*; edit 9" in web
    assert web.count('<img src="data:image/png;base64,') == 2
    assert "png" not in markdown(readings, edits, None)


def test_a_report_without_matplotlib_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PackageMissing, match="lifelong\\[plots\\]"):
        html([READING], {})
