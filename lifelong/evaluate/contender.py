"""Who is measured: the edited model here, the baselines next door. All are asked in one way."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from typing import Protocol as Contract

import torch

from lifelong.evaluate.protocol import Protocol
from lifelong.evaluate.stream import Item
from lifelong.generate import Output
from lifelong.lm import LM
from lifelong.prompt import Prompt
from lifelong.router import Route
from lifelong.runtime import EditableModel
from lifelong.view import View


class Contender(Contract):
    """One row of the table."""

    name: str

    def generate(self, input_ids: torch.Tensor, **kwargs: Any) -> Output:
        """transformers' `generate`."""
        ...

    def at(self, items: Sequence[Item]) -> None:
        """From now on, `items` (the stream so far) are known."""
        ...

    def shapes(self, texts: Sequence[str]) -> list[str]:
        """What shapes the reply to each text; "" where it is the base model's own."""
        ...

    def prompt(self, text: str, shape: str) -> Prompt:
        """What the model reads."""
        ...

    def untouched(self) -> AbstractContextManager[object]:
        """The base model, exactly, for as long as the block runs."""
        ...


def shape(route: Route) -> str:
    """What shapes a reply along `route`: the places of the edits that fire, the best first.

    A text that a method reads (Hint) depends on nothing else, so a reply is asked for once whatever
    else is learnt. A method that changes hooks or weights must put the model's state in front: its
    replies may change with every edit. "" is kept for the base model's own reply.
    """
    return ",".join(str(hit.edit.provenance["place"]) for hit in route.hits)


class Edited:
    """An EditableModel that was taught the stream so far."""

    def __init__(self, model: EditableModel, lm: LM, protocol: Protocol, name: str) -> None:
        self.name = name
        self._model = model
        self._lm = lm
        self._protocol = protocol
        self._view: View = model.at(model.epoch)

    def at(self, items: Sequence[Item]) -> None:
        """Answer as of now; the edits are in the model's journal."""
        self._view = self._model.at(self._model.epoch)

    def generate(self, input_ids: torch.Tensor, **kwargs: Any) -> Output:
        """The edited model's."""
        return self._view.generate(input_ids, **kwargs)

    def shapes(self, texts: Sequence[str]) -> list[str]:
        """See `Contender.shapes`."""
        questions = [self._protocol.prompt(self._lm, text).question for text in texts]
        return [shape(self._view.explain(question)) for question in questions]

    def prompt(self, text: str, shape: str) -> Prompt:
        """The text itself: whatever else is read, the method adds."""
        return self._protocol.prompt(self._lm, text)

    def untouched(self) -> AbstractContextManager[object]:
        """See `Contender.untouched`."""
        return self._model.disable_edits()
