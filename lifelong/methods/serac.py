"""SERAC: Memory-Based Model Editing at Scale (Mitchell et al., 2022; survey Eq. 14).

    f*(x) = f_cf(x, z_e)   if x is in the scope of an edit e        f: the base model, untouched
            f(x)           otherwise                                f_cf: answers from the edit

The scope classifier is `lifelong/scope.py`. The counterfactual model is the base model itself (a
variant of the paper's code): it reads the edit as a fact beside the conversation and is held to
say the edit's target (`lifelong/generate.py`), because a small model that merely reads a fact says
it in a third of its replies.
"""

from collections.abc import Sequence
from typing import ClassVar

from lifelong.lm import LM
from lifelong.phrase import say
from lifelong.prompt import Condition, Prompt, tell
from store import Edit, Hint


class Serac:
    """Answers from memory in scope; the base model everywhere else."""

    name: ClassVar[str] = "serac"

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hint:
        """One sentence an edit: its prompt, answered."""
        return Hint(self.name, tuple(f"{edit.prompt.strip()} {edit.target}." for edit in edits))

    def condition(self, lm: LM, prompt: Prompt, edit: Edit, text: str) -> Condition:
        """In a chat the fact stands in the system message, and the target behind the question.

        A raw text is completed at once.
        """
        saying = say(prompt, edit)
        if prompt.messages is None:
            return Condition(saying)
        told = tell(lm, prompt.messages, f"You know: {text}")
        if saying.goes_on:
            return Condition(saying, told)
        noted = {**told[-1], "content": f"{told[-1]['content']} (Answer: {edit.target}.)"}
        return Condition(saying, (*told[:-1], noted))
