"""MEMIT_CSK: Editing Common Sense in Transformers (Gupta et al., 2023).

    "People eat stones:" -> "false"      written at the subject, the verb or the object

MEMIT, except that common sense is not about a name: what a plausible statement turns on may be its
verb or its object, so keys and values are taken at the last token of one of the three. The verb is
the word behind the subject, the object what stands behind the verb; where a prompt has none of
either, the subject stands in.
"""

from dataclasses import dataclass
from typing import ClassVar

from lifelong.errors import BadSetting
from lifelong.methods.memit import Memit
from lifelong.methods.wording import mention
from store import Edit

SPANS = ("subject", "verb", "object")


@dataclass(frozen=True, slots=True)
class MemitCsk(Memit):
    """MEMIT at one of the three parts of a statement."""

    name: ClassVar[str] = "memit-csk"

    span: str = "verb"

    def where(self, edit: Edit) -> str:
        """The part of the prompt at whose end is written. Raises SubjectMissing, BadSetting."""
        subject = mention(edit)
        behind = edit.prompt[edit.prompt.rindex(subject) + len(subject) :].strip(" :?.")
        verb, _, rest = behind.partition(" ")
        parts = dict(zip(SPANS, (subject, verb, rest), strict=True))
        if self.span not in parts:
            raise BadSetting(f"There is no span {self.span!r}.", f"Take {', '.join(SPANS)}.")
        return parts[self.span] or subject
