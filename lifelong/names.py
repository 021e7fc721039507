"""What else a subject is called: without its title or legal form, by its initials.

    Dr. Jane Roe                 Jane Roe
    Acme Robotics, Inc.          Acme Robotics
    World Health Organization    WHO, W.H.O.
    United States                US, U.S., USA, United States of America

Names are tuples of folded words; initials are one word in capitals, and stand so ("the US", not
"us").
"""

import re

Key = tuple[str, ...]

_INITIALS = re.compile(r"\b(?:[A-Z]\.){2,}|\b[A-Z]{2,6}\b")
_TITLES = frozenset("dr mr mrs ms miss prof professor sir dame president senator pope".split())
_FORMS = frozenset(
    "inc incorporated ltd limited llc llp plc gmbh ag kg corp corporation co company".split()
)
_LINKS = frozenset("of the and for in on de la du des del von van der".split())
_FEWEST = 3  # letters of initials that are not well known
_WELL_KNOWN: tuple[tuple[Key, ...], ...] = (
    (("united", "states"), ("united", "states", "of", "america"), ("US",), ("USA",)),
    (("united", "kingdom"), ("UK",)),
    (("united", "nations"), ("UN",)),
    (("european", "union"), ("EU",)),
    (("soviet", "union"), ("USSR",)),
    (("los", "angeles"), ("LA",)),
)


def other_names(key: Key) -> set[Key]:
    """What the subject with these folded words is called besides."""
    names = {key[1:]} if key and key[0] in _TITLES and len(key) > 2 else set()
    plain = key
    while plain[-1:] and plain[-1] in _FORMS and len(plain) > 1 + (plain[-1] == "company"):
        plain = plain[:-1]
    named = [word for word in key if word not in _LINKS]
    if len(named) >= _FEWEST and all(word[0].isascii() and word[0].isalpha() for word in named):
        names.add(("".join(word[0] for word in named).upper(),))
    for group in _WELL_KNOWN:
        if key in group or tuple(word.upper() for word in key) in group:
            names |= {*group}
    return (names | {plain}) - {key}


def initials_in(text: str) -> list[tuple[Key, int, int]]:
    """The initials in `text` and where they stand; none where all of it is in capitals."""
    if text.isupper():
        return []
    found = _INITIALS.finditer(text)
    return [((match.group().replace(".", ""),), *match.span()) for match in found]
