"""The evaluation harness: metrics against figures worked out by hand, runs on tiny models."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong.errors import BadRun, BadSetting, NoChatTemplate, OtherRun, OutUnusable
from lifelong.evaluate import metrics, run
from lifelong.evaluate.baselines import BASELINES, NoEdits
from lifelong.evaluate.config import Config
from lifelong.evaluate.eval import evaluate
from lifelong.evaluate.likelihood import perplexity, score, without
from lifelong.evaluate.protocol import PROTOCOLS, Reply, batches, replies
from lifelong.evaluate.raw import Row
from lifelong.evaluate.records import Probe
from lifelong.evaluate.run import Bench
from lifelong.evaluate.stream import SCORED, Item, asked, drawn, ranks, scored, standing
from lifelong.lm import LM
from store import Edit

TIMES = frozenset(
    "seconds seconds_per_edit seconds_per_answer peak_rss_mb peak_rss_over_base_mb "
    "bytes_per_edit prefill_ms token_ms".split()
)
RATES = (
    "accuracy accuracy_em generality neighbourhood bare_target frame_share reply_perplexity_ratio "
    "loc_disagreement scalability scalability_rel".split()
)
KEYS = frozenset(
    "method checkpoint batch locality retainability age_deciles perplexity_ratio".split()
) | TIMES - {"seconds"} | set(RATES)  # fmt: skip


def said(text: str, ids: tuple[int, ...] = (1,)) -> Reply:
    return Reply(text, ids, truncated=False)


def row(place: int, kind: Any = "own", reply: str | None = None, **more: Any) -> Row:
    defaults = {"accepted": ("Rome",), "old": ("Paris",), "subject": f"s{place}"}
    given = {**defaults, "prompt": f"{kind} {place}", "shape": str(place), **more}
    return Row(place=place, kind=kind, reply=None if reply is None else said(reply), **given)


# -- metrics -------------------------------------------------------------------------------------


def value(figure: Mapping[str, Any] | None) -> float | None:
    return None if figure is None else figure["value"]


def test_accuracy_is_contained_exact_and_unmixed() -> None:
    rows = [
        row(0, reply="It is Rome."),
        row(1, reply="Rome"),
        row(2, reply="Rome, not Paris"),  # mixed
        row(3, reply="Romeo"),
        row(4, reply="the Eternal City!", accepted=("Rome", "Eternal City")),
        row(5, reply="New Paris", accepted=("New Paris",)),  # the old one is a part of it
    ]
    found = metrics.quality(rows, chat=True)
    assert value(found["accuracy"]) == pytest.approx(4 / 6)
    assert value(found["accuracy_em"]) == pytest.approx(3 / 6)
    assert found["accuracy"]["n"] == 6
    assert value(found["bare_target"]) == value(found["accuracy_em"])


def test_an_old_answer_in_the_subjects_name_is_set_aside() -> None:
    rows = [
        row(0, reply="The Paris Star is in Rome.", subject="Paris Star"),
        row(1, reply="The Paris Star is in Rome, not Paris.", subject="Paris Star"),
        row(2, reply="The Paris Star is in Oslo.", subject="Paris Star"),
    ]
    found = metrics.quality(rows, chat=True)
    assert value(found["accuracy"]) == 0  # as defined: a mixed reply
    assert value(found["accuracy_subject_aside"]) == pytest.approx(1 / 3)


def test_generality_is_a_mean_of_edits_and_of_the_union() -> None:
    rows = [
        row(0, "paraphrase", "Rome", prompt="a"),
        row(0, "paraphrase", "Oslo", prompt="b"),
        row(0, "paraphrase", "Oslo", prompt="c"),
        row(1, "paraphrase", "Rome", prompt="d"),
        row(1, "paraphrase", "Rome", prompt="d"),  # the same prompt counts once in Eq. 9
    ]
    found = metrics.quality(rows, chat=True)
    assert value(found["generality"]) == pytest.approx((1 / 3 + 1) / 2)  # Eq. 8
    assert value(found["generality_micro"]) == pytest.approx(2 / 4)  # Eq. 9


def test_locality_is_agreement_and_disagreement_its_rest() -> None:
    rows = [
        row(0, "near", shape=""),  # the route is the base model's
        row(0, "near", "Oslo", base=said("oslo."), prompt="x"),
        row(0, "far", "Oslo", base=said("Bern"), prompt="y"),
        row(1, "same_subject", "A b", base=Reply("A c", (1, 2), truncated=False)),
    ]
    found = metrics.quality(rows, chat=True)
    local = {name: value(figure) for name, figure in found["locality"].items()}
    assert local["all"] == pytest.approx((2 / 3 + 0) / 2)
    assert (local["near"], local["far"], local["same_subject"]) == (1, 0, 0)
    assert local["first_token"] == 1
    assert local["token_ids"] == pytest.approx((1 + 0) / 2)
    assert value(found["loc_disagreement"]) == pytest.approx(1 - (2 / 3) / 2)  # Eq. 6
    assert value(found["loc_disagreement_micro"]) == pytest.approx(2 / 4)  # Eq. 7
    assert value(found["gate"]["false_fires"]) == pytest.approx(3 / 4)


def test_what_was_not_asked_is_undefined() -> None:
    found = metrics.quality([], chat=True)
    assert found["age_deciles"] is None
    assert set(found["locality"].values()) == set(found["gate"].values()) == {None}
    rates = {v for k, v in found.items() if k not in ("age_deciles", "locality", "gate")}
    assert rates == {None}
    assert metrics.seconds([]) is None
    assert metrics.ratio(None, 3.0) is None
    assert metrics.retainability([(1, 1.0)]) is None
    assert metrics.scalability([], [row(0, reply="Rome")]) is None


def test_retainability_and_what_it_hides() -> None:
    found = metrics.retainability([(1, 1.0), (10, 0.9), (101, 0.5)])
    assert found is not None
    assert found["value"] == pytest.approx((0.5 - 1.0) / 100)  # Eq. 10, telescoped
    assert (found["first"], found["now"], found["lost"]) == (1.0, 0.5, 0.5)


def test_scalability_compares_the_same_edits() -> None:
    alone = [row(0, reply="Rome"), row(1, reply="Rome"), row(2, reply="Oslo")]
    after = [row(0, reply="Rome"), row(1, reply="Oslo"), row(2, reply="Oslo"), row(3, reply="Rome")]
    assert value(metrics.scalability(alone, after)) == pytest.approx(2 / 3 - 1 / 3)  # Eq. 11
    assert value(metrics.scalability(alone, after, relative=True)) == pytest.approx(1 / 2)  # Eq. 12
    never = [row(0, reply="Oslo")]
    assert metrics.scalability(never, after, relative=True) is None


def test_age_deciles_show_what_the_mean_hides() -> None:
    rows = [row(place, reply="Oslo" if place < 2 else "Rome") for place in range(20)]
    ages = metrics.age_deciles(rows, [row(19, "paraphrase", "Oslo")])
    assert ages is not None
    assert [value(age["accuracy"]) for age in ages] == [0.0] + [1.0] * 9
    assert [value(age["generality"]) for age in ages] == [None] * 9 + [0.0]
    assert metrics.age_deciles(rows[:9], []) is None


def test_probes_have_columns_of_their_own() -> None:
    rows = [
        row(0, "prefixed", "Rome"),
        row(0, "negated", "not Rome"),
        row(1, "negated", "Oslo"),
        row(0, "residual", "Paris", accepted=("Paris",)),
        row(0, "alias", "Rome", old=()),
        row(0, "multihop", "Bern", old=(), accepted=("Italy",), prompt="x"),
        row(0, "multihop", "Italy", old=(), accepted=("Italy",), prompt="y"),
        row(0, "reversed", "s0", old=(), accepted=("s0",)),
        row(0, "generation", "Oslo"),
        row(0, "yes", "Yes, it is in Rome."),
        row(0, "no", "No, it is in Rome."),
        row(0, "no", "Yes, it is in Rome.", prompt="x"),
        row(1, "no", "No, it is not in Paris but in Rome."),
        row(0, "part", "It is in Rome. It is old."),
        row(1, "part", "It is old."),
    ]
    found = metrics.quality(rows, chat=True)
    assert value(found["yes_no"]) == pytest.approx((2 / 3 + 0) / 2)
    assert value(found["part"]) == pytest.approx(1 / 2)
    assert value(found["prefixed"]) == 1
    assert value(found["negation_failures"]) == pytest.approx(1 / 2)
    assert value(found["residual"]) == 1
    assert value(found["portability"]) == pytest.approx(2 / 3)
    assert value(found["multihop"]) == 1  # any wording
    assert (value(found["reversal"]), value(found["generation_prompts"])) == (1, 0)


def test_frames_are_replies_without_subject_and_target() -> None:
    rows = [row(place, reply=f"s{place} is in Rome") for place in range(3)]
    odd = [row(10 + n, reply=f"{'very ' * n}Rome") for n in range(6)]
    wrong = [row(30, reply="s30 is in Oslo")]
    found = metrics.frame_share([*rows, *odd, *wrong])
    assert value(found) == pytest.approx((3 + 4) / 9)  # the commonest, and four that occur once


def test_reply_perplexity_is_that_of_all_words_together() -> None:
    measured = {"nats": 4.0, "tokens": 2.0, "base_nats": 1.0, "base_tokens": 1.0}
    rows = [
        row(0, reply="Rome", measured=measured),
        row(1, reply="Rome", measured=measured | {"nats": 2.0}),
        row(2, reply="Rome", measured=measured | {"tokens": 0.0}),  # nothing but the target
    ]
    found = metrics.quality(rows, chat=True)["reply_perplexity_ratio"]
    assert value(found) == pytest.approx(2.718281828 ** (6 / 4 - 2 / 2))
    assert found["n"] == 2
    assert metrics.quality(rows, chat=False)["reply_perplexity_ratio"] is None


def test_intervals_resample_subjects() -> None:
    of_one_subject = metrics.rate([("s", 0.0), ("s", 1.0)] * 50)
    of_many = metrics.rate([(f"s{i}", float(i % 2)) for i in range(100)])
    assert of_one_subject == {"value": 0.5, "n": 100, "low": 0.5, "high": 0.5}
    assert of_many is not None
    assert 0.38 < of_many["low"] < 0.42 < 0.58 < of_many["high"] < 0.62
    assert of_many == metrics.rate([(f"s{i}", float(i % 2)) for i in range(100)])


# -- what is asked -------------------------------------------------------------------------------


def item(place: int, prompt: str = "", target: str = "Rome", **edit: Any) -> Item:
    made = Edit(prompt or f"Where is s{place}?", target, subject=f"s{place}", **edit)
    return Item(place, place + 1, made, (target,), (), ())


def test_of_several_targets_the_last_stands() -> None:
    items = [item(0), item(1), item(2, "where is S0", "Oslo")]
    assert [i.place for i in standing(items)] == [1, 2]


def test_a_large_checkpoint_scores_a_sample_of_every_age() -> None:
    items, ranked = [item(place) for place in range(3000)], ranks(3000, seed=0)
    chosen = scored(items, ranked)
    assert len(chosen) == SCORED
    assert [i.place for i in chosen] == sorted(i.place for i in chosen)
    assert sum(i.place < 300 for i in chosen) == 100
    assert chosen != scored(items, ranks(3000, seed=1))
    assert scored(items[:900], ranked) == items[:900]


def test_the_sample_stays_the_sample() -> None:
    items, ranked = [item(place) for place in range(100)], ranks(100, seed=3)
    early = {i.place for i in drawn(items[:50], ranked, 10)}
    late = {i.place for i in drawn(items, ranked, 10)}
    assert late & set(range(50)) <= early


def test_costly_probes_are_asked_about_the_sample_only() -> None:
    probes = tuple(Probe(kind, f"{kind}?") for kind in ("paraphrase", "near", "negated"))
    items = [replace(item(place), probes=probes) for place in range(2)]
    kinds = [(r.place, r.kind) for r in asked(items, {1}, gated=True)]
    first = [(0, "own"), (0, "paraphrase"), (0, "near")]
    assert kinds == [*first, (1, "own"), (1, "paraphrase"), (1, "near"), (1, "negated")]
    assert (0, "near") not in [(r.place, r.kind) for r in asked(items, {1}, gated=False)]


# -- asking --------------------------------------------------------------------------------------


def test_a_completion_ends_with_its_line_or_sentence() -> None:
    cut = PROTOCOLS["completion"].cut
    assert cut(" Rome. It is") == "Rome."
    assert cut("\nRome\nand") == "Rome"
    assert cut("St. Louis, U.S. soil, 3.5 km") == "St. Louis, U.S. soil, 3.5 km"
    assert cut("Really? Yes") == "Really?"
    assert PROTOCOLS["chat"].cut(" Rome. It is\n so ") == "Rome. It is\n so"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_replies_are_the_models_own_greedy_ones(lm: LM, name: str) -> None:
    protocol = PROTOCOLS[name]
    prompts = [protocol.prompt(lm, text) for text in ("Who?", "What is the chief of it?")]
    together = replies(lm, lm.model.generate, protocol, prompts)
    for prompt, reply in zip(prompts, together, strict=True):
        ids = torch.tensor([lm.tokenizer.encode(prompt.text)])
        out = lm.model.generate(ids, max_new_tokens=protocol.new_tokens, do_sample=False)
        new = out[0, ids.shape[1] :].tolist()
        assert reply.ids == tuple(new[: new.index(2)] if 2 in new else new)
        ended = 2 in new or protocol.cut(lm.tokenizer.decode(new)) != lm.tokenizer.decode(new)
        assert reply.truncated <= (not ended or name == "chat")
        assert len(reply.ids) <= protocol.new_tokens


def test_batches_are_alike_in_length_and_the_same_every_time(lm: LM) -> None:
    protocol = PROTOCOLS["completion"]
    prompts = {("x" * n, ""): protocol.prompt(lm, "x" * n) for n in range(1, 70)}
    made = list(batches(lm, protocol, prompts))
    lengths = [len(text) for batch in made for text, _ in batch]
    assert lengths == sorted(lengths)
    assert len(lengths) == len(prompts)
    assert made == list(batches(lm, protocol, dict(reversed(prompts.items()))))
    assert max(map(len, made)) <= 32


def test_likelihoods_are_the_models_own(lm: LM) -> None:
    prompt, said = (5, 6, 7), (8, 9)
    found = score(lm, prompt, said)
    with torch.inference_mode():
        logits = lm.model(torch.tensor([[*prompt, *said]])).logits[0].log_softmax(-1)
    expected = [-float(logits[2, 8]), -float(logits[3, 9])]
    assert list(found.nats) == pytest.approx(expected, abs=1e-4)
    assert found.first == (bool(logits[2].argmax() == 8), bool(logits[3].argmax() == 9))
    assert perplexity(lm, "", None) is None
    text = "some text"
    ids = tuple(lm.tokenizer.encode(text))
    nats = score(lm, ids[:1], ids[1:]).nats
    assert perplexity(lm, text, 20) == pytest.approx(exp(sum(nats) / len(nats)))


def test_target_tokens_are_left_out(lm: LM) -> None:
    ids = tuple(lm.tokenizer.encode("in Rome, yes"))
    kept = without(lm, ids, ["rome", "Oslo"])
    assert "".join(c for c, keep in zip("in Rome, yes", kept, strict=True) if keep) == "in , yes"


def test_baselines_put_facts_before_the_prompt(lm: LM, hash_encoder: Any) -> None:
    protocol = PROTOCOLS["chat"]
    base = NoEdits(lm, lm.model.generate, protocol)
    items = [item(0), item(1, "Who runs Acme?", "Jane"), item(2, "Who runs Acme?", "Eve")]
    rag, context = (BASELINES[name](base, hash_encoder) for name in ("rag", "context"))
    assert rag.shapes(["Who runs Acme?"]) == [""]  # nothing is known yet
    rag.at(items)
    context.at(items)
    assert rag.shapes(["Who runs Acme now?", "s0 is where?"]) == ["2", "0"]  # 1 is superseded
    assert context.shapes(["Who runs Acme?", "zzz"]) == ["2", ""]
    told = rag.prompt("Who runs Acme now?", "2").text
    assert "You know: Who runs Acme? Eve." in told
    assert told.index("Eve.") < told.index("Acme now?")
    assert base.prompt("Who?", "").text == protocol.prompt(lm, "Who?").text
    raw = BASELINES["rag"](NoEdits(lm, lm.model.generate, PROTOCOLS["completion"]), hash_encoder)
    raw.at(items)
    assert raw.prompt("Acme's chief is", "2").text == "Who runs Acme? Eve.\nAcme's chief is"


# -- a whole run ---------------------------------------------------------------------------------

NAMES = "Acme Bolt Cogs Dyne Echo Flux Gaia Hive Iris Jade Kite Lumo".split()


def records(number: int = 12) -> list[dict[str, Any]]:
    """One fact about each of so many companies, and at the end a second one about the first."""
    made = [
        {
            "prompt": f"Who is the chief of {name}?",
            "target": f"Jane {name}son",
            "subject": name,
            "old": "Bob",
            "paraphrases": [f"Tell me who is the chief of {name}."],
            "locality": [f"Where does {name} bake bread?", f"What is a {name.lower()[::-1]}?"],
        }
        for name in NAMES[:number]
    ]
    return [*made[:-1], {**made[0], "target": "Eve Stone"}]


@pytest.fixture(scope="module")
def go(
    tmp_path_factory: pytest.TempPathFactory, hash_encoder: Any, make_lm: Callable[..., LM]
) -> Callable[..., dict[str, Any]]:
    """`go(out, tell=, twin=, ...)`: a run on a tiny twin and a file of records."""
    folder = tmp_path_factory.mktemp("runs")
    file = folder / "records.jsonl"
    file.write_text("\n".join(map(json.dumps, records())))

    def measure(
        out: str,
        tell: Any = lambda *_: None,
        twin: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        small = {"checkpoints": (1, 12), "probes": 4, "scalability": 2}
        config = Config(file, folder / out, **small | options)
        bench = Bench(make_lm(**twin or {}), hash_encoder, hash_encoder, folder / "cache")
        return evaluate(config, tell, bench) | {"folder": config.out}

    return measure


WHOLE = {"baselines": ("none", "rag", "context"), "order": "shuffled", "seed": 2}


@pytest.fixture(scope="module")
def whole(go: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """One run with everything, for several tests."""
    return go("whole", **WHOLE)


def figures(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The results without times and memory."""
    return [{k: v for k, v in entry.items() if k not in TIMES} for entry in found["results"]]


