"""How well a method answers once an edit fires: obedient, fitting and natural.

    python tests/benchmarks/answers.py [--records 100] [--methods NAME ...] [--show 3] [DATA]

Scope is not asked: every prompt is answered as in scope of its record's edit. Both protocols of
evaluation.md: `chat` (the prompt is the user's message, greedy, 48 new tokens) and `completion`
(raw continuation, to the end of the line or sentence, 16 new tokens). Prints one JSON object per
method, set and protocol, and last the methods over all sets. Shares are of replies:

    own, paraphrase   the target is said, and no old answer besides
    em                ... and is the whole reply
    mixed             the target is said, and an old answer besides
    yes_no            a question that proposes the target or an old answer is answered as the edit
                      has it: "yes" and the target, or "no" and the target, and no old answer
    longer            a request of which the fact is one part: target, no old answer
    bare_target       nothing but the target
    frame_share       text, less subject and target, equals one of the five commonest such frames
    perplexity_ratio  of the replies under the base (target tokens left out), against its own
    words             of a reply, on average
"""

import argparse
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lifelong.evaluate.derived import NOUNS
from lifelong.generate import Request, generate
from lifelong.lm import LM
from lifelong.match import contains, says
from lifelong.methods import Method
from lifelong.methods.ike import Ike
from lifelong.methods.kaft import Kaft
from lifelong.methods.serac import Serac
from lifelong.models import load_model
from lifelong.prompt import Condition, Prompt, chat_prompt, pad_left
from lifelong.subject import normalise
from store import Edit

VARIANTS: dict[str, Method] = {  # what can be compared
    "serac": Serac(),
    "constraint alone": Serac(read=False),
    "context alone": Serac(held=False),
    "contrastive": Serac(held=False, contrast=0.5),
    "ike": Ike(),
    "ike, free": Ike(held=False),
    "kaft": Kaft(),
    "kaft, free": Kaft(held=False),
}
DATA = Path(__file__).parents[2] / "../shared/data"
TOKENS = {"chat": 48, "completion": 16}
BATCH = 16
FRAMES = 5


@dataclass(frozen=True)
class Ask:
    """One prompt, its edit, the old answers, and what kind of prompt it is."""

    kind: str
    prompt: str
    edit: Edit
    old: tuple[str, ...] = ()
    opening: str = ""  # the word that a yes/no answer must begin with


@dataclass
class Replies:
    """What was asked, and what was replied."""

    asks: list[Ask] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def main() -> None:
    """Print the figures of every method and set."""
    options = arguments()
    lm = LM.of(*load_model("smollm2-135m", progress=False))
    totals = []
    base: dict[tuple[str, str], str] = {}
    for name in options.methods:
        everything = {protocol: Replies() for protocol in options.protocols}
        for title, asks in sets(options.data, options.records):
            for protocol in options.protocols:
                replies = answer(lm, name, protocol, asks)
                everything[protocol].asks += replies.asks
                everything[protocol].texts += replies.texts
                shown = figures(replies) | {"method": name, "set": title, "protocol": protocol}
                print(json.dumps(shown), flush=True)
                show(replies, options.show)
        for protocol, replies in everything.items():
            total: dict[str, Any] = {"method": name, "protocol": protocol, **figures(replies)}
            if protocol == "chat":
                total["perplexity_ratio"] = perplexity_ratio(lm, replies, base)
            totals.append(total)
    for total in totals:
        print(json.dumps(total))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--records", type=int, default=100, help="of each set, drawn by seed 0")
    parser.add_argument("--methods", nargs="+", default=["serac"], choices=list(VARIANTS))
    parser.add_argument("--protocols", nargs="+", default=list(TOKENS), choices=list(TOKENS))
    parser.add_argument("--show", type=int, default=0, help="replies of each kind, and failures")
    return parser.parse_args()


def sets(data: Path, records: int) -> Iterator[tuple[str, list[Ask]]]:
    """Every set's prompts."""
    for path, asks in (
        ("counterfact/full-fields-dev.jsonl", counterfact),
        ("zsre/knowedit-dev.jsonl", knowedit),
        ("zsre/mend-eval-portability-dev.jsonl", mend),
    ):
        rows = [json.loads(line) for line in (data / path).read_text("utf-8").splitlines()]
        drawn = random.Random(0).sample(rows, min(records, len(rows)))
        yield path, [ask for row in drawn for ask in asks(row)]


