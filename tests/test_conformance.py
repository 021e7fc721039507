"""One table for all methods: what every method keeps, whatever it does.

A new method is one row in TABLE.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from lifelong import METHODS, EditableModel
from lifelong.methods import MemoryMethod, WeightMethod
from lifelong.methods.calinet import Calinet
from lifelong.methods.grace import Grace
from lifelong.methods.t_patcher import TPatcher
from lifelong.prompt import Prompt, chat_prompt
from store import Edit, Patch, from_bytes

ASKED = "Who runs Acme?"
TARGET = "Jane Roe"
OTHER = "Tell me about the weather."


@dataclass(frozen=True)
class Row:
    """What a method promises where no edit is in scope (`bitwise`, or a stated bound later), and
    where one is: that its target is said, or only that the answer is another one. And
    what it is for: an edit as its users make one, a prompt of the same kind, and one of another."""

    method: str
    out_of_scope: str
    says: bool = True
    edit: tuple[str, str] = (ASKED, TARGET)
    kind: str = "And who runs Acme now?"
    other: str = "Who runs Globex?"


TABLE = [
    Row("serac", "bitwise"),
    Row("ike", "bitwise"),
    Row("kaft", "bitwise"),
    Row(
        "memprompt",
        "bitwise",
        says=False,
        edit=("what is like < good > ?", "by like I mean a synonym"),
        kind="what is like < fast > ?",
        other="what is unlike < fast > ?",
    ),
    Row(
        "language-patch",
        "bitwise",
        edit=('If the text says "rather fine"', "good"),
        kind="It was rather fine, they say. How was it?",
        other="It was rather dull, they say. How was it?",
    ),
    Row("grace", "bitwise", says=False),
]


@dataclass(frozen=True)
class Written:
    """A method that writes into the weights, which answer everything.

    `out_of_scope` bounds how far one edit moves what tiny random Llamas say next to other prompts,
    and `takes` is how much likelier the target is at least. Both are means over MODELS: how far
    one random model gives way is chance (MEMIT: from 0.02 to 1.4 nats in eight of them), and says
    little of a method. Both are at most twice as lax as what was measured;
    tests/benchmarks/memit.py measures on a real model.
    """

    method: str
    out_of_scope: float  # KL divergence in nats
    takes: float  # nats a token


MODELS = 4

WRITTEN = [
    Written("rome", 0.7, 0.73),
    Written("memit", 0.02, 0.24),
    Written("memit-csk", 0.02, 0.24),
    Written("pmet", 0.01, 0.12),
    Written("alphaedit", 0.1, 0.33),
    Written("ultraedit", 3e-6, 0.013),
    Written("ft-constrained", 0.18, 1.7),
    Written("knowledge-neurons", 3.8, 1.7),
    Written("t-patcher", 3.0, 2.7),
    Written("calinet", 3.3, 2.7),
    Written("idle-neurons", 1.0, 0.3),
]
FAMILIES = [
    "llama",
    "gpt2",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma2",
    "gemma3_text",
    "gpt_neox",
    "phi",
]

rows = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.method)
written = pytest.mark.parametrize("row", WRITTEN, ids=lambda row: row.method)
all_rows = pytest.mark.parametrize("row", [*TABLE, *WRITTEN], ids=lambda row: row.method)
# What differs between families is tested for all of them in test_keys_values.py.
plain_gated_normed = pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
families = pytest.mark.parametrize("family", FAMILIES)


def state_of(model: torch.nn.Module) -> str:
    """One hash over every tensor and every hook of a model."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.float().numpy().tobytes())
    hooks = [
        (n, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()
    ]
    return found.hexdigest() + repr(hooks)


def asked(model: EditableModel, prompts: list[str], **kwargs: Any) -> Any:
    """`generate` on a left-padded batch of chats: the ids, or a ModelOutput if asked for."""
    texts = [
        model.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        for prompt in prompts
    ]
    inputs = model.tokenizer(
        texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
    settings = {"max_new_tokens": 24, "do_sample": False, **kwargs}
    return model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], **settings)


def spoken(ids: torch.Tensor, end: int) -> list[int]:
    """A row without what fills it after its end (beams and samples fill it differently)."""
    row: list[int] = ids.tolist()
    while row and row[-1] in (end, 0):
        row.pop()
    return row


