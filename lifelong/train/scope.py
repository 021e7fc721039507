"""Trains the scope adapter: low-rank changes to the sentence encoder (SERAC's scope classifier).

    same relation, other words:  close        "Who runs this?"        "The boss of this is"
    other relation:              far          "Where is this based?"  "The boss of this is"

Texts carry "this" for their subject (`subject.focus`), so only the relation is learnt. The loss is
contrastive: each positive against all negatives of the batch (InfoNCE, van den Oord et al. 2018).
Adapters are LoRA (Hu et al. 2021) on every linear map of the encoder's blocks.

Data: `relations.jsonl` beside this file (599 relations in 6,469 wordings, written for this project)
and, in a folder of public benchmark data, the training parts of ParaRel, LRE, zsRE and MQuAKE
(PokeMQA's questions). Records about a subject of any development file there are left out.
"""

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import typer
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from lifelong.encoder import SentenceEncoder
from lifelong.models import resolve
from lifelong.subject import focus, masked, subject_key, words

RANK = 16
STEPS = 260
SEED = 0

_LEARNING_RATE = 5e-4
_TEMPERATURE = 0.05
_SCALE = 2.0  # of an adapter's output while it is trained; folded into `up` afterwards
_MAX_TOKENS = 64
_CLOSE = 0.6  # cosine from which two sources may mean the same relation: no negative
_PER_STEP = {"relations": (26, 4), "patterns": (6, 3), "zsre": (14, 2), "mquake": (8, 3)}

# Relations that share answers for some subjects: not negatives of each other.
_OVERLAP = [
    {"height of person", "height of building", "elevation above sea level", "height", "elevation"},
    {"genre of musician", "genre of work"},
    {"publication date", "start time of series", "date of first performance", "release date"},
    {"inception", "date of official opening", "construction start", "opening year"},
    {"owned by", "parent organization", "owner", "parent company"},
    {"developer", "manufacturer", "production company", "designer", "architect"},
    {"present in work", "first appearance", "from narrative universe", "part of the series"},
    {"child", "number of children"},
    {"age", "date of birth"},
    {"employer", "work location"},
    {"service entry", "launch date", "maiden flight"},
    {"member of", "airline alliance", "political party"},
    {"located in the administrative territorial entity", "country"},
    {"price", "ticket price", "membership fee"},
    {"material", "main ingredient"},
    {"country of manufacture", "country of origin"},
    {"office address", "headquarters", "headquarters location"},
    {"dimensions", "length", "width", "height"},
    {"opening hours", "opening time", "closing time", "support hours"},
    {"year of adoption", "entry into force"},
    {"file format", "file extension"},
    {"P17", "P131", "P276", "P30", "P361"},
    {"P176", "P178", "P127"},
    {"P937", "P108", "P20"},
    {"P36", "P1376"},
    {"P495", "P17", "P740", "P19"},
    {"P407", "P364", "P37"},
    {"P1412", "P103"},
    {"P463", "P361", "P264"},
    {"P101", "P106", "P39"},
    {"P1303", "P136", "P413"},
]


@dataclass(frozen=True)
class Corpus:
    """Wordings by relation, per source. Wordings under one key ask for the same fact."""

    sources: Mapping[str, Mapping[str, tuple[str, ...]]]

    def __len__(self) -> int:
        return sum(
            len(wordings) for groups in self.sources.values() for wordings in groups.values()
        )

    def draw(self, rng: random.Random) -> list[tuple[str, str, str]]:
        """One batch: (wording, relation, source)."""
        batch = []
        for source, groups in self.sources.items():
            relations, each = _PER_STEP[source]
            for relation in rng.sample(sorted(groups), min(relations, len(groups))):
                wordings = groups[relation]
                drawn = rng.sample(wordings, min(each, len(wordings)))
                batch += [(wording, relation, source) for wording in drawn]
        return batch


