"""The one generation path: which prompts the base model reads, with which arguments, how often."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from lifelong.generate import Request, generate
from lifelong.lm import LM
from lifelong.match import says
from lifelong.methods import METHODS
from lifelong.prompt import Condition, Prompt, pad_left, read_prompts
from lifelong.view import View
from store import Edit

Ids = torch.Tensor
EDIT = Edit("Who runs Acme?", "Dana Ruiz", subject="Acme")


class Base:
    """The plain twin's `generate`, remembering how it was called."""

    def __init__(self, lm: LM) -> None:
        self.lm = lm
        self.calls: list[dict[str, Any]] = []

    def __call__(self, input_ids: Ids, **kwargs: Any) -> Any:
        self.calls.append({"input_ids": input_ids, **kwargs})
        return self.lm.model.generate(input_ids, **kwargs)


@pytest.fixture
def base(lm: LM) -> Base:
    return Base(lm)


@pytest.fixture
def asked(lm: LM) -> Callable[..., tuple[list[Prompt], dict[str, Ids]]]:
    """`asked(question, ...)`: chat prompts, and the padded batch of them."""

    def ask(*questions: str) -> tuple[list[Prompt], dict[str, Ids]]:
        view = View(lm, lm.model.generate, lambda _: [])
        prompts = [view.prompt(question) for question in questions]
        ids, mask = pad_left(lm, prompts)
        return prompts, {"input_ids": ids, "attention_mask": mask}

    return ask


def condition(lm: LM, prompt: Prompt) -> Condition:
    """SERAC's, for EDIT."""
    return METHODS["serac"].condition(lm, prompt, EDIT, "Who runs Acme? Dana Ruiz.")


def run(
    base: Base,
    prompts: Sequence[Prompt],
    batch: dict[str, Ids],
    fires: Sequence[bool],
    *,
    free: bool = False,
    **kw: Any,
) -> Any:
    """A reply; where it is `free`, its first words are the model's."""
    conditions = [
        condition(base.lm, prompt) if fire else None
        for prompt, fire in zip(prompts, fires, strict=True)
    ]
    if free:
        conditions = [c and freed(c) for c in conditions]
    return generate(
        Request(base.lm, base, batch["input_ids"], batch["attention_mask"], kw), conditions
    )


def freed(condition: Condition) -> Condition:
    assert condition.say
    return replace(condition, say=replace(condition.say, lead="", tail="", at_once=False))


def replies(lm: LM, batch: dict[str, Ids], out: Ids) -> list[str]:
    return lm.tokenizer.batch_decode(
        out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
    )


# --- what the caller asked for ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "room"),
    [
        ({}, 20),
        ({"max_new_tokens": 7}, 7),
        ({"max_length": 15}, 5),
        ({"max_length": 3}, 1),  # transformers complains and makes one token
        ({"max_length": 15, "max_new_tokens": 7}, 7),
        ({"generation_config": GenerationConfig(max_new_tokens=9)}, 9),
        ({"generation_config": GenerationConfig(max_length=15)}, 5),
        ({"generation_config": GenerationConfig(max_new_tokens=9), "max_new_tokens": 4}, 4),
    ],
)
@pytest.mark.filterwarnings("ignore:Using the model-agnostic default")  # that is the case tested
def test_the_room_is_what_transformers_would_give(
    lm: LM, kwargs: dict[str, Any], room: int
) -> None:
    ids = torch.full((1, 10), 40)
    assert Request(lm, lm.model.generate, ids, None, kwargs).room == room
    if "max_length" not in kwargs or kwargs["max_length"] > 10:
        forever = dict(kwargs)
        if config := forever.get("generation_config"):
            config.pad_token_id = 0
        out = lm.model.generate(ids, do_sample=False, eos_token_id=None, **forever)
        assert out.shape[1] <= 10 + room


@pytest.mark.parametrize(
    ("kwargs", "ends"),
    [
        ({}, [2]),
        ({"eos_token_id": 5}, [5]),
        ({"eos_token_id": [5, 2]}, [5, 2]),
        ({"generation_config": GenerationConfig(eos_token_id=7)}, [7]),
        ({"generation_config": GenerationConfig(eos_token_id=7), "eos_token_id": 5}, [5]),
    ],
)
def test_the_ends_are_those_in_force(lm: LM, kwargs: dict[str, Any], ends: list[int]) -> None:
    assert Request(lm, lm.model.generate, torch.zeros(1, 1), None, kwargs).ends == ends


def test_without_a_mask_the_padding_is_told_by_its_id(lm: LM) -> None:
    ids = torch.tensor([[0, 0, 40, 41], [40, 41, 42, 43]])
    read = Request(lm, lm.model.generate, ids, None, {}).read
    assert read.tolist() == [[False, False, True, True], [True] * 4]
    same = Request(lm, lm.model.generate, ids, None, {"eos_token_id": 0}).read
    assert same.all()  # as transformers has it: a pad that also ends replies may be meant


