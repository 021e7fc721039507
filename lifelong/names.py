"""What else a subject is called: without its title or legal form, by its initials.

    Dr. Jane Roe                 Jane Roe
    Acme Robotics, Inc.          Acme Robotics
    World Health Organization    WHO, W.H.O.
    United States                US, U.S., USA, United States of America

Names are tuples of folded words; initials are one word in capitals, and stand so ("the US", not
"us"). Three letters mean too many things: but for the well-known ones, initials have four.
"""

import re

Key = tuple[str, ...]

_INITIALS = re.compile(r"\b(?:[A-Z]\.){2,}|\b[A-Z]{2,6}\b")
_TITLES = frozenset("dr mr mrs ms miss prof professor sir dame president senator pope".split())
FORMS = frozenset(
    "inc incorporated ltd limited llc llp plc gmbh ag kg corp corporation co company".split()
)
_LINKS = frozenset("of the and for in on de la du des del von van der".split())
_FEWEST = 4
_WELL_KNOWN = [
    frozenset(tuple(name.split("_")) for name in line.split())
    for line in """
        US USA united_states united_states_of_america
        UK united_kingdom
        UN united_nations
        EU european_union
        USSR soviet_union
        UAE united_arab_emirates
        NSW new_south_wales
        NYC new_york_city
        LA los_angeles
        WHO world_health_organization
        IMF international_monetary_fund
        WTO world_trade_organization
        IOC international_olympic_committee
        FBI federal_bureau_of_investigation
        CIA central_intelligence_agency
        BBC british_broadcasting_corporation
        MIT massachusetts_institute_of_technology
        IBM international_business_machines
        NBA national_basketball_association
        NFL national_football_league
    """.strip().splitlines()
]
_ALSO = {tuple(map(str.casefold, name)): group for group in _WELL_KNOWN for name in group}


def other_names(key: Key) -> set[Key]:
    """What the subject with these folded words is called besides."""
    names = {key[1:]} if key and key[0] in _TITLES and len(key) > 2 else set()
    plain = key
    while plain[-1:] and plain[-1] in FORMS and len(plain) > 1 + (plain[-1] == "company"):
        plain = plain[:-1]
    named = [word for word in key if word not in _LINKS]
    if len(named) >= _FEWEST and all(word[0].isascii() and word[0].isalpha() for word in named):
        names.add(("".join(word[0] for word in named).upper(),))
    names |= _ALSO.get(key, frozenset())
    return (names | {plain}) - {key}


def initials_in(text: str) -> list[tuple[Key, int, int]]:
    """The initials in `text` and where they stand; none where all of it is in capitals."""
    if text.isupper():
        return []
    found = _INITIALS.finditer(text)
    return [((match.group().replace(".", ""),), *match.span()) for match in found]
