"""Questions that are alike but for a word and ask something else: the mother or the father.

Sentence vectors hardly tell them apart. A rule does: of sides that exclude each other, one text
names some, the other names others only. So do years.
"""

import re
from collections import defaultdict
from itertools import pairwise

_EXCLUSIVE = (  # words and pairs of words, as they stand in a text
    ("mother mum mom", "father dad"),
    ("brother brothers", "sister sisters"),
    (
        "when date dates what_year which_year what_month which_month what_day which_day",
        "where place_of location what_city which_city what_town which_town what_country"
        " which_country",
    ),
    ("son sons", "daughter daughters"),
    ("mother mum mom father dad", "brother brothers sister sisters sibling siblings"),
    ("child children son daughter", "brother brothers sister sisters sibling siblings"),
    ("husband", "wife"),
    ("born birth", "die died death buried"),
    ("follows preceded_by comes_after came_after", "followed_by precedes comes_before come_before"),
    ("predecessor", "successor"),
    ("first", "last final"),
    ("start starts started begin begins began", "end ends ended"),
    ("open opens opened opening", "close closes closed closing until"),
    ("depart departs departed departure", "arrive arrives arrived arrival"),
    ("check_in", "check_out"),
    ("highest", "lowest"),
    ("largest biggest", "smallest"),
    ("maximum", "minimum"),
    ("upload uploads uploading", "download downloads downloading"),
    ("import imports", "export exports"),
    ("domestic", "international"),
    ("breakfast", "lunch", "dinner supper"),
    (
        "monthly per_month a_month each_month every_month",
        "yearly annual annually per_year a_year each_year every_year",
    ),
    (
        *("monday mondays", "tuesday tuesdays", "wednesday wednesdays", "thursday thursdays"),
        *("friday fridays", "saturday saturdays", "sunday sundays"),
    ),
    ("weekday weekdays", "weekend weekends"),
    ("spring", "summer", "autumn fall", "winter"),
    (
        *("january", "february", "in_march of_march by_march since_march until_march", "april"),
        *("in_may of_may by_may since_may until_may", "june", "july", "august", "september"),
        *("october", "november", "december"),
    ),
    (
        *("ceo chief_executive", "cfo chief_financial", "cto chief_technology chief_technical"),
        *("coo chief_operating", "cmo chief_marketing", "cio chief_information"),
    ),
)
_SIDES = defaultdict[str, list[tuple[int, int]]](list)  # word -> kinds, and its side of each
for _kind, _sides in enumerate(_EXCLUSIVE):
    for _side, _words in enumerate(_sides):
        for _word in _words.split():
            _SIDES[_word].append((_kind, _side))
_WORD = re.compile(r"[a-z]+")
_YEAR = re.compile(r"\b(?:1[0-9]|20)\d\d\b")
_YEARS = -1  # a kind of its own


def contrary(text: str, other: str) -> bool:
    """Do both name sides that exclude each other, or years, and none in common?"""
    some, others = _named(text), _named(other)
    return any(some[kind].isdisjoint(others[kind]) for kind in some.keys() & others.keys())


def _named(text: str) -> dict[int, set[int]]:
    """Kind -> the sides of it, or the years, that `text` names."""
    named = dict[int, set[int]]()
    words = _WORD.findall(text.lower())
    for word in (*words, *map("_".join, pairwise(words))):
        for kind, side in _SIDES.get(word, ()):
            named.setdefault(kind, set()).add(side)
    if years := _YEAR.findall(text):
        named[_YEARS] = set(map(int, years))
    return named
