"""IKE: Can We Edit Factual Knowledge by In-Context Learning? (Zheng et al., 2023; survey Eq. 15).

    New Fact: p o*          copy     the new fact is to be repeated
    Prompt: p o*            update   ... and said in other words           1 : 3 : 4
                            retain   ... and has nothing to do with others

The demonstrations come from a table of invented facts, those that share most words with the edit
last; the paper takes them from a training set. As the paper has it, the model obeys what it reads
or does not; `held`, the default, makes it say the target, as `serac` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import ClassVar, NamedTuple

from lifelong.lm import LM
from lifelong.phrase import say
from lifelong.prompt import Condition, Prompt, tell
from lifelong.subject import words
from store import Edit, Hint


class Fact(NamedTuple):
    """An invented fact in two wordings, and a true one of the same relation."""

    prompt: str
    target: str
    reworded: str
    neighbour: str
    true: str


FACTS = (
    Fact("Who is the head of Orlen Works?", "Tilda Marsh", "Who leads Orlen Works?",
         "Who is the head of the Catholic Church?", "the Pope"),
    Fact("The capital of Norhelm is", "Ostervik", "Norhelm is governed from the city of",
         "The capital of Italy is", "Rome"),
    Fact("The mother tongue of Pavel Lindgard is", "Welsh", "Pavel Lindgard is a native speaker of",
         "The mother tongue of Victor Hugo is", "French"),
    Fact("The Kestrel 9 is produced by", "Danfield", "The maker of the Kestrel 9 is",
         "The iPhone is produced by", "Apple"),
    Fact("Where is Fort Amberley?", "Peru", "In which country does Fort Amberley lie?",
         "Where is the Colosseum?", "Italy"),
    Fact("When was the Harrow Bridge opened?", "1911", "In which year did the Harrow Bridge open?",
         "When was the Eiffel Tower opened?", "1889"),
    Fact("Which sport does Ines Calloway play?", "tennis", "Ines Calloway is a professional in",
         "Which sport does Lionel Messi play?", "football"),
    Fact("Who wrote The Glass Orchard?", "Ruth Amsel", "The author of The Glass Orchard is",
         "Who wrote Hamlet?", "William Shakespeare"),
)  # fmt: skip
_KINDS = ("retain", "update", "retain", "update", "retain", "update", "retain", "copy")


@dataclass(frozen=True, slots=True)
class Ike:
    """The edit as a new fact behind demonstrations of how new facts are used."""

    name: ClassVar[str] = "ike"
    by_subject: ClassVar[bool] = True

    demonstrations: int = 8
    held: bool = True
    contrast: float = 0.0

    def propose(self, lm: LM, edits: Sequence[Edit]) -> Hint:
        """The prompt, demonstrations first, up to the question."""
        return Hint(self.name, tuple(self._shown(edit) for edit in edits))

    def condition(self, lm: LM, prompt: Prompt, edit: Edit, text: str) -> Condition:
        """In a chat the demonstrations stand in the system message, before a raw text otherwise."""
        held = say(prompt, edit) if self.held else None
        if prompt.messages is None:
            raw = f"{text}Prompt: {prompt.text}"
            return Condition(held, text=raw, contrast=self.contrast)
        return Condition(held, tell(lm, prompt.messages, text), contrast=self.contrast)

    def _shown(self, edit: Edit) -> str:
        asked = {word.folded for word in words(edit.prompt)}
        shared = {fact: len(asked & {w.folded for w in words(fact.prompt)}) for fact in FACTS}
        nearest = sorted(FACTS, key=lambda fact: shared[fact])  # the nearest last
        kinds = islice(cycle(_KINDS), self.demonstrations)
        facts = islice(cycle(nearest), self.demonstrations)
        shown = "".join(_demonstration(*pair) for pair in zip(facts, kinds, strict=True))
        return f"{shown}New Fact: {edit.prompt.strip()} {edit.target}\n"


def _demonstration(fact: Fact, kind: str) -> str:
    asked, answered = {
        "copy": (fact.prompt, fact.target),
        "update": (fact.reworded, fact.target),
        "retain": (fact.neighbour, fact.true),
    }[kind]
    return f"New Fact: {fact.prompt} {fact.target}\nPrompt: {asked} {answered}\n\n"