def corpus(data: Path | None) -> Corpus:
    """Our own relations, and the training parts of public sets under `data` where they exist."""
    sources = {"relations": _grouped(_relations())}
    if data is not None:
        held_out = _development_subjects(data)
        sources |= {
            "patterns": _grouped([*_pararel(data), *_lre(data)]),
            "zsre": _grouped(_zsre(data, held_out)),
            "mquake": _grouped(_mquake(data, held_out)),
        }
    return Corpus({name: groups for name, groups in sources.items() if groups})


def write(data: Path, out: Path, name: str = "minilm") -> None:
    """Train the adapter of the encoder `name` on `data` and write it to `out` (safetensors)."""
    encoder = SentenceEncoder(resolve(name))
    made_for = encoder.fingerprint
    factors = train(encoder, corpus(data))
    save_file(factors, out, metadata={"encoder": made_for, "steps": str(STEPS), "seed": str(SEED)})


def train(
    encoder: SentenceEncoder, data: Corpus, *, steps: int = STEPS, seed: int = SEED
) -> dict[str, Tensor]:
    """Adapter factors for `encoder`, float32, as `SentenceEncoder.adapted` takes them.

    The encoder itself is changed: load a fresh one to use it.
    """
    rng = random.Random(seed)
    bert, tokenizer = encoder.transformer, encoder.tokenizer
    before = {text: vector for text, vector in _encoded(encoder, data)}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapters = _low_rank(bert)
        parameters = [p for adapter in adapters.values() for p in adapter.parameters()]
        optimiser = torch.optim.AdamW(parameters, _LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, _LEARNING_RATE, total_steps=steps, pct_start=0.1
        )
        bert.train()
        with Progress(transient=True) as progress:
            for _ in progress.track(range(steps), description="Training the scope adapter"):
                batch = data.draw(rng)
                vectors = _embed(bert, tokenizer, [wording for wording, _, _ in batch])
                loss = _contrast(vectors, batch, torch.stack([before[w] for w, _, _ in batch]))
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                schedule.step()
    return {
        f"{name}.{part}": factor.detach().contiguous()
        for name, adapter in adapters.items()
        for part, factor in (("down", adapter.down), ("up", _SCALE * adapter.up))
    }


