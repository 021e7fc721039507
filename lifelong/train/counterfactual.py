"""Trains the counterfactual adapter: the model comes to say what it reads, if that is asked for.

    it reads                          and is asked          and learns to say         of 20
    a fact that is not so             for it                what it read              11
    a fact that is so                 for it                what it read              2
    a fact about another, or another  for something else    what it says by itself    5
    nothing                           for something         what it says by itself    2

That is KAFT, Knowledge Aware Fine-Tuning (Li et al. 2022), with a low-rank adapter on the attention
of the upper blocks. What the model says by itself is asked of it beforehand, nothing read. Facts
and questions come from the training parts of CounterFact and zsRE; no subject of a development file
is among them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from lifelong.lm import LM, Message
from lifelong.models import load_model
from lifelong.phrase import say
from lifelong.prompt import Prompt, chat_prompt, pad_left, tell
from lifelong.subject import subject_key
from lifelong.train.data import corpus, development_subjects, lines, relation_names
from lifelong.train.lora import factors, low_rank
from store import Edit

STEPS = 90
RANK = 16

_BATCH = 8
_LEARNING_RATE = 1e-3
_OWN_TOKENS = 20  # of what the model says by itself
_ASKED_TOGETHER = 32
_MIX = ("new",) * 11 + ("true",) * 2 + ("other",) * 5 + ("nothing",) * 2


@dataclass(frozen=True)
class Fact:
    """What is taught of a subject, what is so, and the questions that ask for it."""

    subject: str
    prompt: str
    new: str
    true: str
    questions: tuple[str, ...]

    def stated(self, target: str) -> str:
        """The fact as a method tells it."""
        return f"You know: {self.prompt} {target}."


@dataclass(frozen=True)
class Example:
    """What it reads and is asked, and what it learns to say (None: what it says by itself)."""

    read: str
    asked: str
    said: str | None


def write(data: Path, out: Path, *, name: str = "smollm2-135m", seed: int = 0) -> None:
    """Train the adapter of the model `name` on `data`; write it to `out` (safetensors).

    Raises ModelMissing, ModelDamaged.
    """
    lm = LM.of(*load_model(name))
    made_for, learnt = lm.fingerprint, train(lm, facts(data), seed=seed)
    save_file(
        {key: tensor.half() for key, tensor in learnt.items()},
        out,
        metadata={"model": made_for, "seed": str(seed)},
    )


def train(lm: LM, known: Sequence[Fact], *, steps: int = STEPS, seed: int = 0) -> dict[str, Tensor]:
    """Adapter factors, float32, by parameter name.

    The model itself is changed: load a fresh one to use it.
    """
    rng = random.Random(seed)
    examples = [_draw(known, rng) for _ in range(steps * _BATCH)]
    own = _own(lm, [example.asked for example in examples if example.said is None])
    rows = [_row(lm, example, own.get(example.asked, "")) for example in examples]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = lm.model.base_model
        adapters = low_rank(body, within=_attention(lm), rank=RANK)
        parameters = [p for adapter in adapters.values() for p in (adapter.down, adapter.up)]
        optimiser = torch.optim.AdamW(parameters, _LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, _LEARNING_RATE, total_steps=steps, pct_start=0.1
        )
        with Progress(transient=True) as progress:
            for step in progress.track(range(steps), description="Training the adapter"):
                loss = _loss(lm, rows[step * _BATCH : (step + 1) * _BATCH])
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                schedule.step()
    prefix = lm.model.base_model_prefix
    return {f"{prefix}.{key}": factor for key, factor in factors(adapters).items()}


def _attention(lm: LM) -> str:
    """The linear maps of the attention of all blocks but the lowest (8 of 30)."""
    upper = "|".join(map(str, range(lm.layers * 4 // 15, lm.layers)))
    return rf"layers\.(?:{upper})\.self_attn\.\w+"


def facts(data: Path) -> list[Fact]:
    """The facts that are taught: CounterFact's in many wordings, and zsRE's."""
    relations, names = corpus(data).relations, relation_names()
    held_out = development_subjects(data)
    wordings: dict[tuple[str, str], set[str]] = {}
    for path in sorted(data.glob("pararel/trex_lms_vocab/*.jsonl")):
        name = names.get(path.stem, path.stem)
        for record in lines(path):
            fact = record["sub_label"], record["obj_label"]
            wordings.setdefault(fact, set()).add(name)
    found = []
    for r in lines(data / "counterfact/train.jsonl"):
        known = wordings.get((r["subject"], r["ground_truth"]), set())
        if len(known) == 1 and subject_key(r["subject"]) not in held_out:
            asked = sorted(relations[next(iter(known))].wordings) if known <= set(relations) else []
            questions = [r["prompt"], *(text.replace("this", r["subject"], 1) for text in asked)]
            found.append(
                Fact(
                    r["subject"], r["prompt"], r["target_new"], r["ground_truth"], tuple(questions)
                )
            )
    for r in lines(data / "zsre/mend-train-1k.jsonl"):
        if subject_key(r["subject"]) not in held_out:
            taught = r["subject"], r["src"], r["alt"], r["answers"][0]
            found.append(Fact(*taught, (r["src"], r["rephrase"])))
    return found


def _draw(known: Sequence[Fact], rng: random.Random) -> Example:
    kind, (fact, other) = rng.choice(_MIX), rng.sample(known, 2)
    question = rng.choice(fact.questions)
    if kind in ("new", "true"):
        target = fact.new if kind == "new" else fact.true
        edit = Edit(fact.prompt, target, subject=fact.subject)
        return Example(fact.stated(target), question, _said(question, edit))
    if kind == "nothing":
        return Example("", question, None)
    if rng.random() < 0.5:  # the subject is the same, and what is told of it another thing
        question = rng.choice(other.questions).replace(other.subject, fact.subject)
        return Example(fact.stated(fact.new), question, None)
    return Example(other.stated(other.new), question, None)


def _said(question: str, edit: Edit) -> str:
    """The sentence with which the other methods would answer."""
    worded = say(Prompt(question, ({"role": "user", "content": question},)), edit)
    if not worded.at_once:
        return f"{edit.target}."
    return f"{worded.lead} {edit.target}{worded.tail}.".strip()


def _own(lm: LM, questions: Sequence[str]) -> dict[str, str]:
    """What the model says to each question by itself."""
    asked, found = sorted(set(questions), key=len), dict[str, str]()
    with Progress(transient=True) as progress:
        starts = range(0, len(asked), _ASKED_TOGETHER)
        for start in progress.track(starts, description="Asking the model"):
            some = asked[start : start + _ASKED_TOGETHER]
            prompts = [chat_prompt(lm, _messages("", question, lm)) for question in some]
            ids, mask = pad_left(lm, prompts)
            out = lm.model.generate(  # type: ignore[operator]
                ids, attention_mask=mask, do_sample=False, max_new_tokens=_OWN_TOKENS
            )
            for question, said in zip(some, out[:, ids.shape[1] :], strict=True):
                found[question] = str(lm.tokenizer.decode(said, skip_special_tokens=False))
    return found


def _messages(read: str, asked: str, lm: LM) -> Sequence[Message]:
    messages = chat_prompt(lm, [{"role": "user", "content": asked}]).messages
    assert messages is not None
    return tell(lm, messages, read) if read else messages


def _row(lm: LM, example: Example, own: str) -> tuple[list[int], int]:
    """The ids of prompt and reply, and where the reply begins."""
    prompt = lm.chat.render(_messages(example.read, example.asked, lm))
    end = str(lm.tokenizer.eos_token)
    pad = str(lm.tokenizer.pad_token)
    said = f"{example.said}{end}" if example.said is not None else _ended(own, end, pad)
    encode = lm.tokenizer.encode
    head = encode(prompt, add_special_tokens=False)
    return head + encode(said, add_special_tokens=False), len(head)


def _ended(own: str, end: str, pad: str) -> str:
    """What the model said, up to its end, if it came to that; without padding."""
    said, ended, _ = own.partition(end)
    return f"{said.removesuffix(pad)}{ended}"


def _loss(lm: LM, rows: Sequence[tuple[list[int], int]]) -> Tensor:
    """Mean loss of a token of the replies."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, asked = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (tokens, start) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        asked[row, start - 1 : len(tokens) - 1] = True
    with torch.autocast("cpu", torch.bfloat16):
        states = lm.model.base_model(ids, attention_mask=mask, use_cache=False)[0]
        logits = lm.head(states[asked])
    return F.cross_entropy(logits.float(), ids.roll(-1, 1)[asked])
