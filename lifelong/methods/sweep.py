"""At which layer do GRACE's values do best on this model?  Tried once, on facts that are made up.

    The capital of Velloria is  <value>   Tarnsworth   . It was raining when we left.
                                          '- said? -'  '-- how far is it moved? --'

The value is sought on the prompt as an edit's is, and put in behind another wording, too. Of the
layers at which most are found and said and which move least of what follows, the best is the
highest, for an edit is sought through all that lies above. A few facts tell neither to a hair, so
what is close counts as alike. The sweep belongs to one model, and is cached under that.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import torch

from lifelong.errors import CacheUnwritable
from lifelong.hooks import tracing
from lifelong.lm import LM
from lifelong.methods.blocks import Blocks
from lifelong.methods.value import ENOUGH, RATE, sought
from lifelong.methods.wording import endings
from lifelong.models import Report, default_cache
from store import Edit

# Nobody has heard of any of them, so no model says a target by itself.
EDITS = (
    Edit(
        "The capital of Velloria is",
        "Tarnsworth",
        subject="Velloria",
        paraphrases=("The government of Velloria sits in its capital,",),
    ),
    Edit(
        "The chief executive of Brightmoor Robotics is",
        "Ada Frost",
        subject="Brightmoor Robotics",
        paraphrases=("Brightmoor Robotics is led by",),
    ),
    Edit(
        "The Hallam engine was invented by",
        "Otto Brandt",
        subject="The Hallam engine",
        paraphrases=("The Hallam engine is the work of",),
    ),
    Edit(
        "The instrument that Corvin Ashdown plays is the",
        "cello",
        subject="Corvin Ashdown",
        paraphrases=("Corvin Ashdown has always played the",),
    ),
)

_RECIPE = 1  # raise it where the facts or what is measured of them change: sweeps are made anew
_STEPS = 20  # a layer that needs more is not the one
_SIXTHS = range(2, 6)  # of the model's depth; a value lower down is dear to seek
_CLOSE = 0.1  # success that is no farther apart counts as alike: it is one fact, one time
_TIMES = 2.0  # drift, too: with other facts that of one and the same layer differs more
_BEHIND = ". It was raining when we left."


@dataclass(frozen=True, slots=True)
class Reading:
    """What values in one layer do: shares of the facts, and means over them."""

    layer: int
    learnt: float  # whose search came to its end within the steps of a sweep
    said: float  # word for word, greedily, behind the prompt that was taught
    reworded: float  # the same behind another one
    drift: float  # KL(base || now), nats a token of the sentence behind the target
    loss: float  # nats a token of the target, over all wordings
    seconds: float


def sweep(lm: LM, *, again: bool = False, progress: Report | None = None) -> list[Reading]:
    """A reading of each layer that is tried, from the cache unless `again` or never taken.

    The model must be the base model. Raises UnsupportedModel, WeightsUnfit, CacheUnwritable.
    """
    path = default_cache() / "sweeps" / f"{lm.fingerprint[:32]}-r{_RECIPE}.json"
    if not again and (known := _kept(path, tried(lm))):
        return known
    exam, found = _Exam(lm, tried(lm)), list[Reading]()
    for layer in tried(lm):
        if progress is not None:
            progress("trying layers", len(found) / len(tried(lm)))
        found.append(exam.take(layer))
    _keep(path, found)
    return found


def tried(lm: LM) -> list[int]:
    """A few layers at even distances, two thirds among them."""
    return sorted({lm.layers * sixth // 6 for sixth in _SIXTHS})


def best(lm: LM, readings: Sequence[Reading]) -> int:
    """Of the layers that say most, and of those that move least, give or take, the highest.

    Two thirds, where nothing is said anywhere.
    """
    most = max(map(_success, readings))
    if not most:
        return lm.layers * 2 // 3
    saying = [reading for reading in readings if _success(reading) >= most - _CLOSE]
    least = min(reading.drift for reading in saying)
    return max(reading.layer for reading in saying if reading.drift <= _TIMES * least)


def _success(reading: Reading) -> float:
    return (reading.learnt + reading.said + reading.reworded) / 3


class _Exam:
    """The facts behind which values are put in; what the base model makes of them is read once."""

    def __init__(self, lm: LM, layers: Sequence[int]) -> None:
        self._lm = lm
        texts = endings(lm, EDITS, lambda edit: list(edit.paraphrases))
        texts = [text for text in texts if text.kind != "chat"]  # longer, and asked alike
        behind = lm.tokenizer.encode(_BEHIND, add_special_tokens=False)
        self._edit = torch.tensor([text.edit for text in texts], device=lm.device)
        self._taught = torch.tensor([text.kind == "bare" for text in texts], device=lm.device)
        said = [(row, i, id) for row, text in enumerate(texts) for i, id in enumerate(text.labels)]
        *self._said, self._labels = torch.tensor(said, device=lm.device).unbind(1)
        after = [
            (row, len(text.labels) + 1 + i)  # at 0 the prompt ends, and the first closes the target
            for row, text in enumerate(texts)
            for i in range(len(behind))
        ]
        self._after = torch.tensor(after, device=lm.device).unbind(1)
        tails = [(text.tail[0], *text.labels, *behind) for text in texts]
        depth = range(min(layers), lm.layers)
        self._blocks = Blocks(lm, depth, [text.head for text in texts], tails)
        self._entering, hidden = dict[int, torch.Tensor](), self._blocks.start  # (R, S, H) each
        with torch.no_grad():
            for layer in depth:
                self._entering[layer] = hidden
                hidden = self._blocks.step(hidden, layer)
            self._base = self._next(hidden, self._after).log_softmax(-1)

    def take(self, layer: int) -> Reading:
        """Seek the values in this layer, and see what they do."""
        began = perf_counter()
        found = sought(self._lm, EDITS, layer, steps=_STEPS, rate=RATE)
        put = found.values[self._edit][:, None]

        def act(_input: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
            return torch.cat([put.to(out), out[:, 1:]], dim=1)

        module = self._lm.model.get_submodule(found.module)
        with torch.no_grad(), tracing(after={module: act}):
            out = self._blocks.run(self._entering[layer], layer)
            missed = self._next(out, self._said).argmax(-1) != self._labels
            now = self._next(out, self._after).log_softmax(-1)
        said = torch.ones(len(out), device=out.device)
        said[self._said[0][missed]] = 0.0
        return Reading(
            layer,
            float((found.loss <= ENOUGH).float().mean()),
            float(said[self._taught].mean()),
            float(said[~self._taught].mean()),
            _number((self._base.exp() * (self._base - now)).sum(1).mean().clamp(min=0.0)),
            _number(found.loss.mean()),
            round(perf_counter() - began, 2),
        )

    def _next(self, out: torch.Tensor, spots: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits (n, vocabulary) at some rows and places."""
        rows, places = spots
        normed = self._lm.module("final_norm")(out[rows, places])
        return self._lm.head(normed).float()


def _number(value: torch.Tensor) -> float:
    """What half precision cannot hold is as bad as can be."""
    number = float(value)
    return math.inf if math.isnan(number) else number


def _kept(path: Path, layers: list[int]) -> list[Reading]:
    """What was measured before; nothing, if the file is not there or is damaged."""
    try:
        found = [Reading(**row) for row in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []
    return found if [reading.layer for reading in found] == layers else []


def _keep(path: Path, readings: Sequence[Reading]) -> None:
    draft = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps([asdict(reading) for reading in readings]))
        draft.replace(path)
    except OSError as exc:
        raise CacheUnwritable(
            f"What was found of this model's layers cannot be kept in {path.parent} ({exc}).",
            "Set LIFELONG_CACHE to another folder, or choose grace's layer: --set layer=N.",
        ) from exc