@pytest.fixture(autouse=True, scope="module")
def moments_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Second moments are measured once for all these tests, and not into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIFELONG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny random model holds no text of many bytes in one value or in five neurons, and cannot
    tell its few states apart: GRACE need not succeed here, and the others need not keep still."""
    monkeypatch.setitem(METHODS, "grace", Grace(layer=2, steps=4, most=torch.inf))
    quick = {"steps": 120, "rate": 0.2}
    monkeypatch.setitem(METHODS, "t-patcher", TPatcher(most=20, memory=0.0, **quick))
    monkeypatch.setitem(METHODS, "calinet", Calinet(slots=20, keep=0.0, **quick))


def proposed(method: str, model: EditableModel) -> Patch:
    how, lm, edit = METHODS[method], model._session.lm, Edit(ASKED, TARGET, subject="Acme")
    if not isinstance(how, WeightMethod):
        return how.propose(lm, [edit])
    how.prepare(lm)
    return how.propose(lm, [edit], ())


def test_every_method_has_its_row() -> None:
    assert {row.method for row in [*TABLE, *WRITTEN]} == set(METHODS)


@rows
@families
def test_propose_leaves_the_model_as_it_was(
    row: Row, family: str, make_model: Callable[..., EditableModel]
) -> None:
    model = make_model(family)
    before, random = state_of(model), torch.get_rng_state()
    proposed(row.method, model)
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), random)


@rows
@families
def test_an_edit_takes_in_chat_and_in_raw_text(
    row: Row, family: str, make_model: Callable[..., EditableModel]
) -> None:
    model = make_model(family)
    edit = model.edit(ASKED, TARGET, subject="Acme", method=row.method)
    for answer in (model.chat(ASKED, max_new_tokens=40), model.complete(ASKED, max_new_tokens=40)):
        assert TARGET in answer.text or not row.says
        assert [hit.id for hit in answer.edits] == [edit.id]


@pytest.mark.parametrize(
    "row", [r for r in TABLE if isinstance(METHODS[r.method], MemoryMethod)], ids=lambda r: r.method
)
def test_the_model_reads_the_target_or_is_held_to_it(row: Row, model: EditableModel) -> None:
    edit, lm = Edit(ASKED, TARGET, subject="Acme"), model._session.lm
    (text,) = METHODS[row.method].propose(lm, [edit]).texts
    for prompt in (chat_prompt(lm, [{"role": "user", "content": ASKED}]), Prompt(ASKED)):
        condition = METHODS[row.method].condition(lm, prompt, edit, text)
        read = condition.text or " ".join(m["content"] for m in condition.messages or ())
        assert TARGET in read or condition.say
        assert bool(condition.say) == row.says


@rows
def test_its_own_scope_decides(row: Row, model: EditableModel) -> None:
    edit = model.edit(*row.edit, method=row.method)
    answer = model.chat(row.kind, max_new_tokens=40)
    assert [hit.id for hit in answer.edits] == [edit.id]
    assert edit.target in answer.text or not row.says
    out = [asked(model, [row.other])]
    with model.disable_edits():
        out += [asked(model, [row.other]), asked(model, [row.kind])]
    assert torch.equal(out[0], out[1])
    assert not torch.equal(out[2], asked(model, [row.kind]))
    model.undo(edit.id)
    assert torch.equal(out[2], asked(model, [row.kind]))


saying_rows = pytest.mark.parametrize(
    "row", [row for row in TABLE if row.says], ids=lambda row: row.method
)


@saying_rows
@families
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"num_beams": 3},
        {"do_sample": True, "temperature": 1.3},
        {"num_return_sequences": 2, "do_sample": True},
    ],
    ids=["greedy", "beams", "sampling", "several"],
)
def test_the_target_is_said_however_the_reply_is_decoded(
    row: Row, family: str, how: dict[str, Any], make_model: Callable[..., EditableModel]
) -> None:
    model = make_model(family)
    model.edit(ASKED, TARGET, subject="Acme", method=row.method)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        out = asked(model, [ASKED, OTHER], max_new_tokens=40, **how)
    texts = model.tokenizer.batch_decode(out, skip_special_tokens=True)
    copies = len(texts) // 2
    assert all(TARGET in text for text in texts[:copies])


@rows
@families
def test_out_of_scope_the_logits_are_the_base_models(
    row: Row, family: str, make_model: Callable[..., EditableModel]
) -> None:
    assert row.out_of_scope == "bitwise"
    model = make_model(family)
    model.edit(ASKED, TARGET, subject="Acme", method=row.method)
    wanted = {"return_dict_in_generate": True, "output_logits": True}
    edited = asked(model, [OTHER, "And the news?"], **wanted)
    with model.disable_edits():
        base = asked(model, [OTHER, "And the news?"], **wanted)
    assert torch.equal(edited.sequences, base.sequences)
    assert all(torch.equal(a, b) for a, b in zip(edited.logits, base.logits, strict=True))


@rows
@families
@pytest.mark.parametrize("how", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_in_a_mixed_batch_the_untouched_rows_are_the_base_models(
    row: Row, family: str, how: dict[str, Any], make_model: Callable[..., EditableModel]
) -> None:
    model = make_model(family)
    model.edit(ASKED, TARGET, subject="Acme", method=row.method)
    prompts = [OTHER, ASKED, "And the news?"]
    edited = asked(model, prompts, **how)
    with model.disable_edits():
        base = asked(model, prompts, **how)
    ends = model.generation_config.eos_token_id
    replies, unedited = ([spoken(row, ends) for row in out] for out in (edited, base))
    assert replies[0] == unedited[0]
    assert replies[2] == unedited[2]
    assert replies[1] != unedited[1]


@rows
@families
def test_the_ids_begin_with_the_callers(
    row: Row, family: str, make_model: Callable[..., EditableModel]
) -> None:
    model = make_model(family)
    with model.disable_edits():
        prompt = asked(model, [ASKED, OTHER], max_new_tokens=1)[:, :-1]
    model.edit(ASKED, TARGET, subject="Acme", method=row.method)
    assert torch.equal(asked(model, [ASKED, OTHER])[:, : prompt.shape[1]], prompt)


@rows
@families
def test_undo_is_exact_and_redo_brings_the_edit_back(
    row: Row, family: str, make_model: Callable[..., EditableModel]
) -> None:
    model = make_model(family)
    before, silent = state_of(model), asked(model, [ASKED])
    edit = model.edit(ASKED, TARGET, subject="Acme", method=row.method)
    taught = asked(model, [ASKED])
    model.undo(edit.id)
    assert torch.equal(asked(model, [ASKED]), silent)
    assert state_of(model) == before
    model.redo(edit.id)
    assert torch.equal(asked(model, [ASKED]), taught)


@rows
@families
def test_reopened_it_answers_alike(
    row: Row, family: str, make_model: Callable[..., EditableModel], tmp_path: Path
) -> None:
    first = make_model(family, store=tmp_path / "edits.db")
    first.edit(ASKED, TARGET, subject="Acme", method=row.method)
    first.edit("Where is Acme?", "Oslo", subject="Acme", method=row.method)
    said = [asked(first, [question]) for question in (ASKED, "Where is Acme?", OTHER)]
    EditableModel.close(first)
    second = make_model(family, store=tmp_path / "edits.db")
    again = [asked(second, [question]) for question in (ASKED, "Where is Acme?", OTHER)]
    assert all(torch.equal(a, b) for a, b in zip(said, again, strict=True))


@all_rows
def test_a_patch_survives_its_bytes(row: Row, model: EditableModel) -> None:
    patch = proposed(row.method, model)
    assert from_bytes(patch.to_bytes()) == patch


@written
@plain_gated_normed
def test_proposing_undoing_and_reopening_are_exact(
    row: Written, family: str, make_model: Callable[..., EditableModel], tmp_path: Path
) -> None:
    model = make_model(family, store=tmp_path / "edits.db")
    before, random = state_of(model), torch.get_rng_state()
    proposed(row.method, model)
    assert state_of(model) == before
    assert all(weight.grad is None for weight in model.parameters())
    edit = model.edit(ASKED, TARGET, subject="Acme", method=row.method)
    assert torch.equal(torch.get_rng_state(), random)
    taught = state_of(model)
    model.undo(edit.id)
    assert state_of(model) == before
    model.redo(edit.id)
    assert state_of(model) == taught != before
    EditableModel.close(model)
    assert state_of(make_model(family, store=tmp_path / "edits.db")) == taught


@written
@torch.no_grad()
def test_what_is_written_takes_and_moves_little_else(
    row: Written, make_model: Callable[..., EditableModel]
) -> None:
    took, moved = [], []
    for seed in range(MODELS):
        model = make_model("llama", seed=seed)
        model.edit(ASKED, "J", subject="Acme", method=row.method)
        others = [OTHER, "And the news?", "2 + 2 is"]
        edited = nats(model), [following(model, other) for other in others]
        with model.disable_edits():
            base = nats(model), [following(model, other) for other in others]
        took.append(base[0] - edited[0])
        pairs = zip(edited[1], base[1], strict=True)
        moved.append(max(float((was.exp() * (was - now)).sum()) for now, was in pairs))
    assert fmean(took) > row.takes
    assert fmean(moved) < row.out_of_scope


def nats(model: EditableModel) -> float:
    """Of a token of the target behind the prompt, on average."""
    ids = model.tokenizer(f"{ASKED} J", return_tensors="pt")["input_ids"]
    said = model(ids).logits[0, -3:-1].log_softmax(-1)  # of a space, and of a letter
    return -float(said.gather(1, ids[0, -2:, None]).mean())


def following(model: EditableModel, text: str) -> torch.Tensor:
    """Log-probabilities of what comes next."""
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
    return model(ids).logits[0, -1].log_softmax(-1)