def test_a_run_measures_method_and_baselines(whole: dict[str, Any]) -> None:
    assert [(e["method"], e["checkpoint"]) for e in whole["results"]] == [
        (name, step) for name in ("serac", "none", "rag", "context") for step in (1, 12)
    ]
    for entry in whole["results"]:
        assert entry.keys() >= KEYS
        assert entry["locality"].keys() >= {"all", "near", "far", "same_subject", "first_token"}
        for name in RATES:
            assert entry[name] is None or entry[name].keys() == {"value", "n", "low", "high"}
    first, last, *rest = whole["results"]
    assert (first["edits"], last["edits"], last["superseded"], last["refused"]) == (1, 12, 1, 0)
    assert last["accuracy"]["value"] == last["generality"]["value"] == 1
    assert last["accuracy"]["n"] == 11
    assert last["locality"]["all"]["value"] == 1
    assert last["proof"]["equal"] == last["proof"]["n"] > 0
    assert last["retainability"]["lost"] == 0
    assert last["scalability"] == {"value": 0, "n": 2, "low": 0, "high": 0}
    assert len(last["age_deciles"]) == 10
    assert last["bytes_per_edit"] > 0
    for name in ("prefill_ms", "token_ms"):
        assert first[name] is None
        assert last[name].keys() == {"value", "base", "n"}
    assert last["peak_rss_over_base_mb"] >= 0
    assert whole["run"]["restart_seconds"] > 0
    none = [entry for entry in rest if entry["method"] == "none"]
    assert [entry["accuracy"]["value"] for entry in none] == [0, 0]
    assert [entry["locality"]["all"]["value"] for entry in none] == [1, 1]
    assert none[0]["seconds_per_edit"] is none[0]["perplexity_ratio"] is None


