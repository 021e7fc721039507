"""Questions that are alike but for a word and ask for something else: the mother or the father.

Sentence vectors hardly tell them apart. A rule does: of a pair, one text says only this, the other
only that.
"""

import re

_PAIRS = [
    (re.compile(rf"\b(?:{this})\b", re.IGNORECASE), re.compile(rf"\b(?:{that})\b", re.IGNORECASE))
    for this, that in (
        ("mother|mum|mom", "father|dad"),
        ("brother", "sister"),
        ("son", "daughter"),
        ("husband", "wife"),
        ("mother|mum|mom|father|dad", "brother|sister|siblings?"),
        ("child|children|son|daughter", "brother|sister|siblings?"),
        ("born|birth", "die|died|death|buried"),
        (
            "when|dates?|(?:what|which) (?:year|month|day)",
            "where|place of|location|(?:what|which) (?:city|town|country)",
        ),
        ("follows|preceded by|comes after|came after", "followed by|precedes|comes? before"),
        ("predecessor", "successor"),
        ("first", "last"),
        ("starts?|started|begins?|began", "ends?|ended"),
        ("opens?|opened|opening", "closes?|closed|closing|until"),
        ("departs?|departure", "arrives?|arrival"),
        ("check-in|check in", "check-out|check out"),
        ("highest", "lowest"),
        ("largest|biggest", "smallest"),
        ("maximum", "minimum"),
    )
]


def contrary(text: str, other: str) -> bool:
    """Does one say only one side of a pair, and the other only the other side?"""
    return any(
        _only(this, that, a) and _only(that, this, b)
        for this, that in _PAIRS
        for a, b in ((text, other), (other, text))
    )


def _only(side: re.Pattern[str], not_that: re.Pattern[str], text: str) -> bool:
    return bool(side.search(text)) and not not_that.search(text)