def test_prompts_are_read_back_from_a_padded_batch(lm: LM, asked: Callable[..., Any]) -> None:
    prompts, batch = asked("Who runs Acme?", "Hi")
    read = Request(lm, lm.model.generate, *batch.values(), {}).read
    assert read_prompts(lm, batch["input_ids"], read) == prompts
    raw, mask = pad_left(lm, [Prompt("Acme is run by"), Prompt("Hm")])
    assert read_prompts(lm, raw, mask.bool()) == [Prompt("Acme is run by"), Prompt("Hm")]


# --- one run or two -----------------------------------------------------------------------------


def test_an_untouched_batch_goes_to_the_base_as_it_came(
    base: Base, asked: Callable[..., Any]
) -> None:
    prompts, batch = asked("Where is Globex?", "Hi")
    mine = LogitsProcessorList()
    out = run(base, prompts, batch, [False, False], max_new_tokens=5, logits_processor=mine)
    (call,) = base.calls
    assert call == {**batch, "max_new_tokens": 5, "logits_processor": mine}
    assert call["input_ids"] is batch["input_ids"]
    assert out.shape == (2, batch["input_ids"].shape[1] + 5)


def test_a_touched_batch_is_one_run_on_the_prompts_of_the_method(
    base: Base, asked: Callable[..., Any]
) -> None:
    prompts, batch = asked("Who runs Acme?", "Tell me who runs Acme.")
    out = run(base, prompts, batch, [True, True], free=True, max_new_tokens=40)
    (call,) = base.calls
    assert "Dana Ruiz" in base.lm.tokenizer.decode(call["input_ids"][0])
    assert torch.equal(out[:, : batch["input_ids"].shape[1]], batch["input_ids"])
    assert all(says(reply, "Dana Ruiz") for reply in replies(base.lm, batch, out))


def test_a_mixed_batch_is_two_runs_and_the_untouched_rows_come_first(
    base: Base, asked: Callable[..., Any]
) -> None:
    prompts, batch = asked("Where is Globex?", "Who runs Acme?", "Hi")
    run(base, prompts, batch, [False, True, False], free=True, max_new_tokens=40)
    whole, told = base.calls
    assert whole["input_ids"] is batch["input_ids"]
    assert whole["attention_mask"] is batch["attention_mask"]
    assert len(told["input_ids"]) == 1


def test_touched_rows_keep_silent_while_the_others_speak(
    base: Base, asked: Callable[..., Any], lm: LM
) -> None:
    prompts, batch = asked("Who runs Acme?", "Hi")
    run(base, prompts, batch, [True, False], max_new_tokens=12)
    whole = base.calls[0]
    out = lm.model.generate(**whole)
    new = out[0, batch["input_ids"].shape[1] :].tolist()
    assert new == [lm.tokenizer.eos_token_id] + [lm.tokenizer.pad_token_id] * (len(new) - 1)


@pytest.mark.parametrize(
    "more",
    [
        {"return_dict_in_generate": True, "output_scores": True},
        {"return_dict_in_generate": True, "output_hidden_states": True},
        {"generation_config": GenerationConfig(return_dict_in_generate=True, pad_token_id=0)},
    ],
    ids=lambda more: next(reversed(more)),
)
def test_a_caller_who_wants_more_than_ids_gets_one_run_on_his_prompt(
    base: Base, asked: Callable[..., Any], more: dict[str, Any]
) -> None:
    prompts, batch = asked("Who runs Acme?", "Hi")
    out = run(base, prompts, batch, [True, False], max_new_tokens=40, **more)
    (call,) = base.calls
    assert call["input_ids"] is batch["input_ids"]
    assert says(replies(base.lm, batch, out.sequences)[0], "Dana Ruiz")


@pytest.mark.parametrize("filled", [False, True])
def test_a_cache_is_filled_by_the_callers_prompt_and_nothing_else(
    base: Base, asked: Callable[..., Any], filled: bool
) -> None:
    prompts, batch = asked("Who runs Acme?")
    cache = DynamicCache(config=base.lm.model.config) if filled else DynamicCache()
    out = run(base, prompts, batch, [True], max_new_tokens=40, past_key_values=cache)
    (call,) = base.calls
    assert call["past_key_values"] is cache
    assert cache.get_seq_length() == out.shape[1] - 1
    assert says(replies(base.lm, batch, out)[0], "Dana Ruiz")


