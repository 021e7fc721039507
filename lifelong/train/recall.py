"""Trains the sentence encoder's adapter: wordings of one relation close, other relations far.

    same relation, other words:  close        "Who runs this?"        "The boss of this is"
    other relation:              far          "Where is this based?"  "The boss of this is"

Texts carry "this" for their subject (`subject.focus`), so only the relation is learnt. The loss is
contrastive: each positive against all negatives of the batch (InfoNCE, van den Oord et al. 2018).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F

from lifelong.encoder import SentenceEncoder
from lifelong.train.data import Corpus, overlapping, spoken
from lifelong.train.dress import Wardrobe, dress
from lifelong.train.lora import factors, low_rank

STEPS = 300

_LEARNING_RATE = 5e-4
_TEMPERATURE = 0.05
_MAX_TOKENS = 48
_TOGETHER = 32  # texts that pass the encoder at once
_CLOSE = 0.6  # cosine from which an unnamed relation may be the same one: no negative
_RELATIONS, _COMPLETIONS, _PAIRS = 15, 8, 12  # of a step; a rival comes with each relation
_RIVALS = 6  # nearest relations, before training
_WORDINGS = 3  # of a relation


@dataclass(frozen=True)
class Drawn:
    """A wording of a batch, also as it stands in a prompt, its relation, and the wordings that are
    no negatives of it.
    """

    text: str
    said: str
    relation: str
    named: bool
    alike: frozenset[str]


def train(
    encoder: SentenceEncoder, data: Corpus, *, steps: int = STEPS, seed: int = 0
) -> dict[str, Tensor]:
    """Adapter factors for `encoder`, float32, as `SentenceEncoder.adapt` takes them.

    The encoder itself is changed: load a fresh one to use it.
    """
    rng = random.Random(seed)
    before = _encoded(encoder, data)
    rivals = _rivals(data, before)
    bert = encoder.transformer
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapters = low_rank(bert)
        parameters = [p for adapter in adapters.values() for p in (adapter.down, adapter.up)]
        optimiser = torch.optim.AdamW(parameters, _LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, _LEARNING_RATE, total_steps=steps, pct_start=0.1
        )
        bert.train()
        with Progress(transient=True) as progress:
            for _ in progress.track(range(steps), description="Training the encoder's adapter"):
                batch = _draw(data, rivals, rng)
                with torch.autocast("cpu", torch.bfloat16):
                    vectors = _embed(encoder, [drawn.said for drawn in batch])
                loss = _contrast(vectors, batch, torch.stack([before[d.text] for d in batch]))
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                schedule.step()
    return factors(adapters)


def _rivals(data: Corpus, vectors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The nearest relations of every one that are another one for sure."""
    names = sorted(data.relations)
    wordings = (sorted(data.relations[name].wordings) for name in names)
    means = [torch.stack([vectors[text] for text in texts]).mean(0) for texts in wordings]
    unit = F.normalize(torch.stack(means), dim=-1)
    found = {}
    for name, closeness in zip(names, unit @ unit.T, strict=True):
        near, alike = (names[i] for i in closeness.argsort(descending=True)), overlapping(name)
        found[name] = [other for other in near if other not in alike][:_RIVALS]
    return found


def _draw(data: Corpus, rivals: Mapping[str, Sequence[str]], rng: random.Random) -> list[Drawn]:
    names = rng.sample(sorted(data.relations), min(_RELATIONS, len(data.relations)))
    names = list(dict.fromkeys(n for name in names for n in (name, rng.choice(rivals[name]))))
    completed = rng.sample(sorted(data.completions), min(_COMPLETIONS, len(data.completions)))
    pairs = rng.sample(range(len(data.pairs)), min(_PAIRS, len(data.pairs)))
    batch = []
    for group, some in ((data.relations, names), (data.completions, completed)):
        for name in some:
            wordings = sorted(group[name].wordings)
            alike = data.relations[name].wordings | group[name].wordings
            answer = rng.choice(group[name].answers or ("",))
            wardrobe = Wardrobe(answer, spoken(name), data.plain)
            for text in rng.sample(wordings, min(_WORDINGS, len(wordings))):
                batch.append(Drawn(text, dress(text, wardrobe, rng), name, True, alike))
    for at in pairs:
        texts, wardrobe = frozenset(data.pairs[at][:2]), Wardrobe(plain=data.plain)
        for text in sorted(texts):
            batch.append(Drawn(text, dress(text, wardrobe, rng), f"pair {at}", False, texts))
    return batch


def _embed(encoder: SentenceEncoder, texts: Sequence[str]) -> Tensor:
    """Unit vectors (n, d): the mean over tokens, as the encoder itself pools.

    Texts of a length go together, so that little is padded.
    """
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    parts = [
        _pooled(encoder, [texts[at] for at in order[start : start + _TOGETHER]])
        for start in range(0, len(order), _TOGETHER)
    ]
    return torch.cat(parts)[torch.tensor(order).argsort()]


def _pooled(encoder: SentenceEncoder, texts: Sequence[str]) -> Tensor:
    inputs = encoder.tokenizer(
        list(texts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
    ).to(encoder.transformer.device)
    states = encoder.transformer(**inputs).last_hidden_state.float()
    mask = inputs["attention_mask"].unsqueeze(-1)
    return F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def _contrast(vectors: Tensor, batch: Sequence[Drawn], before: Tensor) -> Tensor:
    """InfoNCE over the batch: every positive pair against all negatives of its first member."""
    same = torch.tensor(
        [[b.text in a.alike and a.relation == b.relation for b in batch] for a in batch]
    )
    own = torch.eye(len(batch), dtype=torch.bool)
    close = [overlapping(drawn.relation) for drawn in batch]
    doubtful = torch.tensor(
        [[b.relation in close[i] or b.text in a.alike for b in batch] for i, a in enumerate(batch)]
    )
    unnamed = torch.tensor([not drawn.named for drawn in batch])
    doubtful |= (unnamed[:, None] | unnamed[None]) & (before @ before.T > _CLOSE)
    ignored = own | (~same & (doubtful | doubtful.T))
    scores = (vectors @ vectors.T / _TEMPERATURE).masked_fill(ignored, -1e4)
    negatives = scores.masked_fill(same, -1e4).logsumexp(1, keepdim=True)
    return -F.logsigmoid(scores - negatives)[same & ~own].mean()


def _encoded(encoder: SentenceEncoder, data: Corpus) -> dict[str, Tensor]:
    texts = sorted(
        set().union(*(relation.wordings for relation in data.relations.values()))
        | set().union(*(relation.wordings for relation in data.completions.values()))
        | {text for pair in data.pairs for text in pair[:2]}
    )
    return dict(zip(texts, torch.from_numpy(encoder.encode(texts)), strict=True))
