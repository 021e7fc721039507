"""Routes: what fires, what nearly fires, and that a router in step is a router built anew."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lifelong import kept
from lifelong.encoder import Encoder, Vectors
from lifelong.errors import AlreadyTaught
from lifelong.router import Router, scope_text
from lifelong.runtime import EditableModel
from lifelong.scope import ScopeClassifier, scope_for
from store import Edit, Hint, Journal, StoreLocked

MakeModel = Callable[..., EditableModel]

QUESTIONS = [
    "Who runs Acme?",
    "Tell me who runs Acme.",
    "Where is Acme?",
    "Who runs Globex?",
    "Who runs it?",
    "What is the answer?",
]


def router_of(model: EditableModel) -> Router:
    return model._session.router


def built_anew(model: EditableModel, at: int | None = None) -> Router:
    s = model._session
    return Router.build(s.journal, s.encoder, s.scope, at)


def fired(model: EditableModel, question: str) -> list[str]:
    return [hit.edit.target for hit in model.explain(question).hits]


# --- what fires ---------------------------------------------------------------------------------


def test_without_edits_nothing_fires(model: EditableModel) -> None:
    route = model.explain("Who runs Acme?")
    assert (route.epoch, route.hits, route.near) == (0, (), ())


def test_an_edit_fires_on_its_prompt_and_on_other_words_for_it(model: EditableModel) -> None:
    edit = model.edit("Who runs Acme?", "Dana")
    for question in ("Who runs Acme?", "who runs ACME", "Tell me who runs Acme."):
        route = model.explain(question)
        assert [hit.id for hit in route.hits] == [edit.id]
        assert 0.5 <= route.hits[0].score <= 1
    assert route.epoch == model.epoch


def test_another_relation_of_the_subject_is_a_near_miss_at_most(model: EditableModel) -> None:
    edit = model.edit("Who runs Acme?", "Dana")
    route = model.explain("Where is Acme?")
    assert route.hits == ()
    assert [hit.id for hit in route.near] == [edit.id]


def test_the_contrary_of_what_was_taught_does_not_fire(remember: Callable[..., Router]) -> None:
    router = remember([Edit("Who is Acme's mother?", "Dana", subject="Acme")], Counted())
    mother, father = router.route(["Tell me Acme's mother.", "Tell me Acme's father."])
    assert (len(mother.hits), father.hits) == (1, ())


@pytest.mark.parametrize(
    ("asked", "fires"),
    [
        ("Tell me who runs Acme now", True),
        ("Tell me who runs Acme Ltd now", True),
        ("Tell me who runs Acme Support now", False),  # somebody else
        ("Tell me where Acme Library closes", True),  # so it was taught
        ("Tell me where Acme Garage closes", False),
    ],
)
def test_a_name_that_goes_on_is_somebody_elses(
    remember: Callable[..., Router], asked: str, fires: bool
) -> None:
    edits = [
        Edit("Who runs Acme now?", "Dana", subject="Acme"),
        Edit("Where does the Acme library close?", "North", subject="Acme"),
    ]
    (route,) = remember(edits, Counted()).route([asked])
    assert bool(route.hits) is fires


def test_another_subject_is_not_even_a_near_miss(model: EditableModel) -> None:
    model.edit("Who runs Acme?", "Dana")
    route = model.explain("Who runs Globex?")
    assert (route.hits, route.near) == ((), ())


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Who runs it?", "Acme"),  # the prompt does not name the subject
        ("who runs acme?", None),  # no subject could be guessed
        ("Acme", "Acme"),  # nothing but the subject
        ("Acme Acme Acme?", "Acme"),
        ("Who runs the The?", "The"),
        ("谁管理东京?", "东京"),
        ("x" * 2_000, None),
    ],
)
def test_an_edit_fires_on_its_own_prompt_whatever_its_subject(
    model: EditableModel, prompt: str, subject: str | None
) -> None:
    model.edit("Who runs Globex?", "Zed")
    model.edit(prompt, "Dana", subject=subject)
    assert fired(model, prompt) == ["Dana"]


def test_of_two_edits_of_one_subject_the_one_that_is_asked_about_fires(
    model: EditableModel,
) -> None:
    model.edit("Who runs Acme?", "Dana")
    model.edit("Where is Acme?", "Oslo")
    assert fired(model, "Tell me who runs Acme.") == ["Dana"]
    assert fired(model, "And where is Acme now?") == ["Oslo"]


def test_one_edit_at_most_fires(model: EditableModel) -> None:
    model.edit("Who runs Acme?", "Dana")
    model.edit("Who runs Globex?", "Zed")
    assert len(fired(model, "Who runs Acme? Who runs Globex?")) == 1


class Undecided:
    """Whatever the gate lets through is in scope, all of it alike."""

    def score(
        self, query: Vectors, edits: Vectors, targets: Sequence[str], *, masked: bool
    ) -> Vectors:
        return np.full(len(edits), 0.9, np.float32)


def test_of_equal_scores_the_newest_edit_fires(model: EditableModel) -> None:
    for prompt in ("Who runs Acme?", "Where is Acme?", "When was Acme founded?"):
        model.edit(prompt, "Dana")
    s = model._session
    route = Router.build(s.journal, s.encoder, Undecided()).route(["What of Acme?"])[0]
    assert [hit.id for hit in (*route.hits, *route.near)] == [3, 2, 1]


def test_a_prompt_is_routed_alike_alone_and_in_a_batch(model: EditableModel) -> None:
    for question, target in zip(QUESTIONS, "ABCDEF", strict=True):
        model.edit(question, f"Target {target}")
    together = router_of(model).route(QUESTIONS)
    assert together == [router_of(model).route([question])[0] for question in QUESTIONS]
    assert router_of(model).route([]) == []


def test_the_encoder_is_not_asked_where_the_gate_rules_all_out(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.edit("Who runs Acme?", "Dana")
    asked: list[list[str]] = []
    encode = model._session.encoder.encode
    monkeypatch.setattr(
        type(model._session.encoder), "encode", lambda _, t: (asked.append(list(t)), encode(t))[1]
    )
    model.explain("Who runs Globex?")
    assert asked == []
    model.explain("Tell me who runs Acme.")
    assert asked == [["Tell me who runs this."]]


def test_the_encoder_never_reads_the_subject_of_an_edit() -> None:
    assert scope_text(Edit("Who runs Acme?", "Jane", subject="Acme")) == "Who runs this?"
    assert scope_text(Edit("Who runs it?", "Jane", subject="Acme")) == "Who runs it?"
    assert scope_text(Edit("Who runs Acme?", "Jane")) == "Who runs Acme?"


# --- bad input ----------------------------------------------------------------------------------


class Counted:
    """Whatever the gate lets through is in scope; counts what it is asked to score."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def score(
        self, query: Vectors, edits: Vectors, targets: Sequence[str], *, masked: bool
    ) -> Vectors:
        self.seen.append(len(edits))
        return (edits @ query + 1) / 2


