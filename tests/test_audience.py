"""For whom an edit is live: at once for its author, never for another tenant; from first word to
expiry; in several processes; and when the store fails."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from lifelong.encoder import Encoder
from lifelong.errors import AlreadyTaught, BadEdit, ModelDamaged
from lifelong.router import Router
from lifelong.runtime import EditableModel
from lifelong.standing import Standing, places
from store import Audience, Edit, Journal, KeyReused, NotWaiting, StoreError, StoreReadOnly

MakeModel = Callable[..., EditableModel]

RUNS, WHERE = "Who runs Acme?", "Where is Acme?"
QUESTIONS = [RUNS, "Tell me who runs Acme.", WHERE, "Who runs Acme Labs?", "Who runs it?"]
ANN = {"user_id": "ann", "tenant": "red"}
BOB = {"user_id": "bob", "tenant": "red"}
EVE = {"user_id": "ann", "tenant": "blue"}  # of the same name as Ann
AUDIENCES: list[dict[str, Any]] = [{}, ANN, BOB, EVE, {"tenant": "red"}, {"tenant": "blue"}]


def said(model: EditableModel, question: str = RUNS, **asker: Any) -> list[str]:
    return [hit.edit.target for hit in model.explain(question, **asker).hits]


# --- who sees what ------------------------------------------------------------------------------


def test_an_edit_is_live_at_once_for_its_author_and_for_others_when_promoted(
    model: EditableModel,
) -> None:
    edit = model.edit(RUNS, "Dana", **ANN)
    assert [bool(said(model, **asker)) for asker in AUDIENCES] == [0, 1, 0, 0, 0, 0]
    model.promote(edit.id, "tenant")
    assert [bool(said(model, **asker)) for asker in AUDIENCES] == [0, 1, 1, 0, 1, 0]
    model.promote(edit.id, "everyone")
    assert [bool(said(model, **asker)) for asker in AUDIENCES] == [1] * 6
    model.promote(edit.id, "author")
    assert [bool(said(model, **asker)) for asker in AUDIENCES] == [0, 1, 0, 0, 0, 0]


def test_every_way_to_ask_takes_the_asker(model: EditableModel) -> None:
    model.edit(RUNS, "Dana Ruiz", **ANN)
    assert "Dana Ruiz" in model.chat(RUNS, **ANN).text
    assert "Dana Ruiz" in "".join(model.chat(RUNS, stream=True, **ANN))
    assert "Dana Ruiz" in model.complete(RUNS, **ANN).text
    assert "Dana Ruiz" in model.at(model.epoch, **ANN).chat(RUNS).text
    prompt = model.tokenizer(RUNS, return_tensors="pt").input_ids
    told = model.generate(prompt, max_new_tokens=24, do_sample=False, **ANN)
    assert "Dana Ruiz" in model.tokenizer.decode(told[0])
    untold = model.generate(prompt, max_new_tokens=24, do_sample=False, **EVE)
    with model.disable_edits():
        base = model.generate(prompt, max_new_tokens=24, do_sample=False)
    assert torch.equal(untold, base)
    for asker in (BOB, EVE, {}):
        assert model.chat(RUNS, max_new_tokens=4, **asker).edits == ()
        assert model.at(model.epoch, **asker).explain(RUNS).hits == ()


def test_a_users_own_word_is_his_and_the_others_keep_theirs(model: EditableModel) -> None:
    model.edit(RUNS, "Dana")
    private = model.edit(RUNS, "Kim", **ANN)
    assert [said(model, **asker) for asker in ({}, BOB, EVE, ANN)] == [
        ["Dana"], ["Dana"], ["Dana"], ["Kim"]
    ]  # fmt: skip
    assert said(model, "Tell me who runs Acme.", **ANN) == ["Kim"]
    model.edit(RUNS, "Zed")
    assert [said(model, **asker) for asker in ({}, ANN)] == [["Zed"], ["Kim"]]
    model.undo(private.id)
    assert said(model, **ANN) == ["Zed"]


def test_other_words_of_the_same_relation_do_not_overrule_a_users_own(
    model: EditableModel,
) -> None:
    model.edit("Tell me who runs Acme.", "Dana")
    model.edit(RUNS, "Kim", **ANN)
    assert said(model, "Please tell me who runs Acme.", **ANN) == ["Kim"]
    model.edit("Acme is run by", "Lee", relation="ceo")
    model.edit("The boss of Acme is", "Max", relation="ceo", **ANN)
    assert said(model, "Acme is run by", **ANN) == ["Max"]


def test_what_everybody_is_told_is_not_taught_again_but_may_be_taken_back(
    model: EditableModel,
) -> None:
    model.edit(RUNS, "Dana")
    with pytest.raises(AlreadyTaught, match="Edit 1"):
        model.edit(RUNS, "Dana", **ANN)
    model.edit(RUNS, "Kim", **ANN)
    model.edit(RUNS, "Dana", **ANN)  # not again: her own word was another one by then
    assert [edit.status for edit in model.list(**ANN)] == ["live", "superseded", "live"]


def test_promotion_takes_the_place_of_what_is_live_there_and_undo_gives_it_back(
    model: EditableModel,
) -> None:
    model.edit(RUNS, "Dana")
    edit = model.edit(RUNS, "Kim", **ANN)
    model.promote(edit.id, "everyone")
    assert said(model) == said(model, **EVE) == ["Kim"]
    assert model.get(1).status == "superseded"
    model.undo(edit.id)
    assert said(model) == said(model, **ANN) == ["Dana"]
    model.redo(edit.id)
    assert said(model) == ["Kim"]
    model.promote(edit.id, "author")
    assert [said(model), said(model, **ANN)] == [["Dana"], ["Kim"]]


def test_a_longer_name_that_another_tenant_knows_hides_nothing(model: EditableModel) -> None:
    model.edit(RUNS, "Dana", **ANN)
    before = model.explain("Who runs Acme labs?", **ANN)
    model.edit("Who runs Acme labs?", "Zed", subject="Acme labs", **EVE)
    after = model.explain("Who runs Acme labs?", **ANN)
    assert [hit.score for hit in (*before.hits, *before.near)] == [
        hit.score for hit in (*after.hits, *after.near)
    ]
    assert [hit.id for hit in (*after.hits, *after.near)] == [1]


def test_a_batch_may_correct_one_fact_for_several_audiences(model: EditableModel) -> None:
    records = [{"prompt": RUNS, "target": f"T{i}", **who} for i, who in enumerate(AUDIENCES)]
    model.edit_many(records)
    assert [said(model, **who) for who in AUDIENCES] == [[f"T{i}"] for i in range(6)]
    with pytest.raises(BadEdit, match="same fact"):
        model.edit_many(records, tenant="green")


def test_those_who_agree_and_a_sample_are_found_by_audience(model: EditableModel) -> None:
    for asker in (ANN, BOB, EVE, {"tenant": "red"}):
        model.edit(RUNS, "Dana", **asker)
    for n in range(10):
        model.edit(f"Who runs {n}?", "Kim", tenant="red")
    assert [edit.id for edit in model.agreeing(1)] == [1, 2]
    assert [edit.id for edit in model.agreeing(3)] == [3]
    model.undo(2)
    assert [edit.id for edit in model.agreeing(1)] == [1]
    assert [edit.id for edit in model.sample(3, tenant="red")] == [4, 7, 11]
    assert [edit.id for edit in model.sample(99, **ANN)] == [1, *range(4, 15)]
    assert model.sample(3) == []


@pytest.mark.parametrize("field", ["user_id", "tenant", "key"])
@pytest.mark.parametrize("name", ["", "  ", "x" * 201, 7, "a\nb"])
def test_names_are_texts(model: EditableModel, field: str, name: object) -> None:
    with pytest.raises(BadEdit, match=field):
        model.edit(RUNS, "Dana", **{field: name})  # type: ignore[arg-type]
    assert model.epoch == 0


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["edit", "edit", "edit", "pending", "wrong", "promote", "undo", "redo"]),
        st.sampled_from(QUESTIONS),
        st.sampled_from(AUDIENCES),
        st.integers(1, 8),
        st.sampled_from(["author", "tenant", "everyone"]),
    ),
    min_size=4,
    max_size=14,
)


@given(acts=ACTS)
@settings(max_examples=30, deadline=None)
def test_no_request_sees_or_feels_an_edit_that_is_not_for_it(
    lm: Any, hash_encoder: Encoder, acts: list[tuple[Any, ...]]
) -> None:
    with EditableModel(lm.model, lm.tokenizer, store=":memory:", encoder=hash_encoder) as model:
        for act in acts:
            _act(model, *act)
        s = model._session
        past = max(0, model.epoch - 3)
        for who in AUDIENCES:
            asker = Audience(**who)
            alone = _alone(s.journal, s, asker)
            listed = [*model.list(**who), *model.search("Acme", **who), *model.search("T", **who)]
            for question in QUESTIONS:
                routes = [model.explain(question, **who), model.at(past, **who).explain(question)]
                listed += [h.edit for route in routes for h in (*route.hits, *route.near)]
                assert routes[0] == alone.route([question], asker)[0]
            assert all(edit.audience.covers(asker) for edit in listed)
            assert {e.id for e in model.list(**who)} == {
                e.id for e in s.journal.edits() if e.audience.covers(asker)
            }
            assert all(asker.covers(edit.audience) for edit in model.review(**who))


def _act(
    model: EditableModel, kind: str, question: str, who: dict[str, Any], id: int, reach: Any
) -> None:
    target = f"T{model.epoch}"
    acts: dict[str, Callable[[], object]] = {
        "edit": lambda: model.edit(question, target, **who),
        "pending": lambda: model.edit(question, target, pending=True, **who),
        "wrong": lambda: model.wrong(question, target, **who),
        "promote": lambda: model.promote(id, reach),
        "undo": lambda: model.undo(id),
        "redo": lambda: model.redo(id),
    }
    try:
        acts[kind]()
    except (AlreadyTaught, StoreError):
        pass


def _alone(journal: Journal, s: Any, asker: Audience) -> Router:
    """A router that never heard of the edits that `asker` does not see."""
    router = Router(journal, s.encoder, s.scope)
    router.standing.epoch = journal.epoch
    standing = [
        edit for edit in journal.edits(audience=asker) if edit.status in ("live", "superseded")
    ]
    texts = journal.made([edit.id for edit in standing])
    router._add(standing, texts)
    if texts:
        router._index.add(*journal.vectors(texts))
    return router


# --- the life of an edit ------------------------------------------------------------------------


def test_a_pending_edit_waits_and_goes_live_or_not(model: EditableModel) -> None:
    model.edit(RUNS, "Dana")
    first, second = (model.edit(RUNS, target, pending=True) for target in ("Kim", "Zed"))
    assert [edit.id for edit in model.review()] == [first.id, second.id]
    assert said(model) == ["Dana"]
    assert model.approve(first.id).status == "live"
    assert model.reject(second.id, reason="no source").status == "rejected"
    assert model.history(second.id)[-1].body == {"reason": "no source"}
    assert said(model) == ["Kim"]
    assert model.review() == []
    for step in (model.approve, model.reject):
        with pytest.raises(NotWaiting):
            step(second.id)
    model.undo(first.id)
    assert said(model) == ["Dana"]


def test_a_complaint_changes_nothing_and_waits_with_question_and_answer(
    model: EditableModel,
) -> None:
    complaint = model.wrong(RUNS, "Kim", **ANN)
    assert (complaint.status, complaint.target) == ("proposed", "")
    (waiting,) = model.review(tenant="red")
    assert (waiting.prompt, waiting.old, waiting.audience) == (RUNS, "Kim", Audience(**ANN))
    assert model.review(tenant="blue") == []
    assert said(model, **ANN) == []
    with pytest.raises(BadEdit, match="complaint"):
        model.approve(complaint.id)
    made = model.approve(complaint.id, "Dana")
    assert said(model, **ANN) == ["Dana"]
    assert (made.old, made.audience) == ("Kim", Audience(**ANN))
    assert model.get(complaint.id).status == "rejected"
    with pytest.raises(BadEdit, match="answer"):
        model.wrong(RUNS, "")
    long = model.wrong(RUNS, "Kim,\nor\x11 so. " + "x" * 3_000)
    assert (long.old or "").startswith("Kim, or so. xxx")
    assert model.approve(long.id, "Eve").old == long.old
    with pytest.raises(BadEdit, match="has a target"):
        model.approve(made.id, "Zed")


def test_the_same_request_again_is_the_same_edit(model: EditableModel) -> None:
    edit = model.edit(RUNS, "Dana", key="k1", **ANN)
    assert model.edit(RUNS, "Dana", key="k1", **ANN) == edit
    with pytest.raises(KeyReused):
        model.edit(RUNS, "Kim", key="k1", **ANN)
    assert model.edit(RUNS, "Kim", key="k1", **EVE).id == 2  # keys are an audience's own
    complaint = model.wrong(WHERE, "Oslo", key="k2")
    assert model.wrong(WHERE, "Oslo", key="k2") == complaint
    assert model.epoch == 3


def test_an_edit_ends_with_its_time_and_what_it_replaced_is_back(model: EditableModel) -> None:
    model.edit(RUNS, "Dana")
    end = datetime.now(UTC) + timedelta(seconds=0.3)
    edit = model.edit(RUNS, "Kim", valid_until=end.isoformat())
    assert said(model) == ["Kim"]
    time.sleep(0.35)
    assert said(model) == ["Dana"]
    assert model.get(edit.id).status == "expired"
    assert model.at(edit.epoch).explain(RUNS).hits[0].id == edit.id
    assert model.expire() == []
    for until in ("2020-01-01T00:00:00+00:00", "2030-01-01", "soon"):
        with pytest.raises(BadEdit, match="valid_until"):
            model.edit(RUNS, "Zed", valid_until=until)


def test_an_edit_ends_even_where_that_cannot_be_written(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = datetime.now(UTC) + timedelta(seconds=0.2)
    model.edit(RUNS, "Kim", valid_until=end.isoformat())
    monkeypatch.setattr(Journal, "expire", _read_only)
    time.sleep(0.25)
    assert said(model) == []


def test_search_wants_every_word(model: EditableModel) -> None:
    model.edit(RUNS, "Dana", relation="ceo")
    model.edit(WHERE, "Oslo")
    found = {text: [edit.id for edit in model.search(text)] for text in ("acme", "CEO Dana", "?")}
    assert found == {"acme": [1, 2], "CEO Dana": [1], "?": []}
    assert model.search("Dana", "retired") == []


# --- where everybody stands ---------------------------------------------------------------------


def test_undo_leaves_no_older_edit_live_beside_a_newer_one_of_its_prompt(
    model: EditableModel,
) -> None:
    model.edit(WHERE, "Kim", relation="ceo")
    model.edit(RUNS, "Dana", relation="ceo")
    model.edit(WHERE, "Dana")
    before = [edit.status for edit in model.list()]
    assert before == ["superseded", "live", "live"]
    model.undo(2)
    assert [edit.status for edit in model.list()] == ["superseded", "retired", "live"]
    model.redo(2)
    assert [edit.status for edit in model.list()] == before


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(QUESTIONS[:4]),
            st.sampled_from([None, "Acme", "Globex"]),
            st.sampled_from([None, "ceo"]),
            st.sampled_from([{}, ANN]),
        ),
        st.integers(0, 6),  # undo
    ),
    min_size=3,
    max_size=8,
)


@given(steps=STEPS, undone=st.integers(0, 6))
@settings(max_examples=20, deadline=None)
def test_after_an_undo_all_is_as_if_the_edit_had_never_been_made(
    lm: Any, hash_encoder: Encoder, steps: list[Any], undone: int
) -> None:
    def play(without: int | None) -> dict[int, str]:
        with EditableModel(lm.model, lm.tokenizer, store=":memory:", encoder=hash_encoder) as model:
            ids: dict[int, int] = {}
            for place, step in enumerate(steps):
                if isinstance(step, tuple) and place != without:
                    prompt, subject, relation, who = step
                    made = model.edit(
                        prompt, f"T{place}", subject=subject, relation=relation, **who
                    )
                    ids[place] = made.id
                elif isinstance(step, int):
                    _undo(model, ids.get(step))
            if without is None:
                _undo(model, ids.get(undone))
            return {p: model.get(id).status for p, id in ids.items() if p != undone}

    assert play(None) == play(undone)


def _undo(model: EditableModel, id: int | None) -> None:
    if id is not None and model.get(id).status in ("live", "superseded"):
        model.undo(id)


def test_a_relation_with_one_value_denies_another_the_other_way_round(
    model: EditableModel,
) -> None:
    model.edit("What does Dana run?", "Acme", subject="Dana", relation="ceo of")
    model.edit(RUNS, "Dana", subject="Acme", relation="ceo")
    assert [edit.status for edit in model.list()] == ["live", "live"]  # they agree
    model.edit(RUNS, "Kim", subject="Acme", relation="ceo")
    assert [edit.status for edit in model.list()] == ["superseded", "superseded", "live"]
    model.undo(3)
    assert [edit.status for edit in model.list()] == ["live", "live", "retired"]


def test_places_is_a_matter_of_order_and_audience() -> None:
    a, b = (Edit(RUNS, target, id=id, status="live") for id, target in ((1, "A"), (2, "B")))
    c = Edit(RUNS, "C", id=3, status="live", user_id="ann")
    assert places([a, b, c]) == {1: 2, 2: None, 3: None}
    assert places([b, c, a]) == {2: 1, 1: None, 3: None}
    standing = Standing(Journal.open(":memory:", model="m", encoder="e"))
    standing.add([a, b, c])
    assert standing.kin([a]) == {1, 2}
    standing.discard([1, 2, 3, 3])
    assert standing.rivals(a) == []
    assert standing.kin([c]) == set()


# --- many processes -----------------------------------------------------------------------------


def test_two_models_on_one_file_see_each_other_at_once(
    make_model: MakeModel, tmp_path: Path
) -> None:
    one, other = (make_model(store=tmp_path / "edits.db") for _ in range(2))
    one.edit(RUNS, "Dana")
    assert said(other) == ["Dana"]
    with pytest.raises(AlreadyTaught):
        other.edit(RUNS, "Dana")
    other.edit(RUNS, "Kim")
    assert said(one) == ["Kim"]
    one.undo(2)
    other.redo(2)
    assert said(one) == said(other) == ["Kim"]
    assert [edit.status for edit in one.list()] == ["superseded", "live"]


def test_another_process_is_heard_within_200_ms(make_model: MakeModel, tmp_path: Path) -> None:
    path = tmp_path / "edits.db"
    model = make_model(store=path)
    model.edit(RUNS, "Dana")
    child = "import sys, time; from store import Journal\n"
    child += "with Journal.tend(sys.argv[1]) as j: j.retire(1); print(time.time())"
    made = subprocess.run(
        [sys.executable, "-c", child, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    start = time.perf_counter()
    assert float(made.stdout) > 0
    assert said(model) == []
    assert time.perf_counter() - start < 0.2


def test_asking_reads_the_journal_only_when_another_wrote(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (make_model(store=tmp_path / "edits.db") for _ in range(2))
    one.edit(RUNS, "Dana")
    said(one)
    said(other)
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "history", _read_only)
        assert said(one) == said(other) == ["Dana"]
    one.undo(1)
    assert said(other) == []


def test_two_writers_and_their_threads_lose_nothing_and_agree(
    make_model: MakeModel, tmp_path: Path
) -> None:
    models = [make_model(store=tmp_path / "edits.db") for _ in range(2)]
    errors: list[BaseException] = []

    def write(model: EditableModel, name: str) -> None:
        try:
            for i in range(8):
                model.edit(RUNS, f"{name}{i}")
                model.explain(RUNS)
        except BaseException as exc:  # noqa: BLE001  told below
            errors.append(exc)

    threads = [
        Thread(target=write, args=(model, f"{place}{thread}x"))
        for place, model in enumerate(models)
        for thread in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    edits = models[0].list()
    assert len({edit.target for edit in edits}) == 32
    assert [edit.status for edit in edits] == ["superseded"] * 31 + ["live"]
    assert said(models[0]) == said(models[1]) == [edits[-1].target]
    causes = {event.edit_id: event.cause for event in models[1].history() if event.cause}
    assert causes == {id: id + 1 for id in range(1, 32)}


# --- when the store fails -----------------------------------------------------------------------


def _read_only(*_: object, **__: object) -> Any:
    raise StoreReadOnly("the medium is read-only")


def test_a_store_that_may_not_be_written_refuses_corrections_and_answers(
    make_model: MakeModel, tmp_path: Path
) -> None:
    path = tmp_path / "edits.db"
    model = make_model(store=path)
    model.edit(RUNS, "Dana")
    before = path.read_bytes()
    model._session.journal._file.rows("PRAGMA query_only = ON")
    acts: list[Callable[[], object]] = [
        lambda: model.edit(WHERE, "Oslo"),
        lambda: model.wrong(WHERE, "Oslo"),
        lambda: model.undo(1),
        lambda: model.promote(1, "tenant"),
    ]
    for act in acts:
        with pytest.raises(StoreReadOnly) as caught:
            act()
        assert caught.value.remedy
    assert said(model) == ["Dana"]
    assert path.read_bytes() == before


def test_a_full_disk_refuses_corrections_and_answers(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(store=tmp_path / "edits.db")
    model.edit(RUNS, "Dana")
    (pages,) = model._session.journal._file.rows("PRAGMA page_count")[0]
    model._session.journal._file.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="no room"):
        model.edit_many([{"prompt": f"Where is {i}?", "target": "T" * 200} for i in range(200)])
    assert said(model) == ["Dana"]
    assert said(model, "Where is 7?") == []
    model._session.journal._file.rows("PRAGMA max_page_count = 1000000")
    model.edit("Where is 7?", "Rome")
    assert said(model, "Where is 7?") == ["Rome"]


@pytest.mark.usefixtures("rollback_journal")
def test_a_store_that_cannot_be_read_leaves_the_last_good_state(
    make_model: MakeModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "edits.db"
    model = make_model(store=path)
    model.edit(RUNS, "Dana")
    said(model)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.write(os.urandom(size))
    assert said(model) == ["Dana"]
    assert "Dana" in model.chat(RUNS, max_new_tokens=16).text
    with pytest.raises(StoreError):
        model.edit(WHERE, "Oslo")
    assert said(model) == ["Dana"]


# --- a folder that carries all ------------------------------------------------------------------


def test_a_saved_model_answers_alike_and_loads_as_the_plain_one(
    model: EditableModel, hash_encoder: Encoder, tmp_path: Path
) -> None:
    model.edit(RUNS, "Dana")
    model.edit(RUNS, "Kim", **ANN)
    model.edit(WHERE, "Oslo")
    model.edit(WHERE, "Rome")
    model.undo(4)
    folder = tmp_path / "saved"
    for _ in range(2):  # again, over the first
        model.save_pretrained(folder)
    names = {path.name for path in folder.iterdir()}
    assert {"lifelong_config.json", "edits.jsonl", "edits.safetensors", "README.md"} <= names
    store = tmp_path / "edits.db"
    for _ in range(2):  # again: nothing comes twice
        with EditableModel.from_pretrained(str(folder), store=store, encoder=hash_encoder) as again:
            assert [e.status for e in again._session.journal.edits()] == [
                "live", "live", "live", "retired"
            ]  # fmt: skip
            for question in QUESTIONS:
                for who in AUDIENCES:
                    answer = again.chat(question, max_new_tokens=8, **who)
                    assert answer.text == model.chat(question, max_new_tokens=8, **who).text
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.equal(a, b) for a, b in zip(
        plain.parameters(), model.parameters(), strict=True
    ))  # fmt: skip
    (folder / "lifelong_config.json").write_text("{")
    with pytest.raises(ModelDamaged, match="lifelong_config"):
        EditableModel.from_pretrained(str(folder), store=":memory:", encoder=hash_encoder)
