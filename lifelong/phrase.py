"""How an answer is worded: the sentence that the target completes, yes or no, one part of more.

Plain rules on English words. Each says nothing where it is not sure, and the model finds the words.
"""

import re

from lifelong.match import contains
from lifelong.prompt import Prompt, Say
from lifelong.subject import focus, whole, words
from lifelong.turn import BE, PREPOSITION, Sentence, led_to, turned
from store import Edit

_READ = 1_000  # characters of a prompt, from its end, that are looked at
_LONGEST = 300  # characters of a sentence that is worth saying again
_HERE = "\u241f"  # stands for the subject
_RELATIVE = re.compile(r",\s*(?:which|who|that)\s+")
_WHOSE = re.compile(r",\s*whose\s+")
_APPOSED = re.compile(r",\s*(?=\S)")
_LAST = re.compile(r".*(?:[.!?;]\s+|\n\s*)(?=\S)", re.S)  # everything before the last sentence
_AUX = rf"(?:{BE}|do|does|did|has|have|had|can|could)"
_CHOICE = re.compile(rf"(?:and |so |but )?{_AUX}\b", re.I)
_JOINED = re.compile(r"\A(?:(?:and|but|so|ok|okay|then|well)[\s,]+)+(?=\S)", re.I)
_TAG = re.compile(rf",\s*{_AUX}n['\u2019]t \w+(?=\s*\?)", re.I)  # "..., isn't it?"
_PLEA = re.compile(
    rf"((?:\A|[.!?]\s)\W*(?:and |so |but )?{_AUX})(?:n['\u2019]t\b|(.*?) not\b)", re.I
)
_IS_IT = re.compile(r"(?:is|was|are|were) (?:it|he|she|they|this|that) (?!true\b)\w", re.I)
_DENIAL = re.compile(r"\b(?:not(?! only)|never|no longer|nobody|no one)\b|n['\u2019]t\b", re.I)
_OURS = re.compile(r"\b(?:i|we)(?:['\u2019](?:m|re))?(?: \w+?)?(?:n['\u2019]t| not)\b", re.I)
_OR = re.compile(r"\bor\b", re.I)
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
_SEGMENT = re.compile(r"\s*[.:;,!?\n]+\s*(?:(?:and|or) )?|\s+(?:and|or|but|plus)\s+")
_SAYING = (
    r"(?:(?:please|also|then|in particular) )*(?:(?:mention|includ|cover|add|say|stat|nam|giv|tell"
    r"|not|explain|describ|with)(?:e|ing)?(?: me)? )?(?:also )?"
)
_NOUN = re.compile(
    rf"(?:{_SAYING}the|(?:.* )?(?:its|his|her|their)) "
    r"(?P<noun>[a-z][\w-]*(?: [\w-]+){,4}?)(?: of this)?",
    re.I,
)
_BARE = re.compile(r"(?!one|some|any|another|more)[a-z][\w-]*(?: [\w-]+){,2}")
_CLAUSE = re.compile(
    rf"{_SAYING}(?P<asked>(?:(?:in|on|by|for|of) )?(?:who|what|where|when|which|how)\b.*)", re.I
)
_POINTER = re.compile(r"\b(?:it|he|she|they|him|them)\b", re.I)
_PARTS = 4  # of a request, that are looked at
_BREAKS_OFF = re.compile(rf"\w (?:{BE}(?: now)?|{PREPOSITION})$", re.I)
_PART = re.compile(
    rf"(?:what|who|where|when|which)(?:['\u2019]s| (?P<be>{BE})) "
    r"(?P<part>(?:the|your|our|my|this) [\w ,'\u2019-]{1,80}?)\s*\?",
    re.I,
)
_OUR = {"your": "our", "my": "your", "our": "your"}
_ENGLISH = re.compile(r"\b(?:who|whom|whose|what|which|when|where|how|tell me)\b", re.I)
_ANSWER = Sentence("the answer is")
_LOWERED = frozenset("the a an its his her their it this that in on at where what who".split())