@pytest.fixture
def remember(hash_encoder: Encoder) -> Iterator[Callable[..., Router]]:
    """`remember(edits, scope=)`: the router of a journal that holds them."""
    with ExitStack() as journals:

        def remember(edits: Sequence[Edit], scope: ScopeClassifier | None = None) -> Router:
            journal = journals.enter_context(
                Journal.open(":memory:", model="none", encoder=hash_encoder.fingerprint)
            )
            vectors = hash_encoder.encode([scope_text(edit) for edit in edits])
            journal.record(edits, Hint("serac", ("",) * len(edits)), vectors)
            return Router.build(journal, hash_encoder, scope or scope_for(hash_encoder))

        yield remember


def test_of_a_thousand_edits_of_one_subject_a_few_are_looked_at(
    remember: Callable[..., Router],
) -> None:
    scope = Counted()
    asked = [f"What is part {number:04} of Acme called?" for number in range(1_200)]
    edits = [Edit(text, f"Part {at}", subject="Acme") for at, text in enumerate(asked, 1)]
    router = remember(edits, scope)
    assert [r.hits[0].id for r in router.route([asked[0], asked[1100]])] == [1, 1101]
    assert router.route(["Tell me what part 0123 of Acme is called."])[0].hits[0].id == 124
    assert max(scope.seen) <= 16


def test_a_prompt_that_names_every_subject_fires_one_edit_and_asks_little(
    remember: Callable[..., Router],
) -> None:
    scope = Counted()
    names = [f"Acme{letter}{other}" for letter in "bcdfghjkl" for other in "bcdfghjkl"]
    edits = [Edit(f"Who runs {name}?", f"Boss of {name}", subject=name) for name in names]
    edits += [Edit(f"Who is the {n}th boss?", "Dana") for n in range(9)]  # without a subject
    (route,) = remember(edits, scope).route([" ".join(edit.prompt for edit in edits)])
    assert len(route.hits) == 1
    assert len(route.near) <= 5
    assert len(scope.seen) <= 9


def test_a_very_long_prompt_is_asked_about_its_subject_wherever_that_stands(
    remember: Callable[..., Router],
) -> None:
    router = remember([Edit("Who runs Acme?", "Dana", subject="Acme")])
    noise = "Nothing to see here at all. " * 1_000
    for prompt in (f"{noise}Who runs Acme?", f"Who runs Acme? {noise}", f"{noise}Who runs it?"):
        assert bool(router.route([prompt])[0].hits) is ("Acme" in prompt)


