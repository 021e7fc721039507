"""Which corrections look like something else, and wait for a person instead of going live.

A correction is shown to the model as data. These are words that try to be more: instructions,
links, and names that only look like the name they stand for.
"""

import re
import unicodedata

_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:previous|above|prior|earlier|all|any|your)\b"
    r"|\byou (?:are|must|should|will|shall) (?:now|always|never|only)\b"
    r"|\b(?:from now on|system prompt|as an ai|developer mode|act as|pretend to be)\b"
    r"|\b(?:always|never) (?:say|answer|reply|respond|recommend|mention|tell|reveal)\b"
    r"|\b(?:system|assistant|user|instructions?)\s*:",
    re.I,
)
_LINK = re.compile(r"\bhttps?://|\bwww\.|\bjavascript:|\bdata:\w+/", re.I)
_MARKUP = re.compile(r"<\s*/?\s*\w+[^>]*>|\{\{|\}\}|\{%|!\[|\]\(")
_HIDDEN = re.compile("[\u200b\u2060\ufeff\u00ad\U000e0000-\U000e007f]")
_WORD = re.compile(r"[^\W\d_]+")
_ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"})  # letters look the same


def suspicious(prompt: str, target: str) -> str | None:
    """Why a correction should be looked at by a person; None where nothing is odd."""
    said = f"{prompt}\n{target}"
    folded = unicodedata.normalize("NFKC", _HIDDEN.sub("", said))
    if _ORDERS.search(folded):
        return "It reads like an instruction to the model."
    if _LINK.search(folded):
        return "It holds a link."
    if _MARKUP.search(folded):
        return "It holds markup."
    if _HIDDEN.search(said):
        return "It holds invisible characters."
    if word := next(filter(_mixed, _WORD.findall(said)), None):
        return f"The letters of {word!r} are of different scripts that look alike."
    return None


def _mixed(word: str) -> bool:
    scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in word}
    return len(scripts & _ALIKE) > 1