def test_undo_is_proved(whole: dict[str, Any]) -> None:
    undo = whole["run"]["undo"]
    assert undo["weights"]
    assert undo["half"]["equal"] == undo["half"]["n"] == 11
    assert undo["all"]["equal"] == undo["all"]["n"] == 11
    assert undo["seconds"]["n"] == 12


def test_undo_of_weight_edits_is_a_fresh_build_of_the_same_store(
    go: Callable[..., dict[str, Any]],
) -> None:
    """Made anew without the half that is gone they would be others: they were made in its view."""
    options = {"method": "ultraedit", "protocol": "completion", "settings": {"rate": "0.01"}}
    undo = go("weights", edits=4, batch=2, checkpoints=(4,), scalability=0, **options)["run"][
        "undo"
    ]
    assert undo["weights"]
    assert undo["half"]["equal"] == undo["half"]["n"] == 4
    assert undo["all"]["equal"] == undo["all"]["n"] == 4


def test_the_folder_tells_it_all(whole: dict[str, Any]) -> None:
    out = whole["folder"]
    found = {k: v for k, v in whole.items() if k != "folder"}
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(found))
    assert found["run"]["seconds"].keys() >= {"edits", "routes", "answers of serac"}
    assert all(spent.keys() == {"wall", "cpu"} for spent in found["run"]["seconds"].values())
    report = (out / "report.md").read_text()
    for said in (
        "12 corrections",
        "the first token takes",
        "opening the store again",
        "plain RAG",
        "Eq. 10",
        "superseded by a later edit: 1",
    ):
        assert said in report
    for picture in ("by-edits.png", "by-age.png"):
        assert f"({picture})" in report
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_baselines_may_be_asked_about_a_sample(go: Callable[..., dict[str, Any]]) -> None:
    found = go("compared", baselines=("none",), compared=3)
    scored = {entry["method"]: entry["accuracy"]["n"] for entry in found["results"]}
    assert scored["none"] == 3 < scored["serac"]