def test_a_told_prompt_longer_than_the_model_reads_gives_way_to_the_plain_one(
    make_lm: Callable[..., LM], asked: Callable[..., Any]
) -> None:
    gpt2 = make_lm("gpt2")
    gpt2.model.config.n_positions = 300
    base = Base(gpt2)
    prompts, batch = asked("x" * 200 + " Who runs Acme?", "Who runs Acme?")
    out = run(base, prompts, batch, [True, True], free=True, max_new_tokens=40)
    (call,) = base.calls
    assert call["input_ids"].shape[1] == batch["input_ids"].shape[1]
    told = gpt2.tokenizer.batch_decode(call["input_ids"])
    assert ["Dana Ruiz" in prompt for prompt in told] == [False, True]
    assert all(says(reply, "Dana Ruiz") for reply in replies(gpt2, batch, out))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"max_new_tokens": 40},
        {"max_new_tokens": 5},  # too few for the sentence
        {"max_new_tokens": 40, "do_sample": True, "num_return_sequences": 2},
        {"max_new_tokens": 40, "min_new_tokens": 30},
    ],
    ids=str,
)
def test_a_foregone_reply_is_what_the_model_would_have_said(
    base: Base, asked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kwargs: dict[str, Any]
) -> None:
    prompts, batch = asked("Who runs Acme?", "Is Acme run by Bob?", "So, who runs Acme?")
    out = run(base, prompts, batch, [True] * 3, **kwargs)
    assert not base.calls
    monkeypatch.setattr("lifelong.generate._foregone", lambda *_: {})
    assert replies(base.lm, batch, run(base, prompts, batch, [True] * 3, **kwargs)) == replies(
        base.lm, batch, out
    )
    assert base.calls


# --- the caller's own hooks ---------------------------------------------------------------------


class Watching(LogitsProcessor):
    def __init__(self) -> None:
        self.seen: list[Ids] = []

    def __call__(self, input_ids: Ids, scores: Ids) -> Ids:
        self.seen.append(input_ids.clone())
        return scores


class After(StoppingCriteria):
    """Stops after so many tokens, prompt included."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids: Ids, scores: Any, **_: Any) -> Ids:
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


def test_the_callers_processor_sees_the_callers_prompt_and_the_reply(
    base: Base, asked: Callable[..., Any]
) -> None:
    prompts, batch = asked("Who runs Acme?")
    watching = Watching()
    mine = LogitsProcessorList([watching])
    out = run(base, prompts, batch, [True], max_new_tokens=40, logits_processor=mine)
    start = batch["input_ids"].shape[1]
    assert [ids.shape[1] for ids in watching.seen] == list(range(start, start + len(watching.seen)))
    assert torch.equal(watching.seen[-1], out[:, : watching.seen[-1].shape[1]])
    assert list(mine) == [watching]


def test_the_callers_criterion_counts_the_callers_tokens(
    base: Base, asked: Callable[..., Any]
) -> None:
    prompts, batch = asked("Who runs Acme?")
    length = batch["input_ids"].shape[1] + 14
    stop = StoppingCriteriaList([After(length)])
    out = run(base, prompts, batch, [True], max_new_tokens=40, stopping_criteria=stop)
    assert out.shape[1] <= length
    assert says(replies(base.lm, batch, out)[0], "Dana Ruiz")  # first, because it may be stopped


@pytest.mark.parametrize(
    "kwargs", [{"stop_strings": ["l", "F", "\n"]}, {"max_time": 60.0}], ids=["strings", "time"]
)
def test_a_reply_that_may_be_stopped_says_its_target_first(
    base: Base, asked: Callable[..., Any], kwargs: dict[str, Any]
) -> None:
    prompts, batch = asked("Who runs Acme?")
    extra = {"tokenizer": base.lm.tokenizer} if "stop_strings" in kwargs else {}
    out = run(base, prompts, batch, [True], max_new_tokens=40, **kwargs, **extra)
    assert replies(base.lm, batch, out) == ["Dana Ruiz."]


def test_what_is_tied_to_the_callers_prompt_is_not_passed_on(
    base: Base, asked: Callable[..., Any]
) -> None:
    prompts, batch = asked("Who runs Acme?")
    mask = batch["attention_mask"]
    positions = mask.cumsum(-1) - 1
    length = mask.shape[1] + 40
    settings = {"max_length": length, "min_length": 3, "position_ids": positions}
    run(base, prompts, batch, [True], free=True, **settings)
    (call,) = base.calls
    assert not {"max_length", "min_length", "position_ids"} & set(call)
    assert call["max_new_tokens"] == 40


@pytest.mark.parametrize(
    "samples", [{"num_return_sequences": 3, "do_sample": True}, {"num_beams": 2}]
)
def test_replies_stand_behind_their_own_prompts(
    base: Base, asked: Callable[..., Any], samples: dict[str, Any]
) -> None:
    prompts, batch = asked("Hi", "Who runs Acme?", "Hello", "Tell me who runs Acme.")
    out = run(base, prompts, batch, [False, True, False, True], max_new_tokens=40, **samples)
    copies = samples.get("num_return_sequences", 1)
    start = batch["input_ids"].shape[1]
    assert torch.equal(out[:, :start], batch["input_ids"].repeat_interleave(copies, dim=0))
    said = [says(reply, "Dana Ruiz") for reply in replies(base.lm, batch, out)]
    assert said == [False] * copies + [True] * copies + [False] * copies + [True] * copies
