"""What a relation says about others: small tables, of relations that corrections are about.

`mother` of a child is the `child` of a mother; a work has one `creator`, a mother may have several
children; the mother of one's mother is one's `maternal grandmother`. To know another rule, add a
line. A relation that is in no table has no way back, and contradicts nothing but itself.
"""

import re

from lifelong.subject import masked, normalise
from store import Edit

# (relation, the relation back): if `a` is in it with `b`, then `b` is in the other with `a`
_BACK = (
    ("mother", "child"),
    ("father", "child"),
    ("parent", "child"),
    ("spouse", "spouse"),
    ("sibling", "sibling"),
    ("doctoral student", "doctoral advisor"),
    ("student", "teacher"),
    ("notable work", "creator"),
    ("author of", "author"),
    ("composer of", "composer"),
    ("director of", "director"),
    ("founder of", "founder"),
    ("inventor of", "inventor"),
    ("developer of", "developer"),
    ("ceo of", "ceo"),
    ("chairperson of", "chairperson"),
    ("president of", "president"),
    ("prime minister of", "prime minister"),
    ("mayor of", "mayor"),
    ("head of", "head"),
    ("owner of", "owner"),
    ("capital of", "capital"),
    ("successor", "predecessor"),
    ("followed by", "follows"),
    ("subsidiary", "parent company"),
    ("part", "part of"),
    ("contains", "located in"),
    ("subordinate", "reports to"),
)

# (relation, another from where it leads, what both together are)
_COMPOSED = (
    ("mother", "mother", "maternal grandmother"),
    ("mother", "father", "maternal grandfather"),
    ("father", "mother", "paternal grandmother"),
    ("father", "father", "paternal grandfather"),
    ("capital of", "located in", "located in"),
    ("located in", "located in", "located in"),
    ("part of", "part of", "part of"),
    ("subclass of", "subclass of", "subclass of"),
)

# Of these a subject has one value, so a second one contradicts the first.
_SINGLE = frozenset(
    """mother|father|spouse|creator|author|composer|director|ceo|chairperson|president
    |prime minister|mayor|head|owner|capital|capital of|successor|predecessor|followed by|follows
    |parent company|maternal grandmother|maternal grandfather|paternal grandmother
    |paternal grandfather""".replace("\n    ", "").split("|")
)

# What leads upwards in one of these never comes back to where it began.
_ORDERS = frozenset(
    """mother|father|parent|child|doctoral advisor|doctoral student|teacher|student|successor
    |predecessor|followed by|follows|subsidiary|parent company|part|part of|contains|located in
    |subordinate|reports to|subclass of""".replace("\n    ", "").split("|")
)

_VERBS = frozenset({"contains", "follows", "reports to"})
_WRITTEN = {"creater": "creator", "advisor": "doctoral advisor", "chief executive": "ceo"}
_PLAIN = re.compile(
    r"(?:who|what) (?:is|was) (?:the )?(?P<asked>[\w ]+?) of this"
    r"|(?:the )?(?P<told>[\w ]+?) of this (?:is|was)"
    r"|(?:who|what) (?:is|was) this s (?P<owned>[\w ]+)",
    re.IGNORECASE,
)


def relation_of(edit: Edit) -> str | None:
    """The relation an edit names, or that its prompt plainly asks for ("Who is the R of S?")."""
    if edit.relation:
        return _name(edit.relation)
    clause = normalise(masked(edit.prompt, edit.subject) or "") if edit.subject else ""
    plain = _PLAIN.fullmatch(clause)
    return _name(next(filter(None, plain.groups()))) if plain else None


def back(relation: str) -> frozenset[str]:
    """The relations that lead back along `relation`; none where the table knows none."""
    ways = {b for a, b in _BACK if a == relation} | {a for a, b in _BACK if b == relation}
    return frozenset(ways)


def inverse(relation: str) -> str | None:
    """The relation that leads back, where it is the only one: a child has a mother or a father."""
    ways = back(relation)
    return next(iter(ways)) if len(ways) == 1 else None


def composed(first: str, then: str) -> str | None:
    """What `then` of whom `first` leads to is called."""
    return next((name for a, b, name in _COMPOSED if (a, b) == (first, then)), None)


def statement(subject: str, relation: str) -> str:
    """It is said of the subject, up to the object: "The mother of Ann is", "Bo is the ceo of"."""
    if relation in _VERBS:
        return f"{subject} {relation}"
    if relation.endswith((" in", " by")) or relation == "part of":
        return f"{subject} is {relation}"
    if relation.endswith(" of"):
        return f"{subject} is the {relation}"
    return f"The {relation} of {subject} is"


def is_single(relation: str) -> bool:
    """Whether a subject has one value of it."""
    return relation in _SINGLE


def is_order(relation: str) -> bool:
    """Whether nothing is, along several steps of it, before itself."""
    return relation in _ORDERS


def _name(text: str) -> str:
    name = normalise(text)
    return _WRITTEN.get(name, name)
