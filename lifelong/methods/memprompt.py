"""MemPrompt: Memory-assisted Prompt Editing (Madaan et al., 2022).

    memory: question without its argument -> feedback     "what is like < good >?"
    prompt: question | feedback                           "... | by like I mean a synonym"

An edit's target is not an answer but *feedback*: how questions of this kind are meant. The model
reads it behind the question and is free in what it says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lifelong.lm import LM
from lifelong.prompt import Condition, Prompt
from store import Edit, Hint


@dataclass(frozen=True, slots=True)
class MemPrompt:
    """Feedback on how to answer, read behind the question."""

    name: ClassVar[str] = "memprompt"
    by_subject: ClassVar[bool] = False

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hint:
        """The feedback itself."""
        return Hint(self.name, tuple(edit.target for edit in edits))

    def condition(self, lm: LM, prompt: Prompt, edit: Edit, text: str) -> Condition:
        """The question, and behind it the feedback."""
        if prompt.messages is None:
            return Condition(None, text=f"{prompt.text} | {text}\n")
        last = prompt.messages[-1]
        clarified = {**last, "content": f"{last['content']} | {text}"}
        return Condition(None, (*prompt.messages[:-1], clarified))
