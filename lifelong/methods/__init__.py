"""The methods: one file each, one line in the table each.

A method *proposes*: it computes a Patch and leaves the model bitwise as it found it. The runtime
journals the patch and installs it. A method whose patch is a Hint also *conditions*: it says what
the model is to read and what it must say when a prompt is in an edit's scope.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from lifelong.lm import LM
from lifelong.methods.ike import Ike
from lifelong.methods.language_patch import LanguagePatch
from lifelong.methods.memprompt import MemPrompt
from lifelong.methods.serac import Serac
from lifelong.prompt import Condition, Prompt
from store import Edit, Patch


class Method(Protocol):
    """What the runtime asks of a method."""

    name: ClassVar[str]
    by_subject: ClassVar[bool]  # are its edits about a subject, to be guessed where none is given?

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Patch:
        """One patch for a batch of edits (one edit is a batch of one). Pure."""
        ...

    def condition(self, lm: LM, prompt: Prompt, edit: Edit, text: str) -> Condition:
        """How `prompt` is answered in the scope of `edit`, of which `propose` made `text`."""
        ...


METHODS: Mapping[str, Method] = {
    method.name: method for method in (Serac(), Ike(), MemPrompt(), LanguagePatch())
}
