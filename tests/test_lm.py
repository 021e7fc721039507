"""Layouts checked against what each twin computes; chat frames against templates of five kinds."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lifelong.errors import MessagesRefused, NoChatTemplate, UnsupportedModel
from lifelong.lm import LAYOUTS, LM, OPTIONS, ChatFrame, Message, Role, control_tokens

MakeLM = Callable[..., LM]
MakeTokenizer = Callable[..., PreTrainedTokenizerFast]
Flow = dict[str, torch.Tensor]  # "mlp_out in", "mlp_out out", ... at one layer


# --- layouts ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def flow(every_lm: LM) -> Flow:
    """What goes in and out of each role at layer 1, for one prompt."""
    seen: Flow = {}

    def keep(role: str) -> Callable[[torch.nn.Module, tuple[Any, ...], Any], None]:
        def hook(_: torch.nn.Module, args: tuple[Any, ...], out: Any) -> None:
            seen[f"{role} in"] = args[0]
            seen[f"{role} out"] = out[0] if isinstance(out, tuple) else out

        return hook

    layout = every_lm.layout
    assert layout is not None
    roles = [role for role in get_args(Role) if getattr(layout, role) is not None]
    hooks = [every_lm.module(r, 1).register_forward_hook(keep(r)) for r in roles]
    with torch.inference_mode():
        ids = every_lm.tokenizer("Who was it?", return_tensors="pt").input_ids
        seen["logits"] = every_lm.model(ids).logits
        seen["ids"] = ids
    for hook in hooks:
        hook.remove()
    return seen


def test_the_mlp_ends_in_mlp_out(flow: Flow) -> None:
    assert torch.equal(flow["mlp out"], flow["mlp_out out"])
    assert torch.equal(flow["mlp in"], flow["mlp_in in"])
    assert flow["mlp_in out"].shape == flow["mlp_out in"].shape


def test_a_gate_reads_what_mlp_in_reads(flow: Flow, every_lm: LM) -> None:
    if "mlp_gate in" in flow:
        assert torch.equal(flow["mlp_gate in"], flow["mlp_in in"])
    else:
        with pytest.raises(UnsupportedModel, match="mlp_gate"):
            every_lm.module("mlp_gate", 0)


def test_the_residual_stream_adds_up_unless_the_mlp_is_normed(flow: Flow, every_lm: LM) -> None:
    added = flow["block in"] + flow["attn_out out"] + flow["mlp_out out"]
    assert every_lm.layout is not None
    assert torch.allclose(added, flow["block out"], atol=1e-4) == (every_lm.layout.mlp_norm is None)


def test_the_ends_of_the_model_are_where_the_layout_says(flow: Flow) -> None:
    assert torch.equal(flow["embed in"], flow["ids"])
    assert torch.equal(flow["final_norm out"], flow["lm_head in"])
    assert flow["lm_head out"].shape == flow["logits"].shape


def test_transposed_says_which_way_weights_lie(flow: Flow, every_lm: LM) -> None:
    weight = every_lm.module("mlp_in", 1).weight
    assert isinstance(weight, torch.Tensor)
    assert every_lm.layout is not None
    wide = weight.shape[1 if every_lm.layout.transposed else 0]
    assert wide == flow["mlp_in out"].shape[-1]


def test_paths_are_names_of_modules(every_lm: LM) -> None:
    names = dict(every_lm.model.named_modules())
    last = every_lm.layers - 1
    assert names[every_lm.path("mlp_out", last)] is every_lm.module("mlp_out", last)
    assert every_lm.hidden == 32


def test_every_layout_has_a_twin(make_lm: MakeLM) -> None:
    for kind in LAYOUTS:
        assert make_lm(kind).model.config.model_type == kind


@pytest.mark.parametrize("layer", [None, -1, 3])
def test_a_layer_that_is_not_there(lm: LM, layer: int | None) -> None:
    with pytest.raises(IndexError, match="0 to 2"):
        lm.module("mlp_out", layer)


def test_an_unknown_type_works_until_a_module_is_asked_for(make_lm: MakeLM) -> None:
    strange = make_lm("llama")
    strange.model.config.model_type = "strange"
    lm = LM.of(strange.model, strange.tokenizer)
    assert lm.layout is None
    assert lm.chat.render([{"role": "user", "content": "hi"}])
    with pytest.raises(UnsupportedModel, match=r"`strange`.*LAYOUTS"):
        lm.module("mlp_out", 0)


def test_an_lm_knows_its_model(make_lm: MakeLM) -> None:
    lm = make_lm("llama", dtype=torch.bfloat16)
    assert lm.dtype == torch.bfloat16
    assert lm.device == torch.device("cpu")
    assert lm.fingerprint == lm.fingerprint == make_lm("llama", dtype=torch.bfloat16).fingerprint


# --- chat ---------------------------------------------------------------------------------------

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
    " + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = CHATML.removesuffix("{% endif %}") + (
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
DATED = LLAMA3.replace(
    "<|begin_of_text|>",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Today: {{ strftime_now('%d %b %Y') }}<|eot_id|>",
)
ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
)
GEMMA = (
    "<bos>" + ALTERNATE + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "<s>" + ALTERNATE + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
TEMPLATES = {
    "smollm2": SMOLLM2,
    "chatml": CHATML,
    "qwen3": QWEN3,
    "llama3": LLAMA3,
    "dated": DATED,
    "gemma": GEMMA,
    "mistral": MISTRAL,
}
TAKES_SYSTEM = {"smollm2", "chatml", "qwen3", "llama3", "dated"}
TRIMS = {"llama3", "dated", "gemma"}


@pytest.fixture(scope="module")
def frames(make_tokenizer: MakeTokenizer) -> dict[str, ChatFrame]:
    return {name: ChatFrame.learn(make_tokenizer(text)) for name, text in TEMPLATES.items()}


@st.composite
def conversations(draw: st.DrawFn) -> tuple[str, list[Message]]:
    """A template's name and a conversation that it can say."""
    name = draw(st.sampled_from(sorted(TEMPLATES)))
    # Marks of a template inside a content are refused elsewhere: they change what the text means.
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
        ["user", "a\n\nb", "\n", " ", "system\nYou", "[INST", "</s", "<|im_end|", "assistant\n"]
    )
    if name in TRIMS:
        texts = texts.map(str.strip)
    roles = ["user", "assistant"] * draw(st.integers(0, 3)) + ["user"]
    if name in TAKES_SYSTEM and draw(st.booleans()):
        roles = ["system", *roles]
    return name, [{"role": role, "content": draw(texts)} for role in roles]