def counterfact(row: dict[str, Any]) -> Iterator[Ask]:
    """A statement to be completed, its paraphrases, and questions made of it."""
    fact = row["requested_rewrite"]
    subject, old = fact["subject"], fact["target_true"]["str"]
    prompt = fact["prompt"].format(subject)
    edit = Edit(prompt, fact["target_new"]["str"], subject=subject, old=old)
    yield Ask("own", prompt, edit, (old,))
    for paraphrase in row["paraphrase_prompts"]:
        yield Ask("paraphrase", paraphrase, edit, (old,))
    noun = NOUNS[fact["relation_id"]]
    yield from yes_no(f"Is the {noun} of {subject} {{}}?", edit, old)
    if "?" not in prompt:
        yield from yes_no(f"Is it true that {prompt[:1].lower()}{prompt[1:]} {{}}?", edit, old)
    for request in (
        f"Write two sentences about {subject}: its {noun}, and why it is known.",
        f"Tell me about {subject}. Mention the {noun} and one more thing.",
    ):
        yield Ask("longer", request, edit, (old,))


def knowedit(row: dict[str, Any]) -> Iterator[Ask]:
    """A question, its rephrasing, and questions made of it."""
    edit = Edit(row["prompt"], row["target_new"], subject=row["subject"])
    yield from question(edit, row["rephrase_prompt"], row["ground_truth"])


def mend(row: dict[str, Any]) -> Iterator[Ask]:
    """The same of MEND's fields."""
    edit = Edit(row["src"], row["alt"], subject=row["subject"])
    yield from question(edit, row["rephrase"], row["answers"])


def question(edit: Edit, rephrased: str, answers: Sequence[str]) -> Iterator[Ask]:
    """A question, its rephrasing, and questions made of it."""
    old = tuple(a for a in answers if a and not contains(edit.target, a))
    edit = replace(edit, old=old[0] if old else None)
    yield Ask("own", edit.prompt, edit, old)
    yield Ask("paraphrase", rephrased, edit, old)
    if old:
        yield from yes_no(f"{edit.prompt} Is it {{}}?", edit, old[0])
    asked = edit.prompt[:1].lower() + edit.prompt[1:].rstrip("?")
    yield Ask("longer", f"Write two sentences about {edit.subject}, saying {asked}.", edit, old)
    yield Ask("longer", f"{edit.prompt} And what else is known about it?", edit, old)


def yes_no(template: str, edit: Edit, old: str) -> Iterator[Ask]:
    """A question that proposes the target, and one that proposes the old answer."""
    yield Ask("yes_no", template.format(edit.target), edit, (old,), "yes")
    yield Ask("yes_no", template.format(old), edit, (old,), "no")


def answer(lm: LM, name: str, protocol: str, asks: Sequence[Ask]) -> Replies:
    """The replies of a method; in raw text only what is a prompt to be completed is asked."""
    asks = [ask for ask in asks if protocol == "chat" or ask.kind in ("own", "paraphrase")]
    replies = Replies(list(asks))
    for at in range(0, len(asks), BATCH):
        batch = asks[at : at + BATCH]
        prompts = [prompt_of(lm, protocol, ask.prompt) for ask in batch]
        conditions = [
            condition(lm, name, prompt, ask.edit)
            for prompt, ask in zip(prompts, batch, strict=True)
        ]
        texts = run(lm, prompts, TOKENS[protocol], conditions)
        replies.texts += texts if protocol == "chat" else map(cut, texts)
    return replies


def prompt_of(lm: LM, protocol: str, text: str) -> Prompt:
    """The text as the protocol has it."""
    return (
        chat_prompt(lm, [{"role": "user", "content": text}]) if protocol == "chat" else Prompt(text)
    )


def condition(lm: LM, name: str, prompt: Prompt, edit: Edit) -> Condition:
    """What the method makes of a prompt in scope of the edit."""
    (text,) = VARIANTS[name].propose(lm, [edit]).texts
    return VARIANTS[name].condition(lm, prompt, edit, text)


def run(lm: LM, prompts: Sequence[Prompt], tokens: int, conditions: Sequence[Any]) -> list[str]:
    """One greedy reply a prompt."""
    ids, mask = pad_left(lm, prompts)
    settings = {"max_new_tokens": tokens, "do_sample": False}
    out = generate(Request(lm, lm.model.generate, ids, mask, settings), conditions)
    texts = lm.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return [str(text).strip() for text in texts]


def cut(text: str) -> str:
    """A completion up to the end of its line or sentence."""
    return re.split(r"\n|(?<=[.!?])\s", text, maxsplit=1)[0].strip()