class LowRank(nn.Module):
    """Adds `up @ down` to a weight (out, in): down (rank, in), up (out, rank), zero at first."""

    def __init__(self, out: int, into: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, into) * into**-0.5)
        self.up = nn.Parameter(torch.zeros(out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        return weight + _SCALE * self.up @ self.down


def _low_rank(bert: nn.Module) -> dict[str, LowRank]:
    """Freeze `bert` and put a LowRank on every linear map of its blocks; by parameter name."""
    bert.requires_grad_(False)
    adapters = {}
    for name, module in bert.named_modules():
        if isinstance(module, nn.Linear) and ".layer." in f".{name}":
            out, into = module.weight.shape
            adapter = LowRank(out, into, RANK)
            register_parametrization(module, "weight", adapter)
            adapters[f"{name}.weight"] = adapter
    return adapters


def _embed(bert: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Unit vectors (n, d): the mean over tokens, as the encoder itself pools."""
    inputs = tokenizer(
        list(texts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
    ).to(bert.device)
    states = bert(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    return F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def _contrast(vectors: Tensor, batch: Sequence[tuple[str, str, str]], before: Tensor) -> Tensor:
    """InfoNCE over the batch: every positive pair against all negatives of its first member."""
    relations = [relation for _, relation, _ in batch]
    same = torch.tensor([[a == b for b in relations] for a in relations])
    own = torch.eye(len(batch), dtype=torch.bool)
    ignored = own | (~same & (_overlapping(relations) | _maybe_same(batch, before)))
    scores = (vectors @ vectors.T / _TEMPERATURE).masked_fill(ignored, -1e4)
    negatives = scores.masked_fill(same, -1e4).logsumexp(1, keepdim=True)
    positive = same & ~own
    return -F.logsigmoid(scores - negatives)[positive].mean()


def _overlapping(relations: Sequence[str]) -> Tensor:
    found = torch.zeros(len(relations), len(relations), dtype=torch.bool)
    for group in _OVERLAP:
        inside = torch.tensor([relation in group for relation in relations])
        found |= inside[:, None] & inside[None]
    return found


def _maybe_same(batch: Sequence[tuple[str, str, str]], before: Tensor) -> Tensor:
    """Pairs across sources (or within one whose relations are not named) that were close before."""
    sources = [source for _, _, source in batch]
    unnamed = torch.tensor([source in ("zsre", "mquake") for source in sources])
    across = torch.tensor([[a != b for b in sources] for a in sources]) | unnamed[:, None]
    return across & (before @ before.T > _CLOSE)


def _encoded(encoder: SentenceEncoder, data: Corpus) -> Iterator[tuple[str, Tensor]]:
    texts = sorted({w for groups in data.sources.values() for ws in groups.values() for w in ws})
    yield from zip(texts, torch.from_numpy(encoder.encode(texts)), strict=True)


# --- data -----------------------------------------------------------------------------------------


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """relation -> its wordings, where there are at least two."""
    groups: dict[str, set[str]] = {}
    for relation, wording in pairs:
        groups.setdefault(relation, set()).add(wording)
    return {key: tuple(sorted(found)) for key, found in groups.items() if len(found) > 1}


def _relations() -> Iterator[tuple[str, str]]:
    for line in files("lifelong.train").joinpath("relations.jsonl").read_text().splitlines():
        record = json.loads(line)
        for prompt in record["prompts"]:
            at = prompt.index("{}")
            yield record["relation"], focus(prompt, ((at, at + 2),))


def _pararel(data: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(data.glob("pararel/graphs_json/*.jsonl")):
        for record in _lines(path):
            match = re.match(r"(.*\[X\].*)\[Y\](.{0,11})$", record["pattern"])
            if match:
                yield path.stem, match.group(1).replace("[X]", "this").strip()


def _lre(data: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(data.glob("lre_relations/*/*.json")):
        if path.stem.startswith("occupation_"):
            continue  # "{} are typically" asks for two relations at once
        record = json.loads(path.read_text())
        for template in record["prompt_templates"] + record.get("prompt_templates_zs", []):
            question, mark, _ = template.partition("?")
            yield record["name"], template.replace("{}", "this")
            if mark and "{}" in question:
                yield record["name"], f"{question}?".replace("{}", "this")


def _zsre(data: Path, held_out: frozenset[tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    for number, record in enumerate(_lines(data / "zsre/mend-train-1k.jsonl")):
        subject = record["subject"]
        if subject_key(subject) not in held_out:
            texts = (masked(record[name], subject) for name in ("src", "rephrase"))
            yield from ((f"zsre {number}", text) for text in texts if text)


def _mquake(data: Path, held_out: frozenset[tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    seen = set()
    for number, record in enumerate(_lines(data / "mquake/edit-to-questions.jsonl")):
        subject = _shared_subject(record["edit"], record["questions"])
        if subject is None or subject_key(subject) in held_out:
            continue
        texts = frozenset(filter(None, (masked(q, subject) for q in record["questions"])))
        if texts not in seen:
            seen.add(texts)
            yield from ((f"mquake {number}", text) for text in sorted(texts))


def _shared_subject(statement: str, questions: Sequence[str]) -> str | None:
    """The longest capitalised run of words of `statement` that all `questions` hold."""
    spots = words(statement)
    runs = (statement[a.start : b.end] for a, b in combinations([*spots, *spots], 2))
    named = {run for run in runs if run and (run[0].isupper() or run[0].isdigit())}
    shared = [run for run in named if all(run.lower() in q.lower() for q in questions)]
    return max(shared, key=lambda run: (len(run), run), default=None)


def _development_subjects(data: Path) -> frozenset[tuple[str, ...]]:
    found = set()
    for path in sorted(data.glob("*/*-dev.jsonl")):
        for record in _lines(path):
            rewrites = record.get("requested_rewrite", [])
            named = [record, *(rewrites if isinstance(rewrites, list) else [rewrites])]
            found |= {subject_key(r["subject"]) for r in named if "subject" in r}
    return frozenset(found)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open() as file:
            yield from map(json.loads, file)


if __name__ == "__main__":
    typer.run(write)
