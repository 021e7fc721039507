"""How an answer is worded: the sentence that the target completes, yes or no, one part of more.

Plain rules on English words. Each says nothing where it is not sure, and the model finds the words.
"""

import re

from lifelong.match import contains
from lifelong.prompt import Prompt, Say
from lifelong.subject import focus, words
from store import Edit

_BE = r"is|are|was|were"
_ASKED = re.compile(
    rf"(?:(in|on|at|by|from|to|for|of) )?(who|what|which|where|when)"
    rf"(?:(?: [\w ]+?)??\s+({_BE})|['\u2019]s)\s+(.+?)\s*\?",
    re.I,
)
_ASKED_LAST = re.compile(rf"(.+ (?:{_BE})(?: in| on| of| by)?) (?:whom?|what|where|when)(?: \w+)?\s*\?", re.I)
_DANGLING = frozenset("of in by to from for with at on as after".split())
_PLACES = frozenset({"where", "when"})
_RELATIVE = re.compile(r",\s*(?:which|who|that)\s+")
_APPOSED = re.compile(r",\s*(?=\S)")
_LAST = re.compile(r".*(?:[.!?]\s+|\n\s*)(?=\S)", re.S)  # everything before the last sentence
_CHOICE = re.compile(rf"(?:and |so |but )?(?:{_BE}|do|does|did|has|have|had|can|could)\b", re.I)
_NEGATED = re.compile(r"\bnot\b|n't\b|\bnever\b|\bor\b", re.I)
_ORDER = re.compile(
    r"(?:(?:please|can you|could you) )*"
    r"(?:write|describe|tell|give|explain|introduce|summari[sz]e|compose|draft)\b"
    r".*\b(?:about|sentences?|paragraphs?|words|summary|overview|profile|biography|story|poem|note"
    r"|letter|e-?mail|article|essay|describe|introduce|summari[sz]e)\b",
    re.I | re.S,
)
_ONE_MORE = re.compile(
    r"[\w?,] and (?:also )?(?:what|who|where|when|which|why|how|tell|one more)\b", re.I
)
_TITLED = frozenset("the a an its his her their it this that in on at where what who".split())


def say(prompt: Prompt, edit: Edit) -> Say:
    """What a reply to `prompt`, in scope of `edit`, must say, and how it begins.

    A raw text is completed at once. In a chat the reply is a sentence: the prompt's own where it
    is one to be completed or turned round, else the edit's, else one of the model's.
    """
    question, subject = prompt.question, edit.subject
    known = f"{question} {edit.prompt}"
    avoid = (edit.old,) if edit.old and not contains(edit.target, edit.old) else ()
    if prompt.messages is None:
        return Say(edit.target, subject, known, before=prompt.text, at_once=True, avoid=avoid)
    verdict = yes_or_no(question, edit)
    longer = is_longer(question)
    own = None if verdict or longer else sentence(question, subject)
    led = own or sentence(edit.prompt, subject)
    if avoid and subject and contains(subject, avoid[0]):
        led = _unnamed(led or "The answer is", subject)
    return Say(
        edit.target,
        subject,
        known,
        lead=_joined(verdict, led),
        at_once=led is not None,
        avoid=avoid,
        goes_on=longer,
    )


def sentence(text: str, subject: str | None) -> str | None:
    """The beginning of a sentence that an answer to `text` completes; None where none is sure.

    `text` is one itself ("Acme, which is led by": "Acme is led by") or asks for one by a form of
    "be" ("Who is the head of Acme?": "The head of Acme is").
    """
    clause = _clause(text, subject)
    if clause is None:
        return None
    if not clause.endswith("?"):
        return _stated(clause, subject)
    return _turned(clause, subject)


