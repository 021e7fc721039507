"""A language model as the rest of the runtime sees it: model + tokenizer + layout + chat frame.

Architecture knowledge is data, here and nowhere else: `LAYOUTS` maps a model type to module paths,
and methods ask for `lm.module("mlp_out", layer)`. Prompt knowledge is learnt: `ChatFrame` renders a
few probe conversations through the tokenizer's own template and keeps the literal strings around
the turns, so that a decoded prompt can be read back.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from typing import Literal, Self, cast

import torch
from jinja2 import TemplateError
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lifelong.errors import MessagesRefused, NoChatTemplate, UnsupportedModel
from lifelong.models import fingerprint

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
Role = Literal[
    "block",
    "mlp",
    "mlp_gate",
    "mlp_in",
    "mlp_out",
    "mlp_norm",
    "attn_out",
    "final_norm",
    "lm_head",
    "embed",
]


@dataclass(frozen=True)
class Layout:
    """Module paths of one model type; `{}` stands for the layer."""

    block: str = "model.layers.{}"
    mlp: str = "model.layers.{}.mlp"
    mlp_gate: str | None = "model.layers.{}.mlp.gate_proj"
    mlp_in: str = "model.layers.{}.mlp.up_proj"
    mlp_out: str = "model.layers.{}.mlp.down_proj"
    mlp_norm: str | None = None  # norms what the MLP writes before it joins the residual stream
    attn_out: str = "model.layers.{}.self_attn.o_proj"
    final_norm: str = "model.norm"
    lm_head: str = "lm_head"
    embed: str = "model.embed_tokens"
    transposed: bool = False  # weights are (in, out), as in transformers' Conv1D


LLAMA = Layout()
GEMMA = Layout(mlp_norm="model.layers.{}.post_feedforward_layernorm")
LAYOUTS: Mapping[str, Layout] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "phi": replace(
        LLAMA,
        mlp_gate=None,
        mlp_in="model.layers.{}.mlp.fc1",
        mlp_out="model.layers.{}.mlp.fc2",
        attn_out="model.layers.{}.self_attn.dense",
        final_norm="model.final_layernorm",
    ),
    "gpt_neox": Layout(
        block="gpt_neox.layers.{}",
        mlp="gpt_neox.layers.{}.mlp",
        mlp_gate=None,
        mlp_in="gpt_neox.layers.{}.mlp.dense_h_to_4h",
        mlp_out="gpt_neox.layers.{}.mlp.dense_4h_to_h",
        attn_out="gpt_neox.layers.{}.attention.dense",
        final_norm="gpt_neox.final_layer_norm",
        embed="gpt_neox.embed_in",
    ),
    "gpt2": Layout(
        block="transformer.h.{}",
        mlp="transformer.h.{}.mlp",
        mlp_gate=None,
        mlp_in="transformer.h.{}.mlp.c_fc",
        mlp_out="transformer.h.{}.mlp.c_proj",
        attn_out="transformer.h.{}.attn.c_proj",
        final_norm="transformer.ln_f",
        embed="transformer.wte",
        transposed=True,
    ),
}


@dataclass(frozen=True, eq=False)
class LM:
    """Model, tokenizer and, where the model type is known, its layout (memory edits need none)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout | None

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Look the layout up by the model type; never fails."""
        return cls(model, tokenizer, LAYOUTS.get(model.config.model_type))

    @property
    def device(self) -> torch.device:
        """Where input ids go: the device of the input embedding."""
        weight = cast("torch.Tensor", self.model.get_input_embeddings().weight)
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.model.dtype

    @property
    def layers(self) -> int:
        """The number of transformer blocks."""
        return int(self.model.config.num_hidden_layers)

    @property
    def hidden(self) -> int:
        """The width of the residual stream."""
        return int(self.model.config.hidden_size)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of config and weights when first asked: ask before installing anything."""
        return fingerprint(self.model)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits (..., vocabulary) of normed final hidden states (..., hidden)."""
        logits: torch.Tensor = self.module("lm_head")(hidden)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @property
    def has_chat(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self.tokenizer.chat_template is not None

    @cached_property
    def chat(self) -> "ChatFrame":
        """The chat template, learnt on first use. Raises NoChatTemplate."""
        return ChatFrame.learn(self.tokenizer)

    @cached_property
    def control_tokens(self) -> frozenset[str]:
        """Literal strings that steer the model or its template; see `control_tokens`."""
        return control_tokens(self.tokenizer)

    def module(self, role: Role, layer: int | None = None) -> nn.Module:
        """The module that plays `role`, at `layer` where the role is per layer.

        Raises UnsupportedModel (no layout, or no such role in it), IndexError (no such layer).
        """
        return self.model.get_submodule(self.path(role, layer))

    def path(self, role: Role, layer: int | None = None) -> str:
        """The dotted name of `module(role, layer)`, as in `named_modules()`."""
        kind = self.model.config.model_type
        if self.layout is None:
            raise UnsupportedModel(
                f"Nothing is known about the modules of model type `{kind}`.",
                "Add its module paths to LAYOUTS in lifelong/lm.py, or use a memory method.",
            )
        template = cast("str | None", getattr(self.layout, role))
        if template is None:
            raise UnsupportedModel(
                f"Model type `{kind}` has no `{role}`.", "Use a method that does not need it."
            )
        if "{}" not in template:
            return template
        if layer is None or not 0 <= layer < self.layers:
            raise IndexError(
                f"`{role}` is per layer: give one of 0 to {self.layers - 1}, not {layer}."
            )
        return template.format(layer)


# --- chat ---------------------------------------------------------------------------------------

# Conversations that between them show every string a template puts around turns.
PROBES: tuple[tuple[str, ...], ...] = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("user", "user"),
)
# Ways a caller may render the same prompt; templates ignore options they do not know.
OPTIONS: tuple[Mapping[str, bool], ...] = ({}, {"enable_thinking": False})
MARK = re.compile(r"<[^<>\s]{1,64}>|<\uff5c[^<>]{1,64}\uff5c>|\[/?[A-Z][A-Z_]*\]")


@dataclass(frozen=True, eq=False)
class ChatFrame:
    """The strings a chat template puts before, between and after turns.

    `parse` undoes `render`: it accepts only a text that the template gives back for the messages
    found, so it never invents a conversation. Contents a template trims come back trimmed; a
    template that folds the system text into the first user turn gives both back as that turn.
    """

    tokenizer: PreTrainedTokenizerBase
    opens: Mapping[str, str]  # first role -> what precedes its content
    joins: Mapping[tuple[str, str], str]  # (role, next role) -> what stands between their contents
    ends: tuple[str, ...]  # what follows the last user content, per OPTIONS

    @classmethod
    def learn(cls, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Read the frame off the tokenizer's template. Raises NoChatTemplate."""
        if tokenizer.chat_template is None:
            raise NoChatTemplate(
                "This tokenizer has no chat template.",
                "Use the raw prompt, or set `tokenizer.chat_template`.",
            )
        opens: dict[str, str] = {}
        joins: dict[tuple[str, str], str] = {}
        ends: dict[str, None] = {}  # an ordered set
        for roles, pieces in _probe(tokenizer):
            opens.setdefault(roles[0], pieces[0])
            for pair, piece in zip(pairwise(roles), pieces[1:-1], strict=True):
                joins.setdefault(pair, piece)
            ends.setdefault(pieces[-1])
        if "user" not in opens or not all(joins.values()) or not all(ends):
            raise NoChatTemplate(
                "The turns of this tokenizer's chat template cannot be told apart.",
                "Use the raw prompt, or set a `tokenizer.chat_template` that marks its turns.",
            )
        return cls(tokenizer, opens, joins, tuple(ends))

    def render(self, messages: Sequence[Mapping[str, str]], **options: bool) -> str:
        """The prompt the model sees, up to where its answer begins. Raises MessagesRefused."""
        if not messages or not all(_is_message(message) for message in messages):
            raise MessagesRefused(
                f"These are no messages: {str(messages)[:80]}",
                'Give a list of {"role": ..., "content": ...}, both of them texts.',
            )
        try:
            return _render(self.tokenizer, messages, **options)
        except TemplateError as exc:
            raise MessagesRefused(
                f"The chat template does not accept these messages: {exc}",
                "Most want a system message or none, then user and assistant in turn, user last.",
            ) from exc

    def parse(self, text: str) -> list[Message] | None:
        """The messages of a decoded prompt, special tokens kept.

        None when it is not a rendered conversation that ends where an answer begins.
        """
        found = self._read(text)
        if found is None and "strftime_now" in str(self.tokenizer.chat_template):
            # The opening carries a date, and days pass.
            found = ChatFrame.learn(self.tokenizer)._read(text)
        return found

    def _read(self, text: str) -> list[Message] | None:
        opened = [(r, text[len(s) :]) for r, s in self.opens.items() if text.startswith(s)]
        for (role, rest), end in product(opened, self.ends):
            turns = self._split(role, rest, end)
            if turns is not None and self._gives(turns, text):
                return turns
        return None

    def _split(self, role: str, rest: str, end: str) -> list[Message] | None:
        """Cut the text into turns; only a user turn can be the last."""
        turns: list[Message] = []
        while True:
            at, after = self._cut(role, rest)
            last = len(rest) - len(end)
            if role == "user" and 0 <= last <= at and rest.endswith(end):
                return [*turns, {"role": role, "content": rest[:last]}]
            if after is None:
                return None
            turns.append({"role": role, "content": rest[:at]})
            role, rest = after, rest[at + len(self.joins[role, after]) :]

    def _cut(self, role: str, rest: str) -> tuple[int, str | None]:
        """Where the content ends and whose turn is next: the earliest join, then the longest."""
        cuts = [
            (at, -len(join), after)
            for (before, after), join in self.joins.items()
            if before == role and (at := rest.find(join)) >= 0
        ]
        return min(cuts)[::2] if cuts else (len(rest), None)

    def _gives(self, messages: Sequence[Message], text: str) -> bool:
        try:
            return any(_shown(self.tokenizer, messages, options) == text for options in OPTIONS)
        except TemplateError:
            return False


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Special tokens and the marks (`<...>`, `[...]`) that the chat template writes.

    An edit that held one of them could leave its turn.
    """
    added = tokenizer.added_tokens_decoder.values()
    template = str(tokenizer.chat_template or "")
    special = {str(token) for token in added if token.special} | set(tokenizer.all_special_tokens)
    declared = set(tokenizer.chat_control_tokens or ())
    named = {str(token) for token in added if MARK.fullmatch(str(token)) and str(token) in template}
    written = {
        mark for _, pieces in _probe(tokenizer) for piece in pieces for mark in MARK.findall(piece)
    }
    return frozenset(token for token in special | declared | named | written if token.strip())


def _probe(tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(roles, the n + 1 strings around their n contents) per probe that the template shows."""
    for roles in PROBES if tokenizer.chat_template is not None else ():
        contents = [f"Qq{'abcd'[i]}Zz" for i in range(len(roles))]
        messages = [
            {"role": role, "content": content}
            for role, content in zip(roles, contents, strict=True)
        ]
        for options in OPTIONS:
            try:
                text = _shown(tokenizer, messages, options)
            except TemplateError:
                continue
            match = re.fullmatch("(.*?)" + "(.*?)".join(contents) + "(.*)", text, re.DOTALL)
            if match:
                yield roles, list(match.groups())


def _is_message(message: object) -> bool:
    return isinstance(message, Mapping) and all(
        isinstance(message.get(key), str) for key in ("role", "content")
    )


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], **options: bool
) -> str:
    listed = [dict(message) for message in messages]
    apply = cast("Callable[..., str]", tokenizer.apply_chat_template)
    return apply(listed, tokenize=False, add_generation_prompt=True, **options)


def _shown(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], options: Mapping[str, bool]
) -> str:
    """The prompt as it reads after encoding and decoding.

    Some tokenizers normalise text or add a space on the way.
    """
    ids = tokenizer.encode(_render(tokenizer, messages, **options), add_special_tokens=False)
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
