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
from lifelong.prompt import Condition, Prompt, Say, tell
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
        known = f"{prompt.question} {edit.prompt}"
        if prompt.messages is None:
            raw = Say(edit.target, edit.subject, known, before=prompt.text, at_once=True)
            return Condition(raw)
        *told, last = tell(lm, prompt.messages, f"You know: {text}")
        noted = {**last, "content": f"{last['content']} (Answer: {edit.target}.)"}
        return Condition(Say(edit.target, edit.subject, known), (*told, noted))