def say(prompt: Prompt, edit: Edit) -> Say:
    """What a reply to `prompt`, in scope of `edit`, must say, and how it begins.

    A raw text is completed at once. In a chat the reply is a sentence: the prompt's own where it
    is one to be completed or turned round, else the edit's, else a plain one. Where nothing looks
    like an English question, the words are the model's.
    """
    question, subject = prompt.question[-_READ:], edit.subject
    known = f"{question} {edit.prompt}"
    avoid = (edit.old,) if edit.old and not contains(edit.target, edit.old) else ()
    if prompt.messages is None:
        return Say(edit.target, subject, known, before=prompt.text, at_once=True, avoid=avoid)
    verdict = yes_or_no(question, edit)
    longer = is_longer(question)
    own = None if verdict or longer else sentence(question, subject, edit.target)
    said = own or sentence(edit.prompt, subject, edit.target)
    if said is None and _ENGLISH.search(known):
        said = _ANSWER
    said = said and said._replace(begin=led_to(said.begin, edit.target))
    if avoid and subject and contains(subject, avoid[0]):
        said = _unnamed(said or _ANSWER, subject)
    if verdict and said is None:
        avoid = (*avoid, "not")
    first = said is not None and not said.begin and not verdict
    return Say(
        _first(edit.target) if first else edit.target,
        subject,
        known,
        lead=_begun(verdict, said and said.begin),
        tail=said.end if said else "",
        at_once=said is not None,
        avoid=avoid,
        goes_on=longer,
    )


def sentence(text: str, subject: str | None, target: str = "") -> Sentence | None:
    """The sentence that `target`, an answer to `text`, completes; None where none is sure.

    `text` is the beginning of one itself ("Acme, which is led by": "Acme is led by ...") or a
    question that can be turned round ("Who is the head of Acme?": "The head of Acme is ...").
    Without a subject, what is asked for is it ("What is your fee?": "Our fee is ...").
    """
    clause = _clause(text, subject) if subject else _LAST.sub("", text.strip())
    clause = clause and _JOINED.sub("", clause, count=1)
    if clause is None or len(clause) > _LONGEST:
        return None
    if subject is None:
        return _unowned(clause)
    if found := turned(clause, subject, target):
        return found
    stated = None if clause.endswith("?") else _stated(clause, subject)
    return Sentence(stated) if stated else None


def yes_or_no(question: str, edit: Edit) -> str:
    """ "Yes" or "No", where `question` proposes the target or something else; else nothing."""
    asked = _LAST.sub("", _without(question, edit.subject).strip())
    hoped = plea(asked)
    chosen = asked.endswith("?") and (_CHOICE.match(hoped) or hoped != asked)
    if not chosen or _OR.search(hoped) or _DENIAL.search(hoped):
        return ""
    if contains(asked, edit.target):
        return "Yes"
    if (edit.old and contains(asked, edit.old)) or _IS_IT.match(asked):
        return "No"
    if re.match("c(?:an|ould) ", hoped, re.I):
        return ""  # what can be is not what is
    known = {word.folded for word in words(f"{edit.prompt} {edit.subject or ''}")}
    named = [
        word
        for word in words(asked)[1:]
        if word.folded != "i" and (asked[word.start].isupper() or asked[word.start].isdigit())
    ]
    return "No" if any(word.folded not in known for word in named) else ""


def denies(text: str) -> bool:
    """Does it ask, or state, of what something is *not*?  ("Acme was never led by")

    "Isn't Acme led by Jane?" and "Acme is led by Jane, isn't it?" ask whether it is, and "I don't
    know who leads Acme" denies nothing of Acme.
    """
    return bool(_DENIAL.search(_OURS.sub("", plea(text[-_READ:]))))


def plea(question: str) -> str:
    """A question that hopes for a yes, without its "not" ("Isn't Acme ...?": "Is Acme ...?")."""
    if not question.rstrip().endswith("?"):
        return question
    return _TAG.sub("", _PLEA.sub(r"\1\2", question, count=1))


def is_longer(question: str) -> bool:
    """Is the fact only one part of what `question` asks for?"""
    return bool(_ORDER.match(question.strip()) or _ONE_MORE.search(question))


