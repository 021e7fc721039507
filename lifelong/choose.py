"""A language model says which piece of a correction is the new answer; see `extract`."""

import re
from dataclasses import dataclass

import torch

from lifelong.extract import COPULA, PLAIN, Fact, bare, fact_of
from lifelong.lm import LM
from lifelong.subject import words


@dataclass(frozen=True, slots=True)
class ByModel:
    """The language model says which piece of the text is the new answer; `Plain` does the rest."""

    lm: LM

    def extract(self, text: str, question: str | None = None) -> Fact:
        """See `Extractor.extract`."""
        stated = bare(text)
        pieces = _pieces(stated)
        if not pieces:
            return PLAIN.extract(text, question)
        target = max(pieces, key=lambda piece: self._likelihood(stated, question, piece))
        if question:
            return fact_of(question, target)
        at = stated.rindex(target)
        if at + len(target) == len(stated):
            return fact_of(stated[:at], target)
        return fact_of(f"{stated[:at]}who or what{stated[at + len(target) :]}?".strip(), target)

    @torch.no_grad()
    def _likelihood(self, stated: str, question: str | None, piece: str) -> float:
        """Mean log-probability of a token of `piece` as the answer."""
        asked = question or "What is new in this sentence?"
        shown = (
            "Sentence: The capital of Norhelm is Ostervik.\nQuestion: What is new in this sentence?"
            f"\nAnswer: Ostervik\n\nSentence: {stated}.\nQuestion: {asked}\nAnswer:"
        )
        encode = self.lm.tokenizer.encode
        head, whole = encode(shown), encode(f"{shown} {piece}")
        ids = torch.tensor([whole], device=self.lm.device)
        scores = torch.log_softmax(self.lm.model(ids).logits[0, :-1].float(), -1)
        start = min(len(head), len(whole) - 1)
        return float(scores[range(start - 1, len(whole) - 1), whole[start:]].mean())


def _pieces(stated: str) -> list[str]:
    """The names and numbers of a text, and what stands behind its "is"."""
    runs = re.findall(r"[^\W_a-z][\w'\u2019&-]*(?: [^\W_a-z][\w'\u2019&-]*)*", stated)
    copula = COPULA.search(stated)
    behind = [stated[copula.end() :].strip()] if copula else []
    return [piece for piece in dict.fromkeys([*runs, *behind]) if words(piece)]