def figures(replies: Replies) -> dict[str, Any]:
    """Shares by kind of prompt."""
    pairs = list(zip(replies.asks, replies.texts, strict=True))
    found: dict[str, Any] = {}
    for kind in ("own", "paraphrase", "yes_no", "longer"):
        if mine := [obeys(ask, text) for ask, text in pairs if ask.kind == kind]:
            found |= {f"n_{kind}": len(mine), kind: share(mine)}
    plain = [(a, t) for a, t in pairs if a.kind in ("own", "paraphrase")]
    whole = [normalise(t) == normalise(a.edit.target) for a, t in plain]
    mixed = [contains(t, a.edit.target) and not said(a, t) for a, t in plain]
    frames = Counter(frame(a, t) for a, t in plain)
    common = sum(n for _, n in frames.most_common(FRAMES))
    found |= {"em": share(whole), "mixed": share(mixed), "bare_target": share(whole)}
    found |= {"frame_share": round(common / len(plain), 3)}
    return found | {"words": round(fmean(len(t.split()) for _, t in plain), 1)}


def share(which: Sequence[bool]) -> float:
    """The share of those that are true."""
    return round(fmean(which), 4)


def said(ask: Ask, text: str) -> bool:
    """Is the target said, and no old answer besides?"""
    return all(says(text, ask.edit.target, old) for old in ask.old or (None,))


def obeys(ask: Ask, text: str) -> bool:
    """Is the reply what the edit asks for?"""
    first = normalise(text).split()[:1]
    return said(ask, text) and (not ask.opening or first == [ask.opening])


def frame(ask: Ask, text: str) -> str:
    """The reply, less subject and target."""
    left = f" {normalise(text)} "
    for part in sorted((ask.edit.subject or "", ask.edit.target), key=len, reverse=True):
        left = left.replace(f" {normalise(part)} ", " _ ")
    return left.strip()


def perplexity_ratio(lm: LM, replies: Replies, base: dict[tuple[str, str], str]) -> float:
    """exp of the mean loss of a token, ours against the base model's own replies."""
    asks = [ask for ask in replies.asks if ask.kind in ("own", "paraphrase")]
    texts = {
        (a.kind, a.prompt): t for a, t in zip(replies.asks, replies.texts, strict=True) if a in asks
    }
    missing = [ask for ask in asks if (ask.kind, ask.prompt) not in base]
    for at in range(0, len(missing), BATCH):
        batch = missing[at : at + BATCH]
        prompts = [prompt_of(lm, "chat", ask.prompt) for ask in batch]
        told = run(lm, prompts, TOKENS["chat"], [None] * len(batch))
        base |= {(a.kind, a.prompt): t for a, t in zip(batch, told, strict=True)}
    ours = [x for a in asks for x in losses(lm, a.prompt, texts[a.kind, a.prompt], a.edit.target)]
    own = [x for a in asks for x in losses(lm, a.prompt, base[a.kind, a.prompt], None)]
    return round(math.exp(fmean(ours)) / math.exp(fmean(own)), 3) if ours else math.nan


@torch.no_grad()
def losses(lm: LM, prompt: str, reply: str, target: str | None) -> list[float]:
    """The loss of every token of `reply` to `prompt` that is no part of `target`."""
    rendered = prompt_of(lm, "chat", prompt).text
    coded = lm.tokenizer(
        rendered + reply, return_offsets_mapping=True, add_special_tokens=False, return_tensors="pt"
    )
    ids, offsets = coded["input_ids"], coded["offset_mapping"][0].tolist()
    at = reply.find(target) if target else -1
    inside = (len(rendered) + at, len(rendered) + at + len(target or "")) if at >= 0 else (0, 0)
    scores = torch.log_softmax(lm.model(ids).logits[0].float(), -1)
    return [
        -float(scores[i - 1, ids[0, i]])
        for i, (start, end) in enumerate(offsets)
        if start >= len(rendered) and not (start < inside[1] and end > inside[0])
    ]


def show(replies: Replies, number: int) -> None:
    """Some replies of each kind, those that fail first."""
    for kind in ("own", "paraphrase", "yes_no", "longer"):
        mine = [p for p in zip(replies.asks, replies.texts, strict=True) if p[0].kind == kind]
        mine.sort(key=lambda pair: obeys(*pair))
        for ask, text in mine[:number] + mine[-number:] if number else []:
            mark = "ok " if obeys(ask, text) else "BAD"
            print(f"  {mark} {kind}: {ask.prompt!r} [{ask.edit.target} / {ask.old}] -> {text!r}")


if __name__ == "__main__":
    main()