class Interrupted(Exception):
    """As if by Ctrl-C."""


def test_an_interrupted_run_goes_on(
    go: Callable[..., dict[str, Any]], whole: dict[str, Any]
) -> None:
    """Wherever it was cut, once or often, its figures are those of a run in one piece."""
    for where in ("none, 12", "rag 12", "serac: edits", "serac 12", "made alone", "serac: undo"):

        def stop(what: str, done: int, of: int, where: str = where) -> None:
            if where in what and (done or where != "serac: edits"):
                raise Interrupted

        with pytest.raises(Interrupted):
            go("cut", stop, **WHOLE)
    for now, then in zip(figures(go("cut", **WHOLE)), figures(whole), strict=True):
        assert now == then


def test_a_finished_run_asks_nothing_again(
    go: Callable[..., dict[str, Any]], whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "replies", None)
    assert figures(go("whole", **WHOLE)) == figures(whole)


def test_no_reply_is_asked_for_twice(
    go: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[tuple[str, Any]] = []
    ask = run.replies

    def noted(lm: LM, generate: Any, protocol: Any, prompts: Any) -> list[Reply]:
        asked_for.extend((prompt.text, generate) for prompt in prompts)
        return ask(lm, generate, protocol, prompts)

    monkeypatch.setattr(run, "replies", noted)
    monkeypatch.setattr(run, "PROOFS", 0)
    few = {"edits": 4, "checkpoints": (1, 2, 3, 4), "baselines": ("none",)}
    twin = {"seed": 7}  # a model whose answers are not in the cache
    go("first", twin=twin, **few)
    bare = [text for text, generate in asked_for if not hasattr(generate, "__self__")]
    assert len(bare) == len(set(bare))
    first = len(asked_for)
    for name in NAMES[:4]:
        mine = [text for text, _ in asked_for if f"\nWho is the chief of {name}?<" in text]
        assert len(mine) == 2  # with the edit, and without
    go("again", twin=twin, **few)
    again = [text for text, _ in asked_for[first:]]
    assert len(again) == len(set(again)) < first / 2 + 1  # the base model's come from the cache


def test_another_run_in_the_same_folder_is_refused(
    go: Callable[..., dict[str, Any]], whole: dict[str, Any]
) -> None:
    with pytest.raises(OtherRun, match="batch, seed"):
        go("whole", **WHOLE | {"seed": 1, "batch": 2})


WRONG: list[dict[str, Any]] = [
    {"method": "magic"},
    {"protocol": "telepathy"},
    {"baselines": ("none", "some")},
    {"settings": {"speed": "1"}},
    {"settings": {"read": "perhaps"}},
    {"checkpoints": (0, 1)},
    {"checkpoints": (5, 2)},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_what_cannot_be_run_is_refused(
    go: Callable[..., dict[str, Any]], tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(BadSetting if "settings" in options else BadRun):
        go(str(tmp_path / "none"), **options)
    assert not (tmp_path / "none").exists()


def test_a_model_without_chat_is_asked_in_completions_only(
    go: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(NoChatTemplate):
        go("no-chat", twin={"template": None})
    options = {"protocol": "completion", "batch": 5, "perplexity": held_out(tmp_path)}
    found = go("raw", twin={"template": None}, **options)
    last = found["results"][-1]
    assert last["accuracy"]["value"] == 1
    assert last["bare_target"] is last["reply_perplexity_ratio"] is last["frame_share"] is None
    assert last["batch"] == 5
    assert last["perplexity_ratio"] == 1  # a memory method leaves `forward` alone


def held_out(folder: Path) -> Path:
    text = folder / "held-out.txt"
    text.write_text("Some text that was held out. " * 20)
    return text


def test_a_folder_that_cannot_be_written_is_refused(
    go: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "raw.db").write_bytes(b"no database at all" * 100)
    for folder in (tmp_path / "file/out", tmp_path):
        with pytest.raises(OutUnusable):
            go(str(folder))


def test_edits_are_so_many_records(go: Callable[..., dict[str, Any]]) -> None:
    [entry] = go("few", edits=5, checkpoints=())["results"]
    assert (entry["checkpoint"], entry["edits"], entry["age_deciles"]) == (5, 5, None)


def test_composed_questions_are_asked_without_and_with_facts(
    make_lm: Callable[..., LM], hash_encoder: Any, tmp_path: Path
) -> None:
    file = tmp_path / "mquake.jsonl"
    file.write_text("\n".join(map(json.dumps, composed_records())))
    config = Config(file, tmp_path / "out", scalability=0, multihop=True)
    bench = Bench(make_lm(), hash_encoder, hash_encoder, tmp_path / "cache")
    found = evaluate(config, lambda *_: None, bench)["run"]["composed"]
    assert found["facts"] == 1
    shares = {name: (t["all"]["right"], t["all"]["of"]) for name, t in found["tables"].items()}
    assert shares == {
        "multihop": (1, 2),
        "multihop_all_edited": (1, 1),
        "multihop_partly_edited": (0, 1),
        "multihop_with_facts": (2, 2),
        "hop_wise": (1, 2),
        "hop_wise_with_facts": (2, 2),
    }
    report = (config.out / "report.md").read_text()
    assert "| all, hops that are not edited given as facts | 100.0% of 2 | 100.0% of 2 |" in report


def composed_records() -> list[dict[str, Any]]:
    """Two cases of the form of MQuAKE: both hops edited, and the first only."""
    people = (
        ("Ellie Kemper", "Croatia", "Ana Horvat", True),
        ("Bo Lee", "Peru", "Dina Rey", False),
    )
    return [
        {
            "case_id": number,
            "requested_rewrite": [
                rewrite("The country of citizenship of {} is", person, country, "Norway"),
                *([rewrite("The one who leads {} is", country, leader, "Ivo Novak")] * all_edited),
            ],
            "questions": [
                f"Who leads the country of citizenship of {person}?",
                f"Who is the one who leads the country of citizenship of {person}?",
                f"The country of citizenship of {person} is led by whom?",
            ],
            "answer": "Kari Lund",
            "answer_alias": [],
            "new_answer": leader,
            "new_answer_alias": [],
            "single_hops": [
                hop("The country of citizenship of {} is", person, "Norway"),
                hop("The one who leads {} is", "Norway", "Kari Lund"),
            ],
            "new_single_hops": [
                hop("The country of citizenship of {} is", person, country),
                hop("The one who leads {} is", country, leader),
            ],
        }
        for number, (person, country, leader, all_edited) in enumerate(people, 1)
    ]


def rewrite(prompt: str, subject: str, new: str, old: str) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "relation_id": "P1",
        "target_new": {"str": new, "id": "Q1"},
        "target_true": {"str": old, "id": "Q2"},
        "subject": subject,
        "question": f"{prompt.format(subject)} what?",
    }


def hop(prompt: str, subject: str, answer: str) -> dict[str, Any]:
    said = prompt.format(subject)
    return {"question": f"{said} what?", "cloze": said, "answer": answer, "answer_alias": []}


def test_a_checkpoint_beyond_the_records_is_the_end_and_says_so(
    go: Callable[..., dict[str, Any]],
) -> None:
    found = go("beyond", edits=4, checkpoints=(4, 9))
    assert [(e["checkpoint"], e["edits"]) for e in found["results"]] == [(4, 4), (9, 4)]
    assert "checkpoint 9 stands for all 4 records" in found["run"]["data"]["account"]


def test_a_methods_options_reach_it(go: Callable[..., dict[str, Any]]) -> None:
    [held] = go("held", edits=3, checkpoints=())["results"]
    [free] = go("free", edits=3, checkpoints=(), settings={"held": "false"})["results"]
    assert held["accuracy"]["value"] == 1
    assert free["accuracy"]["value"] == 0  # random weights obey nothing that they merely read


@pytest.mark.real
def test_smollm2_keeps_its_edits(real_lm: LM, real_encoder: Any, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text("\n".join(map(json.dumps, records(3))))
    config = Config(file, tmp_path, probes=1, scalability=1, baselines=("none",))
    bench = Bench(real_lm, real_encoder, real_encoder, tmp_path)
    after, before = evaluate(config, lambda *_: None, bench)["results"]
    assert after["accuracy"]["value"] == 1
    assert before["accuracy"]["value"] == 0
    assert after["reply_perplexity_ratio"]["value"] > 0
    assert after["proof"]["equal"] == after["proof"]["n"]
