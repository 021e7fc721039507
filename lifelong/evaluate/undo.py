"""Is undo exact?  On a copy of a store: half of its edits are undone, then the rest."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, cast

import torch

from lifelong.encoder import Encoder
from lifelong.evaluate.contender import Edited
from lifelong.evaluate.protocol import Protocol, replies
from lifelong.evaluate.stream import Item
from lifelong.feed import record
from lifelong.lm import LM
from lifelong.methods import Method, WeightMethod
from lifelong.models import fingerprint
from lifelong.prompt import pad_left
from lifelong.runtime import EditableModel
from store import Journal

PROMPTS = 32  # that are compared

_LOGITS = 8  # tokens of a reply whose logits are compared


@dataclass(frozen=True)
class Drill:
    """What is undone: the edits of `items` by `method` of `methods`, for the model in `lm`."""

    lm: LM
    encoder: Encoder
    protocol: Protocol
    method: str
    methods: Mapping[str, Method]
    items: Sequence[Item]
    seed: int

    def run(self, store: Path) -> dict[str, Any]:
        """Shares of prompts that are equal, seconds an undo; `store` itself is left as it is.

        `half`: same routes and same replies as of a fresh model that was given only the other half.
        Weights and neurons were made in view of the edits before them, so theirs are compared with
        those of a fresh model on the same store.
        `all`: logits bitwise the base model's; `weights`: their hash is what it was.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            with Journal.read(store) as journal:
                journal.backup(copy)
            return self._on(copy, Path(folder) / "half.db")

    def _on(self, copy: Path, half: Path) -> dict[str, Any]:
        before = fingerprint(self.lm.model)
        with self._open(copy) as model:
            live = [int(cast("int", e.provenance["place"])) for e in model.list("live")]
            gone = set(Random(self.seed).sample(live, len(live) // 2))
            seconds = list(self._undo(model, gone))
            halved = self._answers(model)
            with Journal.read(copy) as journal:
                journal.backup(half)
            while model.list("live"):  # an undone edit brings back what it had replaced
                seconds += self._undo(model, None)
            equal = [self._as_base(model, text) for text in self._prompts()]
        after = fingerprint(self.lm.model)
        alone = not isinstance(self.methods[self.method], WeightMethod)
        fresh = self._taught(gone) if alone else self._reopened(half)
        same = [halved[text] == fresh[text] for text in halved]
        return {
            "half": {"n": len(same), "equal": sum(same)},
            "all": {"n": len(equal), "equal": sum(equal)},
            "weights": before == after,
            "seconds": seconds,
        }

    def _open(self, store: Path | str) -> EditableModel:
        model, tokenizer = self.lm.model, self.lm.tokenizer
        return EditableModel(
            model,
            tokenizer,
            store=store,
            encoder=self.encoder,
            method=self.method,
            methods=self.methods,
        )

    def _prompts(self) -> list[str]:
        prompts = list(dict.fromkeys(item.edit.prompt for item in self.items))
        return Random(self.seed).sample(prompts, min(PROMPTS, len(prompts)))

    def _undo(self, model: EditableModel, places: set[int] | None) -> Iterator[float]:
        """Seconds of each undo; None undoes all that is live."""
        for edit in model.list("live"):
            if places is None or edit.provenance["place"] in places:
                began = perf_counter()
                model.undo(edit.id)
                yield perf_counter() - began

    def _reopened(self, half: Path) -> dict[str, object]:
        with self._open(half) as model:
            return self._answers(model)

    def _taught(self, gone: set[int]) -> dict[str, object]:
        with self._open(":memory:") as model:
            for item in self.items:
                if item.place not in gone:
                    list(record(model.edit_many, [item.edit]))
            return self._answers(model)

    def _answers(self, model: EditableModel) -> dict[str, object]:
        """Text -> what shapes its reply, and the ids of the reply; in the same batch every time."""
        who, texts = Edited(model, self.lm, self.protocol, self.method), self._prompts()
        prompts = [who.prompt(text, "") for text in texts]
        said = replies(self.lm, who.generate, self.protocol, prompts)
        shaped = zip(who.shapes(texts), (reply.ids for reply in said), strict=True)
        return dict(zip(texts, shaped, strict=True))

    def _as_base(self, model: EditableModel, text: str) -> bool:
        now = self._logits(model, text)
        with model.disable_edits():
            return torch.equal(now, self._logits(model, text))

    def _logits(self, model: EditableModel, text: str) -> torch.Tensor:
        ids, mask = pad_left(self.lm, [self.protocol.prompt(self.lm, text)])
        options: dict[str, Any] = {"do_sample": False, "max_new_tokens": _LOGITS}
        options |= {"return_dict_in_generate": True, "output_logits": True}
        out = cast("Any", model.generate(ids, attention_mask=mask, **options))
        return torch.cat(out.logits)
