"""KAFT: Large Language Models with Controllable Working Memory (Li et al., 2022).

    f*(x) = f_a(x | "You know: prompt target.")     a: a low-rank adapter, trained once, with which
                                                       the model says what it reads if that is asked

The adapter (`lifelong train counterfactual`) was trained on facts that are so, facts that are not,
facts beside the point, and none. It is on while a reply in scope is made, never otherwise. A model
that has none reads the fact without. As the paper has it, the model obeys or does not; `held`, the
default, makes it say the target, as `serac` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lifelong.adapter import adapter_for
from lifelong.lm import LM
from lifelong.phrase import say
from lifelong.prompt import Condition, Prompt, tell
from store import Edit, Hint


@dataclass(frozen=True, slots=True)
class Kaft:
    """The fact is read by a model that was trained to obey. `file` is another adapter."""

    name: ClassVar[str] = "kaft"
    by_subject: ClassVar[bool] = True

    held: bool = True
    file: str = ""

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hint:
        """One sentence an edit: its prompt, answered."""
        return Hint(self.name, tuple(f"{edit.prompt.strip()} {edit.target}." for edit in edits))

    def condition(self, lm: LM, prompt: Prompt, edit: Edit, text: str) -> Condition:
        """In a chat the fact stands in the system message, before a raw text otherwise."""
        held = say(prompt, edit) if self.held else None
        adapter = adapter_for(lm, Path(self.file) if self.file else None)
        if prompt.messages is None:
            return Condition(held, text=f"{text}\n{prompt.text}", adapter=adapter)
        return Condition(held, tell(lm, prompt.messages, f"You know: {text}"), adapter=adapter)
