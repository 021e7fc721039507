"""SERAC: Memory-Based Model Editing at Scale (Mitchell et al., 2022; survey Eq. 14).

    f*(x) = f_cf(x, z_e)   if x is in the scope of an edit e        f: the base model, untouched
            f(x)           otherwise                                f_cf: answers from the edit

The scope classifier is `lifelong/scope.py`. The counterfactual model is the base model itself (a
variant of the paper's code): it reads the edit as a fact beside the conversation and is held to
say the edit's target (`lifelong/say.py`) in a sentence that fits the question
(`lifelong/phrase.py`), because a small model that merely reads a fact says it in a third of its
replies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lifelong.lm import LM
from lifelong.phrase import say
from lifelong.prompt import Condition, Prompt, tell
from store import Edit, Hint


@dataclass(frozen=True, slots=True)
class Serac:
    """Answers from memory in scope; the base model everywhere else.

    Options: the fact is `read`, the reply is `held` to say the target, and `contrast` (0: none) is
    the weight of context-aware decoding.
    """

    name: ClassVar[str] = "serac"
    by_subject: ClassVar[bool] = True

    read: bool = True
    held: bool = True
    contrast: float = 0.0

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hint:
        """One sentence an edit: its prompt, answered."""
        return Hint(self.name, tuple(f"{edit.prompt.strip()} {edit.target}." for edit in edits))

    def condition(self, lm: LM, prompt: Prompt, edit: Edit, text: str) -> Condition:
        """In a chat the fact stands in the system message, and the target behind the question.

        A raw text is completed at once if it is held to the target, else behind the fact.
        """
        saying = say(prompt, edit)
        held = saying if self.held else None
        if not self.read:
            return Condition(held, contrast=self.contrast)
        if prompt.messages is None:
            told = None if held else f"{text}\n{prompt.text}"
            return Condition(held, text=told, contrast=self.contrast)
        messages = tell(lm, prompt.messages, f"You know: {text}")
        if held and not held.goes_on:
            noted = f"{messages[-1]['content']} (Answer: {edit.target}.)"
            messages = (*messages[:-1], {**messages[-1], "content": noted})
        return Condition(held, messages, contrast=self.contrast)