@pytest.mark.parametrize(
    ("prompt", "subject", "other"),
    [
        ("谁管理东京?", "东京", "谁管理京都?"),
        ("من يدير شركة النور؟", "شركة النور", "من يدير شركة الشمس؟"),
        ("Кто руководит Ромашкой?", "Ромашка", "Кто руководит Берёзкой?"),
        ("アクメの社長は誰ですか?", "アクメ", "ソニーの社長は誰ですか?"),
        ("아크메의 사장은 누구입니까?", "아크메", "소니의 사장은 누구입니까?"),
        ("एक्मे का प्रमुख कौन है?", "एक्मे", "सोनी का प्रमुख कौन है?"),
    ],
)
def test_in_any_script_an_edit_fires_for_its_subject_alone(
    remember: Callable[..., Router], prompt: str, subject: str, other: str
) -> None:
    router = remember([Edit(prompt, "Dana", subject=subject)])
    own, foreign = router.route([prompt, other])
    assert [hit.edit.target for hit in own.hits] == ["Dana"]
    assert (foreign.hits, foreign.near) == ((), ())


@pytest.mark.parametrize(
    ("subject", "question"),
    [
        ("it", "Is it raining?"),
        ("It", "When was it built?"),
        ("the president", "Who is the president of France?"),
        ("The Who", "Who are they?"),
    ],
)
def test_a_subject_that_is_a_common_word_is_not_meant_by_that_word(
    remember: Callable[..., Router], subject: str, question: str
) -> None:
    router = remember([Edit(f"Who runs {subject}?", "Dana", subject=subject)], Counted())
    assert router.route([question])[0].hits == ()


# --- in step with the journal -------------------------------------------------------------------


def test_a_router_of_the_past_knows_what_was_live_then(model: EditableModel) -> None:
    model.edit("Who runs Acme?", "Dana")
    then = model.epoch
    before = model.explain("Who runs Acme?")
    model.edit("Who runs Acme?", "Kim")
    model.undo(2)
    model.undo(1)
    assert built_anew(model, then).route(["Who runs Acme?"]) == [before]
    assert built_anew(model, 0).route(["Who runs Acme?"])[0].hits == ()


def test_a_sync_that_fails_half_way_changes_nothing_and_the_next_one_catches_up(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.edit("Who runs Acme?", "Dana")
    s = model._session
    behind = Router.build(s.journal, s.encoder, s.scope)
    model.undo(1)
    model.edit("Who runs Globex?", "Zed")
    for step in ("history", "made", "get_many", "vectors"):
        with monkeypatch.context() as broken:
            broken.setattr(Journal, step, _locked)
            with pytest.raises(StoreLocked):
                behind.sync(s.journal)
        assert behind.epoch == 1
        assert [hit.id for hit in behind.route(["Who runs Acme?"])[0].hits] == [1]
        assert behind.route(["Who runs Globex?"])[0].hits == ()
    behind.sync(s.journal)
    assert behind.epoch == s.journal.epoch
    assert behind.route(QUESTIONS) == s.router.route(QUESTIONS)


def _locked(*_: object, **__: object) -> None:
    raise StoreLocked("held by a test")


def test_syncing_with_nothing_new_changes_nothing(model: EditableModel) -> None:
    model.edit("Who runs Acme?", "Dana")
    router, epoch = router_of(model), model.epoch
    router.sync(model._session.journal)
    assert (router.epoch, len(router)) == (epoch, 1)


def test_words_taught_again_are_not_their_first_facts(model: EditableModel) -> None:
    model.edit("Tell me who runs Acme.", "Dana", relation="ceo")
    model.edit("Tell me who runs Acme.", "Kim")
    assert [edit.status for edit in model.list()] == ["superseded", "live"]
    model.edit("Where is Acme?", "Zed", relation="ceo")
    assert fired(model, "Tell me who runs Acme.") == ["Kim"]
    assert fired(model, "Where is Acme?") == ["Zed"]


class RouterMachine(RuleBasedStateMachine):
    """Edit, undo, redo and reopen at will: the router in use equals one built from the journal."""

    make: Callable[[Path], EditableModel]

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "lifelong.db"
        self.model = type(self).make(self.path)

    @rule(
        prompt=st.sampled_from(QUESTIONS),
        answer=st.sampled_from(["Dana", "Kim", "Zed"]),
        subject=st.sampled_from([None, "Acme", "Globex"]),
        relation=st.sampled_from([None, "ceo"]),
    )
    def edit(self, prompt: str, answer: str, subject: str | None, relation: str | None) -> None:
        try:
            self.model.edit(prompt, answer, subject=subject, relation=relation)
        except AlreadyTaught:
            return
        assert fired(self.model, prompt) == [answer]

    @rule(prompts=st.lists(st.sampled_from(QUESTIONS), unique=True, min_size=2, max_size=3))
    def edit_many(self, prompts: list[str]) -> None:
        target = f"Answer {self.model.epoch}"
        self.model.edit_many([{"prompt": prompt, "target": target} for prompt in prompts])

    @precondition(lambda self: self.standing(True))
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        self.model.undo(data.draw(st.sampled_from(self.standing(True))))

    @precondition(lambda self: self.standing(False))
    @rule(data=st.data())
    def redo(self, data: st.DataObject) -> None:
        self.model.redo(data.draw(st.sampled_from(self.standing(False))))

    @rule()
    def reopen(self) -> None:
        before = router_of(self.model).route(QUESTIONS)
        self.model.close()
        self.model = type(self).make(self.path)
        assert router_of(self.model).route(QUESTIONS) == before

    def standing(self, wanted: bool) -> list[int]:
        return [
            edit.id
            for edit in self.model.list()
            if (edit.status in ("live", "superseded")) is wanted
        ]

    @invariant()
    def it_equals_a_rebuild(self) -> None:
        used, anew = router_of(self.model), built_anew(self.model)
        live = [edit.id for edit in self.model.list("live")]
        assert used.epoch == anew.epoch == self.model.epoch
        assert used.route(QUESTIONS) == anew.route(QUESTIONS)
        assert used._index.ids() == anew._index.ids() == live
        if live:
            assert np.array_equal(used._index.vectors(live), anew._index.vectors(live))
        for edit in self.model.list("live"):
            assert fired(self.model, edit.prompt) == [edit.target]

    def teardown(self) -> None:
        EditableModel.close(self.model)
        self.folder.cleanup()


@pytest.mark.parametrize(("in_memory", "examples"), [(kept.MOST, 15), (1, 5)])
def test_any_sequence_of_edit_undo_redo_reopen_equals_a_rebuild(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, in_memory: int, examples: int
) -> None:
    monkeypatch.setattr(kept, "MOST", in_memory)

    class Machine(RouterMachine):
        make = staticmethod(lambda path: make_model(store=path))

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=examples, stateful_step_count=12, deadline=None)
    )


