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
from store.records import canonical


class Contender(Contract):
    """One row of the table."""

    name: str
    gated: bool  # whether most prompts are left to the base model

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

    def state(self) -> str | None:
        """What `forward` depends on; None where `forward` is not what answers."""
        ...

    def untouched(self) -> AbstractContextManager[object]:
        """The base model, exactly, for as long as the block runs."""
        ...


def state(model: EditableModel) -> str:
    """What the edits have changed in the model itself; nothing ("") while they are texts (Hint).

    The one place where a method that changes hooks or weights plugs in: it must give another text
    whenever another `forward` results, because a reply is kept under what shaped it.
    """
    return canonical(model.written) if model.written else ""


def shape(state: str, route: Route) -> str:
    """What shapes a reply along `route`: the model's state, the places of the edits that fire.

    And where its hops lead. "" is the base model's own reply. Nothing else decides a reply, so it
    is asked for once.
    """
    fired = ",".join(str(hit.edit.provenance["place"]) for hit in route.hits)
    led = state + "".join(f" -> {hop.target}" for hop in route.chain)
    return f"{led};{fired}" if led else fired


class Edited:
    """An EditableModel that was taught the stream so far."""

    gated = True

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
        now = state(self._model)
        return [shape(now, route) for route in self._view.routes(questions)]

    def ways(self, texts: Sequence[str]) -> list[list[str]]:
        """Where the hops of each text lead, in order."""
        questions = [self._protocol.prompt(self._lm, text).question for text in texts]
        return [[hop.target for hop in route.chain] for route in self._view.routes(questions)]

    def prompt(self, text: str, shape: str) -> Prompt:
        """The text itself: whatever else is read, the method adds."""
        return self._protocol.prompt(self._lm, text)

    def state(self) -> str:
        """See `Contender.state`."""
        return state(self._model)

    def untouched(self) -> AbstractContextManager[object]:
        """See `Contender.untouched`."""
        return self._model.disable_edits()