@given(conversations())
def test_parse_undoes_render(
    frames: dict[str, ChatFrame], conversation: tuple[str, list[Message]]
) -> None:
    name, messages = conversation
    frame = frames[name]
    marks = control_tokens(frame.tokenizer)
    assume(not any(mark in m["content"] for mark in marks for m in messages))
    assert frame.parse(frame.render(messages)) == messages


@given(st.sampled_from(sorted(TEMPLATES)), st.lists(st.sampled_from(["<s>", "[INST] ", "a", "\n"])))
def test_parse_never_invents(frames: dict[str, ChatFrame], name: str, parts: list[str]) -> None:
    frame = frames[name]
    pieces = [*frame.opens.values(), *frame.joins.values(), *frame.ends]
    for text in ("".join(parts), frame.opens["user"] + "".join(parts) + pieces[-1]):
        found = frame.parse(text)
        assert found is None or text in [frame.render(found, **options) for options in OPTIONS]


@pytest.mark.parametrize("name", TEMPLATES)
def test_decoded_ids_are_read_back(frames: dict[str, ChatFrame], name: str) -> None:
    frame = frames[name]
    messages = [{"role": "user", "content": "Wer war Zoë? 漢字 😀"}]
    ids = frame.tokenizer.encode(frame.render(messages), add_special_tokens=False)
    assert frame.parse(frame.tokenizer.decode(ids, skip_special_tokens=False)) == messages


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "text", ["", "The capital of France is", "<|im_start|>", "user\nhi", "[INST] hi"]
)
def test_other_text_is_not_chat(frames: dict[str, ChatFrame], name: str, text: str) -> None:
    assert frames[name].parse(text) is None


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_begun_or_finished_answer_is_not_a_prompt(
    frames: dict[str, ChatFrame], name: str
) -> None:
    prompt = frames[name].render([{"role": "user", "content": "hi"}])
    assert frames[name].parse(prompt + "The answer") is None
    assert frames[name].parse(prompt[:-3]) is None