def test_what_is_read_later_is_as_of_the_routers_epoch(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.edit("Who runs Acme?", "Dana")
    before = model.explain("Who runs Acme?")
    monkeypatch.setattr(kept, "MOST", 0)
    then = built_anew(model)
    model.promote(1, "tenant")
    model.undo(1)
    assert then.route(["Who runs Acme?"]) == [before]
    assert then.standing.rivals(Edit("Who runs Acme?", "Kim")) == [before.hits[0].edit]


def test_the_words_of_a_superseded_edit_are_those_of_its_successor(model: EditableModel) -> None:
    model.edit("Opens when, Acme?", "Six", subject="Acme", relation="opening time")
    later = model.edit(
        "How early may one ring Acme?", "Nine", subject="Acme", relation="opening time"
    )
    assert [hit.id for hit in model.explain("Opens when, Acme?").hits] == [later.id]
    model.undo(later.id)
    assert [hit.id for hit in model.explain("Opens when, Acme?").hits] == [1]


def test_what_is_so_is_no_answer_to_what_is_not_so(model: EditableModel) -> None:
    runs = model.edit("Acme is led by", "Jane", subject="Acme")
    never = model.edit("Acme was never led by", "John", subject="Acme")
    for asked, edit in [
        ("Acme is led by", runs),
        ("Isn't Acme led by Jane?", runs),
        ("Acme was never led by", never),
        ("Acme has never been led by", never),
    ]:
        assert [hit.id for hit in model.explain(asked).hits] == [edit.id]
    model.undo(never.id)
    assert not model.explain("Acme was never led by").hits


@pytest.mark.parametrize(
    ("prompt", "fires"),
    [
        ("Who runs Acme Corolla?", True),
        ("Who runs Acme Corolla 2019?", True),
        ("Who runs Acme Corolla HQ?", True),
        ("WHO RUNS ACME COROLLA SPACIO?", True),  # as all are large, none tells a name
        ("Who runs Acme Corolla Spacio?", False),
        ("Who runs Acme Corolla 2?", False),
        ("Who runs Acme Corolla IV today?", False),
    ],
)
def test_a_longer_name_is_somebody_elses(
    remember: Callable[..., Router], prompt: str, fires: bool
) -> None:
    edit = Edit("Who runs Acme Corolla?", "Jane Roe", subject="Acme Corolla")
    router = remember([edit], Counted())
    (route,) = router.route([prompt])
    assert bool(route.hits) == fires
