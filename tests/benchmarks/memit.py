"""A batch of facts written into the weights: what took, what spread, what broke, how long it took.

    python tests/benchmarks/memit.py DATA [--edits 100] [--method memit] [--stats FILE] [--naive 2]

DATA holds `counterfact/full-fields-dev.jsonl` and `wikitext-2/test.txt`. Completion protocol: raw
prompts, free greedy generation, scored after all edits, beside ROME's own probability metrics.
`unedited` is the base model on the same prompts. `neighbourhood` is ROME's P(true) > P(new), which
the base model itself often misses; `neighbourhood_kept` is over the prompts where it holds there.
`naive` seeks the values of some of the edits one by one, through the whole model at every step, for
as many steps as there may be. Prints JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lifelong import EditableModel, moments
from lifelong.hooks import tracing
from lifelong.lm import LM
from lifelong.match import contains
from lifelong.methods import with_options
from lifelong.methods.keys_values import Search, early
from lifelong.methods.wording import wordings
from lifelong.prompt import Prompt, pad_left
from store import Edit

NEW_TOKENS = 12
BATCH = 50
WINDOW = 512  # tokens of a window of running text


def main() -> None:
    """Edit, ask, print."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("data", type=Path)
    asked.add_argument("--edits", type=int, default=100)
    asked.add_argument("--skip", type=int, default=0)
    asked.add_argument("--method", default="memit")
    asked.add_argument("--stats", type=Path, help="a text for the second moments")
    asked.add_argument("--tokens", type=int, default=moments.TOKENS)
    asked.add_argument("--set", action="append", default=[], help="option=value of the method")
    asked.add_argument("--naive", type=int, default=0, help="edits that are sought naively, too")
    asked.add_argument("--windows", type=int, default=20, help="of running text, for perplexity")
    args = asked.parse_args()
    rows = records(args.data / "counterfact/full-fields-dev.jsonl")[args.skip :][: args.edits]
    text = (args.data / "wikitext-2/test.txt").read_text()
    methods = with_options(args.method, dict(setting.split("=") for setting in args.set))
    with EditableModel.from_pretrained("smollm2-135m", store=":memory:", methods=methods) as model:
        print(json.dumps(run(model, rows, text, args), indent=2))


