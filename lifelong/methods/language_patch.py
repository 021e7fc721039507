"""Language Patch: Fixing Model Bugs with Natural Language Patches (Murty et al., 2022).

    patch "if c, then q":  f*(x) = I(q, x)  if c applies to x     I: the model that has read q
                                   f(x)     otherwise

An edit's prompt is the condition, its target the consequence. A consequence that names an answer
overrides: the answer is said. One that says *how* to answer ("answer in one word", "be formal")
is read, and the model is free to obey.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lifelong.lm import LM
from lifelong.phrase import say
from lifelong.prompt import Condition, Prompt, tell
from store import Edit, Hint

_IF = re.compile(r"\s*(?:if|when|whenever)\s+", re.I)
_MANNER = re.compile(
    r"(?:then )?(?:please )?(?:always |never |do not |don't )?"
    r"(?:answer|reply|respond|speak|write|use|be|do|keep|avoid|take|treat|ignore"
    r"|give|explain|mention|ask|refuse|assume|express|sound)\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class LanguagePatch:
    """If the condition applies, the consequence."""

    name: ClassVar[str] = "language-patch"
    by_subject: ClassVar[bool] = False

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hint:
        """One patch an edit: "If c, then q."."""
        return Hint(self.name, tuple(_patch(edit.prompt, edit.target) for edit in edits))

    def condition(self, lm: LM, prompt: Prompt, edit: Edit, text: str) -> Condition:
        """The patch is read; an answer that it names is said."""
        said = None if _MANNER.match(edit.target) else say(prompt, edit)
        if prompt.messages is None:
            return Condition(said, text=None if said else f"{text}\n{prompt.text}")
        return Condition(said, tell(lm, prompt.messages, text))


def _patch(condition: str, consequence: str) -> str:
    applies = _IF.sub("", condition, count=1).strip().rstrip(".,")
    return f"If {applies}, then {consequence.strip().rstrip('.')}."
