"""What a relation says about the way back: a small table, of relations that corrections are about.

`mother` of a child is the `child` of a mother; a work has one `creator`, a mother may have several
children. A relation that is not in the table has no way back, and contradicts nothing but itself.
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

# Of these a subject has one value, so a second one contradicts the first.
_SINGLE = frozenset(
    """mother|father|spouse|creator|author|composer|director|ceo|chairperson|president
    |prime minister|mayor|head|owner|capital|capital of|successor|predecessor|followed by|follows
    |parent company""".replace("\n    ", "").split("|")
)

# What leads upwards in one of these never comes back to where it began.
_ORDERS = frozenset(
    """mother|father|parent|child|doctoral advisor|doctoral student|teacher|student|successor
    |predecessor|followed by|follows|subsidiary|parent company|part|part of|contains|located in
    |subordinate|reports to|subclass of""".replace("\n    ", "").split("|")
)

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


def is_single(relation: str) -> bool:
    """Whether a subject has one value of it."""
    return relation in _SINGLE


def is_order(relation: str) -> bool:
    """Whether nothing is, along several steps of it, before itself."""
    return relation in _ORDERS


def _name(text: str) -> str:
    name = normalise(text)
    return _WRITTEN.get(name, name)