def test_two_user_turns_in_a_row(frames: dict[str, ChatFrame]) -> None:
    messages = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    assert frames["chatml"].parse(frames["chatml"].render(messages)) == messages


def test_thinking_switched_off_is_read_too(frames: dict[str, ChatFrame]) -> None:
    messages = [{"role": "user", "content": "hi"}]
    prompt = frames["qwen3"].render(messages, enable_thinking=False)
    assert prompt.endswith("</think>\n\n")
    assert frames["qwen3"].parse(prompt) == messages


def test_a_default_system_turn_is_not_the_users(frames: dict[str, ChatFrame]) -> None:
    messages = [{"role": "user", "content": "hi"}]
    prompt = frames["smollm2"].render(messages)
    assert "You are a helpful AI assistant" in prompt
    assert frames["smollm2"].parse(prompt) == messages


def test_the_next_day_is_read_too(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(DATED)
    today = ChatFrame.learn(tokenizer)
    prompt = today.render([{"role": "user", "content": "hi"}])
    opens = {role: text.replace("20", "19") for role, text in today.opens.items()}
    yesterday = ChatFrame(tokenizer, opens, today.joins, today.ends)
    assert yesterday.parse(prompt) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("name", ["gemma", "mistral"])
@pytest.mark.parametrize("roles", [["system", "user"], ["assistant"], ["user", "user"]])
def test_refused_messages_say_why(
    frames: dict[str, ChatFrame], name: str, roles: Sequence[str]
) -> None:
    with pytest.raises(MessagesRefused, match="must alternate"):
        frames[name].render([{"role": role, "content": "hi"} for role in roles])


def test_no_template_no_chat(make_lm: MakeLM) -> None:
    lm = make_lm("llama", template=None)
    assert not lm.has_chat
    assert lm.control_tokens == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    with pytest.raises(NoChatTemplate, match="raw prompt"):
        _ = lm.chat


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}{% endfor %}",  # nothing between turns
        "{{ messages[-1].role }}",  # contents not shown
        "{{ raise_exception('never') }}",
    ],
)
def test_a_template_without_visible_turns(template: str, make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(NoChatTemplate, match="cannot be told apart"):
        ChatFrame.learn(make_tokenizer(template))


def test_control_tokens_are_tokens_and_marks(make_tokenizer: MakeTokenizer) -> None:
    special = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    assert control_tokens(make_tokenizer(CHATML)) == special
    assert control_tokens(make_tokenizer(QWEN3)) == special | {"<think>", "</think>"}
    assert control_tokens(make_tokenizer(MISTRAL)) == special | {"<s>", "</s>", "[INST]", "[/INST]"}
    added = make_tokenizer("{% if tools %}<tool_call>{% endif %}" + CHATML)
    added.add_tokens(["<tool_call>", "<h1>", "\n\n"])
    assert control_tokens(added) == special | {"<tool_call>"}


@pytest.mark.real
def test_smollm2_chat_is_read_back(real_lm: LM) -> None:
    messages = [
        {"role": "user", "content": "Who was it?\n\n2 names."},
        {"role": "assistant", "content": "Ada."},
        {"role": "user", "content": "  And then? "},
    ]
    rendered = real_lm.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert real_lm.chat.parse(real_lm.tokenizer.decode(rendered["input_ids"])) == messages
    assert "<|im_end|>" in real_lm.control_tokens
    assert "<file_sep>" in real_lm.control_tokens
