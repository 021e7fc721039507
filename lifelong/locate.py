"""Where does a model recall a fact?  Two answers, each a map of layers by tokens; and pictures.

    tracing   corrupt the subject's embeddings, restore one clean state: P(restored) - P(corrupted)
              (Meng et al. 2022)
    neurons   integrated gradients of P(answer) over the MLPs' activations, the positive ones summed
              (Dai et al. 2022)

The layers of a weight method follow from such maps only roughly: what counts in the end is a sweep.
GRACE has one: `methods/sweep.py`.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lifelong.errors import BadEdit, NoReport, PackageMissing
from lifelong.lm import LM
from lifelong.methods.blocks import Blocks
from lifelong.methods.keys_values import SPAN
from lifelong.methods.knowledge_neurons import attribution
from lifelong.methods.sweep import Reading

RUNS = 10  # corrupted ones, which are averaged
NOISE = 3.0  # standard deviations of the subject's embeddings


@dataclass(frozen=True, eq=False)
class Map:
    """`effects` (layers, tokens): how much of the answer is recalled there."""

    tokens: tuple[str, ...]
    subject: tuple[int, ...]  # the places of its tokens
    answer: str
    probability: float  # of the answer, as things are: a fact that is not known is nowhere
    effects: torch.Tensor

    @property
    def layers(self) -> list[int]:
        """The layers up to the one that counts most at the subject's last token."""
        best = int(self.effects[:, self.subject[-1]].argmax())
        return list(range(max(0, best - SPAN + 1), best + 1))


@torch.no_grad()
def tracing(lm: LM, prompt: str, subject: str) -> Map:
    """The map of single states that bring the answer back. Raises BadEdit."""
    ids, places = _read(lm, prompt, subject)
    width = len(ids)
    many = Blocks(lm, range(lm.layers), [()] * (RUNS * width), [ids] * (RUNS * width))
    few = many.only(torch.arange(1 + RUNS, device=lm.device))  # a clean one, and the corrupted
    hidden, states = few.start.clone(), list[torch.Tensor]()
    noise = torch.randn(
        (RUNS, len(places), lm.hidden),
        generator=torch.Generator().manual_seed(zlib.crc32(prompt.encode())),
    ).to(hidden)
    hidden[1:, places] += NOISE * hidden[0, places].std() * noise
    for layer in range(lm.layers):
        hidden = few.step(hidden, layer)
        states.append(hidden)
    said = _said(lm, hidden)
    answer = int(said[0].argmax())
    corrupted = said[1:, answer].mean()
    effects = torch.empty(lm.layers, width)
    for layer, state in enumerate(states):
        restored = state[1:].repeat(width, 1, 1, 1)  # (tokens, runs, tokens, H)
        for place in range(width):
            restored[place, :, place] = state[0, place]
        out = many.run(restored.flatten(0, 1), layer + 1)
        effects[layer] = _said(lm, out)[:, answer].view(width, RUNS).mean(1) - corrupted
    return _map(lm, ids, places, answer, float(said[0, answer]), effects)


def neurons(lm: LM, prompt: str, subject: str) -> Map:
    """The map of activations that carry the answer. Raises BadEdit."""
    ids, places = _read(lm, prompt, subject)
    with torch.no_grad():
        said = lm.model(input_ids=torch.tensor([ids], device=lm.device)).logits[0, -1].softmax(-1)
    answer = int(said.argmax())
    columns = [attribution(lm, ids, at, answer)[1].clamp(min=0).sum(1) for at in range(len(ids))]
    return _map(lm, ids, places, answer, float(said[answer]), torch.stack(columns, dim=1))


BY: Mapping[str, Callable[[LM, str, str], Map]] = {"tracing": tracing, "neurons": neurons}


def _read(lm: LM, prompt: str, subject: str) -> tuple[list[int], list[int]]:
    """The prompt's tokens, and the places of the subject's."""
    start = prompt.rfind(subject) if subject else -1
    if start < 0:
        raise BadEdit(f"{subject!r} is not in {prompt!r}.", "Give the subject as it stands there.")
    encoded = lm.tokenizer(prompt, return_offsets_mapping=True)
    places = [
        i
        for i, (a, b) in enumerate(encoded["offset_mapping"])
        if a < start + len(subject) and b > start
    ]
    return list(encoded["input_ids"]), places


def _said(lm: LM, hidden: torch.Tensor) -> torch.Tensor:
    """Probabilities of what comes next, (B, vocabulary)."""
    return lm.head(lm.module("final_norm")(hidden[:, -1])).float().softmax(-1)


def _map(
    lm: LM,
    ids: list[int],
    places: list[int],
    answer: int,
    probability: float,
    effects: torch.Tensor,
) -> Map:
    tokens = tuple(str(lm.tokenizer.decode([id])) for id in ids)
    said = str(lm.tokenizer.decode([answer]))
    return Map(tokens, tuple(places), said, probability, effects.float().cpu())


def draw(found: Map, path: Path) -> None:
    """The map as a picture. Raises PackageMissing, NoReport."""
    figure = _figure(9, 1.2 + 0.3 * len(found.tokens))
    axes = figure.subplots()
    shown = axes.imshow(found.effects.T.numpy(), aspect="auto", cmap="Purples", vmin=0)
    names = [f"{t}*" if i in found.subject else t for i, t in enumerate(found.tokens)]
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("layer")
    axes.set_title(f"Where {found.answer!r} is recalled (* the subject)", fontsize=10)
    figure.colorbar(shown, label="share of its probability")
    _save(figure, path)


def draw_sweep(readings: Sequence[Reading], layer: int, path: Path) -> None:
    """Success and drift by layer as a picture. Raises PackageMissing, NoReport."""
    figure = _figure(6, 4.5)
    above, below = figure.subplots(2, sharex=True)
    layers = [reading.layer for reading in readings]
    above.plot(layers, [reading.said for reading in readings], "o-", label="said")
    above.plot(layers, [reading.reworded for reading in readings], "s--", label="reworded")
    above.set_ylim(-0.05, 1.05)
    above.set_ylabel("share of the facts")
    above.legend()
    below.plot(layers, [reading.drift for reading in readings], "o-")
    below.set_ylabel("drift, nats a token")
    below.set_xlabel("layer")
    for axes in (above, below):
        axes.axvline(layer, color="grey", linewidth=0.5)
    above.set_title(f"Values in one layer: {layer} is chosen", fontsize=10)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure  # an optional dependency
    except ImportError as exc:
        raise PackageMissing("Pictures need matplotlib.", "`pip install lifelong[plots]`.") from exc
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path)
    except (OSError, ValueError) as exc:
        raise NoReport(f"{path} cannot be written ({exc}).", "Give another --plot.") from exc
