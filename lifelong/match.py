"""When does a reply say a target?  The one definition behind every figure we print.

Texts are compared as `subject.normalise` leaves them: NFKC, case-folded, without punctuation and
articles.
"""

from collections.abc import Iterable, Sequence

from lifelong.subject import normalise
from store import Edit

SHORT = 3  # characters under which a target must be the whole reply


def contains(reply: str, target: str) -> bool:
    """Is `target` a run of whole words in `reply` (the whole reply, where it is very short)?

    A target without words (a flag among a country's names) is in none, not even an empty one.
    """
    wanted = normalise(target)
    if len(wanted) < SHORT:
        return normalise(reply) == wanted != ""
    return f" {wanted} " in f" {normalise(reply)} "


def says(reply: str, target: str, old: str | None = None) -> bool:
    """Does `reply` contain `target`, and not the old answer besides (a mixed reply fails)?"""
    if not contains(reply, target):
        return False
    return old is None or contains(target, old) or not contains(reply, old)


def same(reply: str, other: str) -> bool:
    """Are two replies the same words?"""
    return normalise(reply) == normalise(other)


def answers(reply: str, accepted: Sequence[str], old: Sequence[str] = ()) -> bool:
    """Does `reply` say one of the `accepted` answers, and no old one besides?"""
    return any(
        contains(reply, target) and all(says(reply, target, other) for other in old)
        for target in accepted
    )


def exact(reply: str, accepted: Sequence[str]) -> bool:
    """Is `reply` one of the `accepted` answers and nothing else?"""
    return any(same(reply, target) for target in accepted)


def matching(edits: Iterable[Edit], text: str) -> list[Edit]:
    """The edits that hold every word of `text` in prompt, target, subject or relation."""
    wanted = set(normalise(text).split())
    return [edit for edit in edits if wanted and wanted <= _words(edit)]


def _words(edit: Edit) -> set[str]:
    texts = (edit.prompt, edit.target, edit.subject or "", edit.relation or "")
    return {word for text in texts for word in normalise(text).split()}