def yes_or_no(question: str, edit: Edit) -> str:
    """"Yes" or "No", where `question` proposes the target or something else; else nothing."""
    last = _LAST.sub("", question.strip())
    asked = _without(last, edit.subject)
    if not (_CHOICE.match(last) and last.endswith("?")) or _NEGATED.search(asked):
        return ""
    if contains(asked, edit.target):
        return "Yes"
    if edit.old and contains(asked, edit.old):
        return "No"
    known = {word.folded for word in words(f"{edit.prompt} {edit.subject or ''}")}
    first, *rest = words(asked)
    named = [w for w in rest if asked[w.start].isupper() or asked[w.start].isdigit()]
    return "No" if any(word.folded not in known for word in named) else ""


def is_longer(question: str) -> bool:
    """Is the fact only one part of what `question` asks for?"""
    return bool(_ORDER.match(question.strip()) or _ONE_MORE.search(question))


def _clause(text: str, subject: str | None) -> str | None:
    """The sentence of `text` about `subject`, as far back as it belongs to it."""
    last = _LAST.sub("", text.strip())
    if subject is None:
        return last
    named = _named(text, subject)
    if named is None:
        return None
    start, end = named
    if end <= len(text.rstrip()) - len(last):
        return last if len(words(last)) > 1 else None
    return re.sub(r"\bthis\b", lambda _: text[start:end], focus(text, (named,)), count=1)


def _named(text: str, subject: str) -> tuple[int, int] | None:
    """Where `text` names the subject, the last time."""
    found = list(re.finditer(rf"(?<!\w){re.escape(subject)}(?!\w)", text, re.I))
    return found[-1].span() if found else None


def _stated(clause: str, subject: str | None) -> str | None:
    """A statement that breaks off before its object; what is apposed to the subject is said of it.

    None where it does not break off, or is an order.
    """
    if clause.endswith((".", "!", ":")) or _ORDER.match(clause) or _CHOICE.match(clause):
        return None
    head, rest = clause[: len(subject or "")], clause[len(subject or "") :]
    if not subject or head.casefold() != subject.casefold():
        return _raised(clause) if len(words(clause)) > 1 else None
    if _RELATIVE.match(rest):
        return f"{_raised(head)} {_RELATIVE.sub('', rest, count=1)}"
    if _APPOSED.match(rest):
        return f"{_raised(head)} is {_APPOSED.sub('', rest, count=1)}"
    return _raised(clause) if words(rest) else None


def _turned(question: str, subject: str | None) -> str | None:
    """A question with "be", turned round."""
    if last := _ASKED_LAST.fullmatch(question):
        return _raised(last[1])
    asked = _ASKED.fullmatch(question)
    if not (asked and subject and _named(asked[4], subject)):
        return None
    be, rest = (asked[3] or "is").casefold(), asked[4]
    led_by, place = asked[1], asked[2].casefold() in _PLACES
    tail = rest[len(subject) :]
    if rest[: len(subject)].casefold() != subject.casefold():
        whole = not (led_by or place) and rest.casefold().startswith("the ")
        return f"{_raised(rest)} {be}" if whole else None
    if led_by or place:
        return f"{_raised(rest)[: len(subject)]} {be}{tail} {(led_by or 'in').casefold()}"
    if tail.startswith(("'s ", "\u2019s ", "' ")):
        return f"{_raised(rest)} {be}"
    dangles = not tail or tail.split()[-1] in _DANGLING
    return f"{_raised(rest)[: len(subject)]} {be}{tail}" if dangles else None


def _unnamed(led: str, subject: str) -> str:
    """`led` without the subject's name, which holds the old answer."""
    possessive = re.sub(rf"{re.escape(subject)}['\u2019]s\b", "its", led, flags=re.I)
    return _raised(re.sub(re.escape(subject), "it", possessive, flags=re.I))


def _joined(verdict: str, led: str | None) -> str:
    """"No," before the sentence."""
    if not (verdict and led):
        return f"{verdict}," if verdict else led or ""
    first, _, rest = led.partition(" ")
    return f"{verdict}, {first.lower() if first.lower() in _TITLED else first} {rest}"


def _raised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _without(text: str, subject: str | None) -> str:
    return re.sub(re.escape(subject), "", text, flags=re.I) if subject else text
