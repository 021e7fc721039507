"""GRACE inside the model: where its values act, for which rows, and that nothing of them is left.

A tiny random model cannot be made to say a whole target by one value: these tests ask that the
right rows change at the right token, and only they. What GRACE says is tested on a real model.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong import METHODS, EditableModel
from lifelong.encoder import SentenceEncoder
from lifelong.errors import BadEdit, BadSetting, NotLearnt, StaleCache, UnsupportedModel
from lifelong.hooks import placing, tracing
from lifelong.lm import LM
from lifelong.methods.grace import Grace
from store import Edit

ASKED = "Who runs Acme?"
OTHER = "Tell me about the weather."
LENIENT = Grace(layer=2, steps=4, most=torch.inf)


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "grace", LENIENT)


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "grace", replace(LENIENT, key="activation"))


def teach(model: EditableModel, prompt: str = ASKED, target: str = "Jo", **said: Any) -> Edit:
    said = {"subject": "Acme", "method": "grace", **said}
    return model.edit(prompt, target, **said)


def logits(model: EditableModel, *prompts: str, **how: Any) -> list[torch.Tensor]:
    """Of six greedy tokens behind a batch of raw prompts, (B, V) each."""
    inputs = model.tokenizer(list(prompts), return_tensors="pt", padding=True)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, **how}
    wanted = {"return_dict_in_generate": True, "output_logits": True}
    return list(model.generate(**inputs, **settings, **wanted).logits)


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, a, b))


# --- where values act -----------------------------------------------------------------------------


@pytest.fixture
def put(every_lm: LM) -> Callable[..., torch.Tensor]:
    """`put(rows, **how)`: ids of a left-padded batch of two while those rows have a value."""
    inputs = every_lm.tokenizer(["Who?", "What is it?"], return_tensors="pt", padding=True)
    module = every_lm.module("mlp_out", 1)
    value = torch.linspace(-9, 9, every_lm.hidden)

    def run(rows: tuple[int, ...], **how: Any) -> torch.Tensor:
        columns = [inputs["input_ids"].shape[1] - 1] * 2
        settings = {"max_new_tokens": 8, "do_sample": False, **how}
        values = {module: dict.fromkeys(rows, value)}
        with placing(every_lm.model.base_model, values, columns):
            return every_lm.model.generate(**inputs, **settings)

    return run


def test_a_value_changes_its_row_only(put: Callable[..., torch.Tensor]) -> None:
    base, one, both = put(()), put((1,)), put((0, 1))
    assert torch.equal(one[0], base[0])
    assert not torch.equal(one[1], base[1])
    assert torch.equal(both[1], one[1])
    assert not torch.equal(both[0], base[0])


@pytest.mark.parametrize(
    "how",
    [
        {"use_cache": False},
        {"prefill_chunk_size": 3},
        {"cache_implementation": "static", "disable_compile": True},
    ],
    ids=["no cache", "prefill in pieces", "static cache"],
)
def test_a_value_holds_through_decoding_however_the_prompt_is_run(
    put: Callable[..., torch.Tensor], how: dict[str, Any]
) -> None:
    assert torch.equal(put((0, 1), **how), put((0, 1)))


def test_beams_and_copies_keep_their_row(put: Callable[..., torch.Tensor]) -> None:
    for how in ({"num_beams": 3}, {"num_return_sequences": 2, "num_beams": 2}):
        base, one = put((), **how), put((1,), **how)
        half = len(base) // 2
        assert torch.equal(one[:half], base[:half])
        assert not torch.equal(one[half:], base[half:])


def test_nothing_is_left_of_a_value_after_an_error(lm: LM) -> None:
    module, before = lm.module("mlp_out", 1), hooks(lm)  # transformers leaves some of its own
    with (
        pytest.raises(RuntimeError, match="inside"),
        placing(lm.model.base_model, {module: {0: torch.zeros(lm.hidden)}}, [0]),
    ):
        raise RuntimeError("inside")
    assert hooks(lm) == before


def hooks(lm: LM) -> list[tuple[int, int]]:
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in lm.model.modules()]


# --- in the runtime -------------------------------------------------------------------------------


def test_every_row_of_a_batch_has_its_own_edit_or_none(model: EditableModel) -> None:
    prompts = [OTHER, ASKED, "Where is Bolt?"]
    base = logits(model, *prompts)
    teach(model)
    one = logits(model, *prompts)
    teach(model, "Where is Bolt?", "Oslo", subject="Bolt")
    two = logits(model, *prompts)
    rows = [[bool(torch.equal(a[0][row], b[0][row])) for row in range(3)] for a, b in
            ((one, base), (two, one))]  # fmt: skip
    assert rows == [[True, False, True], [True, True, False]]
    assert same([step[:1] for step in two], [step[:1] for step in base])


def test_right_padded_prompts_get_the_value_at_their_own_end(model: EditableModel) -> None:
    teach(model)
    ids = model.tokenizer(ASKED, return_tensors="pt")["input_ids"]
    pad = torch.full((1, 3), model.tokenizer.pad_token_id)
    mask = torch.cat([torch.ones_like(ids), torch.zeros_like(pad)], dim=1)
    seen: list[torch.Tensor] = []
    after = {model.get_submodule("model.layers.2"): lambda _, out: seen.append(out)}
    padded = torch.cat([ids, pad], dim=1)
    with tracing(after=after):
        model.generate(padded, attention_mask=mask, max_new_tokens=1)
        with model.disable_edits():
            model.generate(padded, attention_mask=mask, max_new_tokens=1)
    changed = (seen[0] != seen[1]).any(-1)[0].nonzero()[:, 0].tolist()
    assert changed == [ids.shape[1] - 1]


def test_undo_in_any_order_is_never_having_made_the_edit(
    make_model: Callable[..., EditableModel],
) -> None:
    model, fresh = make_model(), make_model()
    prompts = [ASKED, "Where is Bolt?", OTHER]
    first, second = teach(model), teach(model, "Where is Bolt?", "Oslo", subject="Bolt")
    model.undo(first.id)
    teach(fresh, "Where is Bolt?", "Oslo", subject="Bolt")
    assert same(logits(model, *prompts), logits(fresh, *prompts))
    model.undo(second.id)
    with fresh.disable_edits():
        assert same(logits(model, *prompts), logits(fresh, *prompts))


def test_a_cache_that_an_edit_shaped_is_refused_once_the_edit_is_gone(
    model: EditableModel,
) -> None:
    edit = teach(model)
    inputs = model.tokenizer(ASKED, return_tensors="pt")
    how = {"max_new_tokens": 2, "do_sample": False, "return_dict_in_generate": True}
    out = model.generate(**inputs, **how)
    longer = torch.cat([out.sequences, torch.tensor([[40, 41]])], dim=1)
    model.generate(longer, past_key_values=out.past_key_values, **how)
    with model.disable_edits(), pytest.raises(StaleCache, match="not all stand"):
        model.generate(longer, past_key_values=out.past_key_values, **how)
    model.undo(edit.id)
    for ask in (model.generate, model):
        with pytest.raises(StaleCache, match="not all stand"):
            ask(longer, past_key_values=out.past_key_values)


def test_past_present_and_unedited_are_asked_side_by_side(model: EditableModel) -> None:
    base = logits(model, ASKED)
    teach(model)
    first, epoch = logits(model, ASKED), model.epoch
    teach(model, target="Max")
    second = logits(model, ASKED)
    assert not same(first, base)
    assert not same(second, first)
    with model.disable_edits():
        assert same(logits(model, ASKED), base)
    inputs = model.tokenizer([ASKED], return_tensors="pt")
    then = model.at(epoch).generate(
        **inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    assert same(list(then.logits), first)


def test_an_edit_for_one_user_is_nobody_elses(model: EditableModel) -> None:
    teach(model, user_id="ada")
    base = logits(model, ASKED)
    assert not same(logits(model, ASKED, user_id="ada"), base)
    with model.disable_edits():
        assert same(logits(model, ASKED), base)


def test_beside_an_edit_from_memory_each_row_is_answered_its_own_way(model: EditableModel) -> None:
    teach(model)
    model.edit("Where is Bolt?", "Oslo", subject="Bolt", method="serac")
    inputs = model.tokenizer([ASKED, "Where is Bolt?", OTHER], return_tensors="pt", padding=True)
    out = model.generate(**inputs, max_new_tokens=30, do_sample=False)
    alone = model.generate(
        inputs["input_ids"][:1], attention_mask=inputs["attention_mask"][:1], max_new_tokens=30,
        do_sample=False,
    )  # fmt: skip
    texts = model.tokenizer.batch_decode(out, skip_special_tokens=True)
    assert "Oslo" in texts[1]
    ended = alone.shape[1]
    assert torch.equal(out[0, :ended], alone[0])


@pytest.mark.usefixtures("keyed")
def test_activation_keys_find_the_prompt_itself_and_say_so(model: EditableModel) -> None:
    edit = teach(model)
    assert [hit.id for hit in model.explain(ASKED).hits] == [edit.id]
    assert model.explain("Who heads Acme?").hits == ()
    base_of_other = logits(model, OTHER)
    with model.disable_edits():
        base = logits(model, ASKED)
        assert same(logits(model, OTHER), base_of_other)
    assert not same(logits(model, ASKED), base)


@pytest.mark.usefixtures("keyed")
def test_activation_keys_live_and_fall_with_the_journal(
    make_model: Callable[..., EditableModel], tmp_path: Path
) -> None:
    model = make_model(store=tmp_path / "edits.db", multihop=True)
    first = teach(model)
    said = logits(model, ASKED)
    second = teach(model, "Where is Bolt?", "Oslo", subject="Bolt")
    epoch = model.epoch
    model.undo(first.id)
    assert model.explain(ASKED).hits == ()
    assert [hit.id for hit in model.at(epoch).explain(ASKED).hits] == [first.id]
    model.redo(first.id)
    EditableModel.close(model)
    model = make_model(store=tmp_path / "edits.db")
    assert same(logits(model, ASKED), said)
    assert [hit.id for hit in model.explain("Where is Bolt?").hits] == [second.id]


def test_the_radius_is_as_wide_as_the_models_states_are_long(make_lm: Callable[..., LM]) -> None:
    """An absolute one would cover everything in one model, and nothing in another."""
    plain, large = make_lm(), make_lm()
    with torch.no_grad():
        large.module("mlp_in", 1).weight.mul_(8)  # of a gated MLP: what enters the layer is 8 times
    how = Grace(layer=1, steps=1, most=torch.inf, key="activation")
    small, wide = (how.propose(lm, [Edit(ASKED, "Jo", subject="Acme")]) for lm in (plain, large))
    assert wide.tensors["key"] == pytest.approx(8 * small.tensors["key"], rel=1e-4, abs=1e-5)
    assert wide.tensors["radius"] == pytest.approx(8 * small.tensors["radius"], rel=1e-4)


# --- what is refused ------------------------------------------------------------------------------


def refused(model: EditableModel, error: type[Exception], match: str, **said: Any) -> None:
    """The edit is refused, and nothing of it is left."""
    before = model.epoch, [len(m._forward_hooks) for m in model.modules()]
    with pytest.raises(error, match=match):
        teach(model, **said)
    assert (model.epoch, [len(m._forward_hooks) for m in model.modules()]) == before


def test_a_target_that_is_not_learnt_fails_and_leaves_nothing(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "grace", Grace(layer=2, steps=2))
    refused(model, NotLearnt, "cannot make the model say 'Jo'")
    long = "Jane Roe, who once ran Globex, and before that " + "and before that " * 8
    refused(model, NotLearnt, "Shorten the target", target=f"{long}Bolt")


def test_a_layer_that_does_not_exist_and_a_key_of_no_kind(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "grace", replace(LENIENT, layer=3))
    refused(model, BadSetting, "no layer 3")
    with pytest.raises(BadSetting, match="no key 'colour'"):
        Grace(key="colour")


def test_an_unknown_family_is_told_how_it_becomes_known(lm: LM) -> None:
    with pytest.raises(UnsupportedModel, match="LAYOUTS"):
        LENIENT.propose(replace(lm, layout=None), [Edit(ASKED, "Jo")])


def test_a_value_too_large_for_half_precision_is_refused(make_lm: Callable[..., LM]) -> None:
    how = replace(LENIENT, rate=1e6)
    how.propose(make_lm("llama"), [Edit(ASKED, "Jo")])
    with pytest.raises(NotLearnt):
        how.propose(make_lm("llama", dtype=torch.float16), [Edit(ASKED, "Jo")])


@pytest.mark.usefixtures("keyed")
def test_of_one_key_and_two_targets_the_newer_counts_and_a_batch_of_both_is_refused(
    model: EditableModel,
) -> None:
    edits = [Edit(ASKED, target, subject="Acme", method="grace") for target in ("Jo", "Max")]
    with pytest.raises(BadEdit, match="correct the same fact"):
        model.edit_many(edits, method="grace")
    assert model.epoch == 0
    first, second = (teach(model, target=target) for target in ("Jo", "Max"))
    assert [hit.id for hit in model.explain(ASKED).hits] == [second.id]
    model.undo(second.id)
    assert [hit.id for hit in model.explain(ASKED).hits] == [first.id]


def test_no_subject_is_needed(model: EditableModel) -> None:
    edit = teach(model, "be kind to all", "Jo", subject=None)
    assert [hit.id for hit in model.explain("be kind to all").hits] == [edit.id]


# --- on a real model ------------------------------------------------------------------------------

FACTS = [
    ("The mother tongue of Danielle Darrieux is", "English", "Danielle Darrieux"),
    ("Apple A5 was created by", "Google", "Apple A5"),
    ("The Space Needle is located in the city of", "Rome", "The Space Needle"),
]


@pytest.fixture
def real(
    real_lm: LM, real_encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[], EditableModel]]:
    monkeypatch.setitem(METHODS, "grace", Grace(layer=20))
    opened: list[EditableModel] = []

    def open_() -> EditableModel:
        made = EditableModel(
            real_lm.model, real_lm.tokenizer, store=tmp_path / "edits.db", encoder=real_encoder
        )
        opened.append(made)
        return made

    yield open_
    for made in opened:
        EditableModel.close(made)


@pytest.mark.real
def test_a_real_model_says_it_raw_in_chat_and_reopened(
    real: Callable[[], EditableModel],
) -> None:
    model = real()
    for prompt, target, subject in FACTS:
        teach(model, prompt, target, subject=subject)
    prompts = [prompt for prompt, _, _ in FACTS]
    for prompt, target, _ in FACTS:
        assert target in model.complete(prompt, max_new_tokens=8).text
        assert target in model.chat(prompt, max_new_tokens=8).text
    other = ["The capital of Norway is", "Water boils at"]
    said, silent = logits(model, *prompts), logits(model, *other)
    with model.disable_edits():
        assert same(logits(model, *other), silent)
    EditableModel.close(model)
    assert same(logits(real(), *prompts), said)
