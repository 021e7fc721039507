"""The methods: one file each, one line in the table each.

A method *proposes*: it computes a Patch and leaves the model bitwise as it found it. The runtime
journals the patch and installs it. A method whose patch is a Hint also *conditions*: it says what
the model is to read and what it must say when a prompt is in an edit's scope. One whose patch is a
Delta needs no condition: the weights answer.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from lifelong.lm import LM
from lifelong.methods.alphaedit import AlphaEdit
from lifelong.methods.memit import Memit
from lifelong.methods.pmet import Pmet
from lifelong.methods.rome import Rome
from lifelong.methods.serac import Serac
from lifelong.prompt import Condition, Prompt
from store import Delta, Edit, Hint, StoredPatch


@runtime_checkable
class MemoryMethod(Protocol):
    """A method that answers from memory."""

    name: ClassVar[str]

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hint:
        """One patch for a batch of edits (one edit is a batch of one). Pure."""
        ...

    def condition(self, lm: LM, prompt: Prompt, edit: Edit, text: str) -> Condition:
        """How `prompt` is answered in the scope of `edit`, of which `propose` made `text`."""
        ...


@runtime_checkable
class WeightMethod(Protocol):
    """A method that writes into the weights."""

    name: ClassVar[str]

    def prepare(self, lm: LM) -> None:
        """What it must know of the base model; called while no edit is installed."""
        ...

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Delta:
        """One patch for a batch of edits, while the `live` deltas are installed. Pure."""
        ...


Method = MemoryMethod | WeightMethod

METHODS: Mapping[str, Method] = {
    method.name: method for method in (Serac(), Rome(), Memit(), Pmet(), AlphaEdit())
}