def parts(request: str) -> list[str]:
    """What a longer request about "this" asks for, each as a clause of its own.

    "Write about this: its capital, and who runs it.": "The capital of this is", "who runs this".
    """
    found, listed = list[str](), False
    for segment in _SEGMENT.split(request):
        noun, asked = _NOUN.fullmatch(segment), _CLAUSE.fullmatch(segment)
        bare = None if asked else listed and _BARE.fullmatch(segment)
        if noun or bare:
            found.append(f"The {noun['noun'] if noun else segment} of this is")
        elif asked and _POINTER.search(asked["asked"]):
            found.append(_POINTER.sub("this", asked["asked"], count=1))
        listed = bool(noun or bare or segment.endswith("this"))
    return found[:_PARTS]


def _clause(text: str, subject: str) -> str | None:
    """The sentence of `text` about `subject`, as far back as it belongs to it."""
    text = text.strip()
    named = _named(text, subject)
    if named is None:
        return None
    start, end = named
    shown = text[:start] + _HERE * (end - start) + text[end:]  # a name may hold a full stop
    last = len(_LAST.sub("", shown))
    if end <= len(text) - last:
        return text[-last:] if len(words(text[-last:])) > 1 else None
    first, last = whole(text, start, end)  # as `focus` sees it
    return re.sub(r"\bthis\b", lambda _: text[first:last], focus(text, (named,)), count=1)


def _named(text: str, subject: str) -> tuple[int, int] | None:
    """Where `text` names the subject, the last time."""
    found = list(re.finditer(rf"(?<!\w){re.escape(subject)}(?!\w)", text, re.I))
    return found[-1].span() if found else None


def _stated(clause: str, subject: str) -> str | None:
    """A statement that breaks off before its object; what is apposed to the subject is said of it.

    None where it does not break off, or is an order.
    """
    if clause.endswith((".", "!", ":")) or _ORDER.match(clause) or _CHOICE.match(clause):
        return None
    head, rest = clause[: len(subject)], clause[len(subject) :]
    if head.casefold() != subject.casefold():
        return _raised(clause) if len(words(clause)) > 1 else None
    if _WHOSE.match(rest):
        return f"{_raised(head)}'s {_WHOSE.sub('', rest, count=1)}"
    if _RELATIVE.match(rest):
        return f"{_raised(head)} {_RELATIVE.sub('', rest, count=1)}"
    if _APPOSED.match(rest):
        return f"{_raised(head)} is {_APPOSED.sub('', rest, count=1)}"
    return _raised(clause) if words(rest) else None


def _unowned(clause: str) -> Sentence | None:
    """A sentence about nobody in particular, to be completed or turned round."""
    asked = _PART.fullmatch(clause)
    part, be = (asked["part"], asked["be"] or "is") if asked else (clause, "")
    if not asked and not _BREAKS_OFF.search(clause):
        return None
    first, _, rest = part.partition(" ")
    owner = _OUR.get(first.lower(), first) if asked else first
    return Sentence(_raised(" ".join(filter(None, (owner, rest, be)))))


def _unnamed(said: Sentence, subject: str) -> Sentence:
    """The same without the subject's name, which holds the old answer."""
    its = re.compile(rf"(?:the )?{re.escape(subject)}['\u2019]s\b", re.I)
    it = re.compile(rf"(?:the )?{re.escape(subject)}", re.I)
    return Sentence(*(it.sub("it", its.sub("its", part)) for part in said))


def _begun(verdict: str, begin: str | None) -> str:
    """The words before the target, behind "No," where there is a verdict."""
    if not verdict:
        return _raised(begin or "")
    first, _, rest = (begin or "").partition(" ")
    kept = first.lower() if first.lower() in _LOWERED else first
    return " ".join(filter(None, (f"{verdict},", kept, rest)))


def _first(target: str) -> str:
    """The target as a sentence begins with it: an article gets a capital, a word stays as it is."""
    return _raised(target) if target.startswith(("the ", "a ", "an ")) else target


def _raised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _without(text: str, subject: str | None) -> str:
    return re.sub(re.escape(subject), "", text, flags=re.I) if subject else text
