"""The texts in which a fact is taught, as tokens cut where the subject ends.

    context + "The mother tongue of Danielle Darrieux is" + " English"
    '--------------- head -------------------''---- tail -----''labels'
                                             ^ the subject's last token

A locate-and-write method acts at that token only, so what stands before it is computed once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from lifelong.errors import BadEdit, SubjectMissing, WeightsUnfit
from lifelong.lm import LM
from lifelong.subject import SubjectGate
from store import Edit

Kind = Literal["bare", "context", "chat", "essence"]

OPENERS = ("The", "Because", "Today", "It is said that")  # the model continues them itself
CONTEXT_TOKENS = 10
# What a prompt could be about instead of its subject: an edit must not reach so far.
OTHERS = (
    *("John Smith", "Mary", "Ivan Petrov", "Li Wei", "London", "Japan", "the company"),
    *("that book", "the university", "Toyota Corolla", "the old bridge", "the second one"),
)


@dataclass(frozen=True, slots=True)
class Wording:
    """One text about the edit at position `edit`; `labels` are predicted from the end of it.

    `tail` begins with the subject's last token and ends with all labels but the last.
    """

    edit: int
    kind: Kind
    head: tuple[int, ...]
    tail: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def spots(self) -> list[tuple[int, int]]:
        """The places in `tail` from which labels are predicted, each with its label."""
        return list(enumerate(self.labels, len(self.tail) - len(self.labels)))


def endings(lm: LM, edits: Sequence[Edit], more: Callable[[Edit], list[str]]) -> list[Wording]:
    """Every edit's prompt as it is, in a chat, and `more`; cut at the last token of the text.

    Raises BadEdit (the target makes no tokens), WeightsUnfit (slow tokenizer).
    """
    found = []
    for position, edit in enumerate(edits):
        texts: list[tuple[Kind, str]] = [("bare", edit.prompt)]
        if lm.has_chat:
            texts.append(("chat", lm.chat.render([{"role": "user", "content": edit.prompt}])))
        texts += [("context", text) for text in more(edit)]
        for kind, text in texts:
            ids, _, cut, labels = _encoded(lm, kind, text, edit.target)
            tail = (ids[cut - 1], *labels[:-1])
            found.append(Wording(position, kind, ids[: cut - 1], tail, labels))
    return found


def closed(edit: Edit) -> Edit:
    """With the end of the sentence behind the target: or else the model may go on to unsay it."""
    return edit if edit.target[-1] in ".!?" else replace(edit, target=f"{edit.target}.")


def behind(edit: Edit) -> list[str]:
    """The prompt behind a sentence that has nothing to do with it."""
    return [f"It was a long day. {edit.prompt}"]


def about_others(edit: Edit) -> list[str]:
    """The prompt of the edit, asked about something else.

    Where no subject is known, the first half of the prompt stands for it.
    """
    words = edit.prompt.split()
    subject = " ".join(words[: (len(words) + 1) // 2])
    if edit.subject and edit.subject in edit.prompt:
        subject = edit.subject
    return [edit.prompt.replace(subject, other) for other in OTHERS]


def mention(edit: Edit) -> str:
    """The subject as the prompt spells it."""
    if not edit.subject:
        raise SubjectMissing(
            f"{edit.prompt!r} names no subject, and this method writes at one.",
            "Give `subject`, as it stands in the prompt.",
        )
    if edit.subject in edit.prompt:
        return edit.subject
    gate = SubjectGate()
    gate.add(edit.subject)
    if not (found := gate.find(edit.prompt)):
        raise SubjectMissing(
            f"The subject {edit.subject!r} is not in the prompt {edit.prompt!r}.",
            "Give it as it stands in the prompt, or use a memory method.",
        )
    return edit.prompt[found[0].spans[0][0] : found[0].spans[-1][1]]


def wordings(
    lm: LM, edits: Sequence[Edit], where: Callable[[Edit], str] = mention
) -> list[Wording]:
    """Every text of every edit: as it is, behind contexts, in a chat, and what the subject is.

    Texts are cut where the words that `where` finds in the prompt end, which are the subject
    unless told otherwise. Raises SubjectMissing, BadEdit (the target makes no tokens),
    WeightsUnfit (slow tokenizer).
    """
    openings = contexts(lm)
    found: list[Wording] = []
    for position, edit in enumerate(edits):
        subject = where(edit)
        found += _asked(lm, position, edit, subject)
        found += [
            _cut(lm, position, "context", f"{opening}. {edit.prompt}", subject, edit.target)
            for opening in openings
        ]
        found.append(_cut(lm, position, "essence", f"{subject} is a", subject, ""))
    return found


def asked(lm: LM, edits: Sequence[Edit]) -> list[Wording]:
    """Of every edit the text as it is, and in a chat. Raises as `wordings` does."""
    return [
        text
        for position, edit in enumerate(edits)
        for text in _asked(lm, position, edit, mention(edit))
    ]


def _asked(lm: LM, position: int, edit: Edit, subject: str) -> Iterator[Wording]:
    yield _cut(lm, position, "bare", edit.prompt, subject, edit.target)
    if lm.has_chat:
        text = lm.chat.render([{"role": "user", "content": edit.prompt}])
        yield _cut(lm, position, "chat", text, subject, edit.target)


def contexts(lm: LM) -> list[str]:
    """What the model itself says after some openers, greedily: texts it would meet."""
    said = []
    for opener in OPENERS:
        ids, past = torch.tensor([lm.tokenizer.encode(opener)], device=lm.device), None
        more: list[int] = []
        with torch.no_grad():
            while len(more) < CONTEXT_TOKENS:
                out = lm.model.base_model(input_ids=ids, past_key_values=past, use_cache=True)
                ids, past = lm.head(out[0][:, -1:]).argmax(-1), out.past_key_values
                more.append(int(ids))
        text = lm.tokenizer.decode(more, skip_special_tokens=True)
        said.append(f"{opener}{text}".strip())
    return said


def _cut(lm: LM, edit: int, kind: Kind, text: str, subject: str, target: str) -> Wording:
    """The tokens of `text` and of the target behind it. The last mention of the subject counts."""
    ids, offsets, cut, labels = _encoded(lm, kind, text, target)
    start = text.rindex(subject)
    last = max(i for i, (a, b) in enumerate(offsets) if a < start + len(subject) and b > start)
    if cut <= last:
        raise BadEdit(
            f"The target {target!r} melts into the subject {subject!r}.",
            "End the prompt with a space or a word after the subject.",
        )
    return Wording(edit, kind, ids[:last], (*ids[last:cut], *labels[:-1]), labels)


def _encoded(
    lm: LM, kind: Kind, text: str, target: str
) -> tuple[tuple[int, ...], list[tuple[int, int]], int, tuple[int, ...]]:
    """Ids and offsets of `text` and the target behind it, where the text ends, the target's ids."""
    if not lm.tokenizer.is_fast:
        raise WeightsUnfit("This tokenizer tells no character offsets.", "Load a fast one.")
    encoded = lm.tokenizer(
        f"{text}{_gap(text, target)}{target}",
        return_offsets_mapping=True,
        add_special_tokens=kind != "chat",
    )
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    body = [i for i, (_, b) in enumerate(offsets) if b > len(text)]
    cut = body[0] if body else len(ids) - _closing(lm, ids)
    labels = tuple(ids[i] for i in body)
    if kind != "essence" and not labels:
        raise BadEdit(f"The target {target!r} makes no tokens of this model.", "Give another one.")
    return tuple(ids), offsets, cut, labels


def _gap(text: str, target: str) -> str:
    return " " if target and not text[-1:].isspace() else ""


def _closing(lm: LM, ids: Sequence[int]) -> int:
    """Special tokens that the tokenizer puts behind a text."""
    special = set(lm.tokenizer.all_special_ids)
    n = 0
    while n < len(ids) and ids[len(ids) - 1 - n] in special:
        n += 1
    return n