def run(model: EditableModel, rows: list[dict[str, Any]], text: str, args: Any) -> dict[str, Any]:
    """All figures: before, after, and what the edits cost."""
    lm = model._session.lm
    layers = sorted({*early(lm), lm.layers // 6})
    if args.stats:
        moments.measure(lm, layers, args.stats, tokens=args.tokens)
    moments.ensure(lm, layers)
    before = figures(lm, rows)
    windows = perplexity(lm, text, args.windows)
    naive = [cost(partial(seek_naively, lm, edit_of(row))) for row in rows[: args.naive]]
    wall, cpu = cost(lambda: model.edit_many([edit_of(row) for row in rows], method=args.method))
    after = figures(lm, rows)
    deltas = model._session.journal.patches()[0].patch
    base = {name: model._session.weights._copy(name).norm() for name in deltas.factors}
    return {
        "method": args.method,
        "edits": len(rows),
        "threads": torch.get_num_threads(),
        "seconds_per_edit": round(wall / len(rows), 2),
        "cpu_seconds_per_edit": round(cpu / len(rows), 2),
        "naive_seconds_per_edit": [round(wall, 2) for wall, _ in naive],
        "naive_cpu_seconds_per_edit": [round(cpu, 2) for _, cpu in naive],
        "edited": after[0],
        "unedited": before[0],
        "locality_first_token": share(a == b for a, b in zip(after[1], before[1], strict=True)),
        "neighbourhood_kept": share(a for a, b in zip(after[2], before[2], strict=True) if b),
        "perplexity_ratio": round(perplexity(lm, text, args.windows) / windows, 4),
        "mean_loss": round(fmean(deltas.facts["loss"]), 3),
        "change_over_weight": {
            name: round(
                float(abs(torch.from_numpy(f.change(range(len(rows)))).norm() / base[name])), 3
            )
            for name, f in deltas.factors.items()
        },
    }


def records(path: Path) -> list[dict[str, Any]]:
    """The records of which no two are about one subject's one relation."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        asked = row["requested_rewrite"]
        seen.setdefault((asked["subject"], asked["relation_id"]), row)
    return list(seen.values())


def edit_of(row: dict[str, Any]) -> Edit:
    """The record's rewrite."""
    asked = row["requested_rewrite"]
    subject = asked["subject"]
    return Edit(asked["prompt"].format(subject), asked["target_new"]["str"], subject=subject)


def figures(
    lm: LM, rows: Sequence[dict[str, Any]]
) -> tuple[dict[str, float], list[int], list[bool]]:
    """The figures; of each neighbourhood prompt the first token that follows, and whether the true
    answer is likelier than the new one."""
    own = [edit_of(row).prompt for row in rows]
    new = [row["requested_rewrite"]["target_new"]["str"] for row in rows]
    old = [row["requested_rewrite"]["target_true"]["str"] for row in rows]
    others = [(p, new[i]) for i, row in enumerate(rows) for p in row["paraphrase_prompts"]]
    near = [(p, i) for i, row in enumerate(rows) for p in row["neighborhood_prompts"]]
    prompts = [p for p, _ in near]
    kept = likelier(lm, prompts, [old[i] for _, i in near], [new[i] for _, i in near])
    found = {
        "accuracy": share(map(contains, replies(lm, own), new)),
        "accuracy_probability": share(likelier(lm, own, new, old)),
        "generality": share(
            map(contains, replies(lm, [p for p, _ in others]), [t for _, t in others])
        ),
        "generality_probability": share(
            likelier(
                lm,
                [p for p, _ in others],
                [t for _, t in others],
                [old[i] for i, row in enumerate(rows) for _ in row["paraphrase_prompts"]],
            )
        ),
        "neighbourhood": share(kept),
    }
    return found, [int(token) for batch in first_tokens(lm, prompts) for token in batch], kept


def cost(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of all processors."""
    clock, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - used


def seek_naively(lm: LM, edit: Edit) -> None:
    """A target value as a first version would seek it."""
    layer, how = early(lm)[-1], Search()
    texts = [text for text in wordings(lm, [edit]) if text.labels]
    shift = torch.zeros(lm.hidden, requires_grad=True)
    adam = torch.optim.Adam([shift], how.rate)
    for _ in range(how.steps):
        adam.zero_grad()
        for text in texts:
            at, n = len(text.head), len(text.labels)

            def act(_: torch.Tensor, out: torch.Tensor, at: int = at) -> torch.Tensor:
                return torch.cat([out[:, :at], out[:, at : at + 1] + shift, out[:, at + 1 :]], 1)

            with tracing(after={lm.module("block", layer): act}):
                logits = lm.model(input_ids=torch.tensor([[*text.head, *text.tail]])).logits
            said = logits[0, -n:].log_softmax(-1).gather(1, torch.tensor(text.labels)[:, None])
            (-said.mean() / len(texts)).backward(inputs=[shift])
        adam.step()


def replies(lm: LM, prompts: Sequence[str]) -> list[str]:
    """Free greedy continuations."""
    said = []
    for batch in batches(prompts):
        ids, mask = pad_left(lm, [Prompt(p) for p in batch])
        out = lm.model.generate(
            ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False
        )
        said += lm.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return said


def likelier(
    lm: LM, prompts: Sequence[str], one: Sequence[str], other: Sequence[str]
) -> list[bool]:
    """Is the mean log-probability of `one` behind the prompt above that of `other`?"""
    first, second = (logprobs(lm, prompts, texts) for texts in (one, other))
    return [a > b for a, b in zip(first, second, strict=True)]


def logprobs(lm: LM, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
    """Mean log-probability of each text's tokens behind its prompt."""
    found = []
    for batch in batches(list(zip(prompts, texts, strict=True))):
        ids, mask = pad_left(lm, [Prompt(f"{p} {t}") for p, t in batch])
        with torch.no_grad():
            logits = lm.model(input_ids=ids, attention_mask=mask).logits.float()
        said = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        for row, (_, text) in zip(said, batch, strict=True):
            n = len(lm.tokenizer.encode(f" {text}", add_special_tokens=False))
            found.append(float(row[-n:].mean()))
    return found


def first_tokens(lm: LM, prompts: Sequence[str]) -> Iterator[list[int]]:
    """What follows each prompt."""
    for batch in batches(prompts):
        ids, mask = pad_left(lm, [Prompt(p) for p in batch])
        with torch.no_grad():
            logits = lm.model(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits
        yield logits[:, -1].argmax(-1).tolist()


def perplexity(lm: LM, text: str, windows: int) -> float:
    """Of the first tokens of a text, in windows."""
    ids = torch.tensor(lm.tokenizer.encode(text[: windows * WINDOW * 8])[: windows * WINDOW])
    losses = []
    for window in ids.view(-1, WINDOW).to(lm.device):
        with torch.no_grad():
            losses.append(float(lm.model(window[None], labels=window[None]).loss))
    return float(torch.tensor(fmean(losses)).exp())


def batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Slices."""
    return (items[i : i + BATCH] for i in range(0, len(items), BATCH))


def share(right: Any) -> float:
    """Per cent."""
    return round(100 * fmean(map(float, right)), 1)


if __name__ == "__main__":
    main()
