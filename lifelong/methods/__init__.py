"""The methods: one file each, one line in the table each.

A method *proposes*: it computes a Patch and leaves the model bitwise as it found it. The runtime
journals the patch and installs it. A method whose patch is a Hint also *conditions*: it says what
the model is to read and what it must say when a prompt is in an edit's scope. One whose patch is a
Delta needs no condition: the weights answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

from lifelong.errors import BadSetting
from lifelong.lm import LM
from lifelong.methods.alphaedit import AlphaEdit
from lifelong.methods.calinet import Calinet
from lifelong.methods.ft_constrained import FtConstrained
from lifelong.methods.grace import Grace
from lifelong.methods.idle_neurons import IdleNeurons
from lifelong.methods.ike import Ike
from lifelong.methods.kaft import Kaft
from lifelong.methods.knowledge_neurons import KnowledgeNeurons
from lifelong.methods.language_patch import LanguagePatch
from lifelong.methods.memit import Memit
from lifelong.methods.memit_csk import MemitCsk
from lifelong.methods.memprompt import MemPrompt
from lifelong.methods.pmet import Pmet
from lifelong.methods.rome import Rome
from lifelong.methods.serac import Serac
from lifelong.methods.t_patcher import TPatcher
from lifelong.methods.ultraedit import UltraEdit
from lifelong.prompt import Condition, Prompt
from store import Delta, Edit, Extension, Hint, Hook, StoredPatch


@runtime_checkable
class MemoryMethod(Protocol):
    """A method that answers from memory: a frozen dataclass whose fields are its options."""

    name: ClassVar[str]
    by_subject: ClassVar[bool]  # are its edits about a subject, to be guessed where none is given?

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hint:
        """One patch for a batch of edits (one edit is a batch of one). Pure."""
        ...

    def condition(self, lm: LM, prompt: Prompt, edit: Edit, text: str) -> Condition:
        """How `prompt` is answered in the scope of `edit`, of which `propose` made `text`."""
        ...


@runtime_checkable
class WeightMethod(Protocol):
    """A method that changes the model for every text: its weights, or neurons beside them."""

    name: ClassVar[str]
    by_subject: ClassVar[bool]

    def prepare(self, lm: LM) -> None:
        """What it must know of the base model; called while no edit is installed."""
        ...

    def propose(
        self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]
    ) -> Delta | Extension:
        """One patch for a batch of edits, while the `live` patches are installed. Pure.

        Among them are such as have no live edit now, and may have again.
        """
        ...


@runtime_checkable
class SideMethod(Protocol):
    """A method that acts inside the model on the prompts in an edit's scope; a frozen dataclass."""

    name: ClassVar[str]
    by_subject: ClassVar[bool]
    routed: ClassVar[bool]

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hook:
        """One patch for a batch of edits, while no edit is installed. Pure."""
        ...


Method = MemoryMethod | SideMethod | WeightMethod

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        *(Serac(), Ike(), Kaft(), MemPrompt(), LanguagePatch()),
        *(Grace(), TPatcher(), Calinet()),
        *(Rome(), Memit(), MemitCsk(), Pmet(), AlphaEdit(), UltraEdit(), FtConstrained()),
        *(KnowledgeNeurons(), IdleNeurons()),
    )
}


def with_options(name: str, options: Mapping[str, str]) -> Mapping[str, Method]:
    """METHODS, but `name` with these options, given as texts. Raises BadSetting."""
    method: Any = METHODS[name]
    kinds = {field.name: type(getattr(method, field.name)) for field in fields(method)}
    read: dict[str, object] = {}
    for key, text in options.items():
        if key not in kinds:
            known = ", ".join(sorted(kinds)) or "none"
            raise BadSetting(f"{name} has no option {key!r}.", f"Its options: {known}.")
        try:
            read[key] = _READ[kinds[key]](text)
        except (ValueError, KeyError) as exc:
            raise BadSetting(
                f"{key} of {name} cannot be {text!r}.", f"Give a {kinds[key].__name__}."
            ) from exc
    return {**METHODS, name: replace(method, **read)}


_READ: Mapping[type, Any] = {
    bool: {"true": True, "false": False, "1": True, "0": False}.__getitem__,
    int: int,
    float: float,
    str: str,
}
