"""Turns a question round: the sentence that its answer completes.

    Who is the head of Acme?                  the head of Acme is ...
    How many wheels does an Acme have?        an Acme has ... wheels
    Where can I buy an Acme?                  you can buy an Acme in ...
    Tell me the name of Acme's owner.         the name of Acme's owner is ...

A table of patterns, in which the subject is one character. Where none fits, there is no sentence.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

_HERE = "\u241f"  # stands for the subject

WH = r"(?:whom?|what|which|where|when)"
BE = r"(?:is|are|was|were)"
_HAVE = r"(?:has|have|had)"
_DO = r"(?:did|does|do)"
_MODAL = r"(?:can|could|will|would|shall|should|must|may|might)"
_AUX = rf"(?:{BE}|{_HAVE}|{_DO}|{_MODAL})"
PREPOSITION = (
    r"(?:of|upon|in|into|inside|by|to|from|for|with|without|at|on|onto|as|after|before|since|until"
    r"|during|through|over|under|near|against|between|about|around|across|per)"
)
_ASIDE = rf"(?:{PREPOSITION}|when|while|now|today|currently|every|\w+ly)"  # begins no object
_LOCATED = r"(?:located|based|born|headquartered|situated|founded|formed|established|written)"
_PLACE = r" (?:city|town|place|country|state|village|location|region)"
_STAY = r"(?:live|die|work|stay|originate)"
_VERBS = (
    r"(?:\w+ed|has|had|gave|gives|made|wrote|built|won|held|holds|led|ran|runs|leads|owns|owned"
    r"|plays|makes|sells|hosts)"
)
_DONE = (
    r"(?:been|\w+ed|made|built|held|found|known|written|kept|led|run|born|spoken|sold|won|worn"
    r"|sung|given|taken|open)"
)
_ADVERB = r"(?:first|last|also|originally|finally|officially|usually|currently|still|ever)"
_DEEDS = frozenset(
    "accept allow arrive ask be been belong begin bring build buy call carry charge close come "
    "contain cost cover deliver depart do employ end expire fit fly get give go have hold "
    "include last launch leave let live make mean meet move need offer open operate pay play "
    "produce provide put reach release require return run say sell send serve ship sit stand "
    "start stay stop store support take teach train travel use want weigh work write".split()
)
# What a name goes on with, before what is said of it: "Falcon | service | written in".
_NO_NAME = (
    rf"(?:\w+(?:ed|ly|ing)|{_ADVERB}|the|an?|now|not|best|most|and|or|when|while|{PREPOSITION})"
)
_MORE_NAME = re.compile(rf"(?P<name>(?: (?!{_NO_NAME}\b)[a-z]+){{1,3}}?)(?P<said> {_DONE}\b.*)")
_MORE_DEED = re.compile(
    rf"(?P<name>(?: (?!and\b|or\b)[a-z]+)?) (?P<verb>{'|'.join(_DEEDS)})\b(?P<rest>.*)"
)
_YOU = r"(?:i|you|we|one|people)"
_SIZE = (
    r"(?:long|far|fast|much|big|large|heavy|high|deep|old|tall|wide|quickly|hot|warm|cold|loud"
    r"|strong|thick|small)"
)
_OFTEN = r"(?:often|frequently|regularly|early|late|soon)"
_NUMBER = re.compile(
    r"[\d.,]+|(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty"
    r"|hundred|dozen|no|none|a hundred|a dozen)",
    re.I,
)
_IRREGULAR = dict(
    pair.split(":")
    for pair in (
        "be:was become:became begin:began build:built buy:bought choose:chose come:came cut:cut "
        "do:did draw:drew drive:drove eat:ate fall:fell fight:fought find:found fly:flew get:got "
        "give:gave go:went grow:grew have:had hit:hit hold:held keep:kept lead:led leave:left "
        "let:let lose:lost make:made mean:meant meet:met occur:occurred pay:paid put:put "
        "rise:rose run:ran say:said see:saw sell:sold send:sent set:set sing:sang sit:sat "
        "speak:spoke spend:spent stand:stood stop:stopped take:took teach:taught wear:wore "
        "win:won write:wrote"
    ).split()
)
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_TIMES = tuple(
    (re.compile(pattern, re.I), word)
    for pattern, word in (
        (r"(?-i:every|each|last|next|this|today|tomorrow|yesterday|now|never|always)\b", ""),
        (r".*(?:\d[:.]\d\d\b|\b\d\d? ?(?:[ap]\.?m\b)|o['\u2019]clock)|(?:noon|midnight)$", "at"),
        (
            rf".*\b\d\d?(?:st|nd|rd|th)?(?: of)? {_MONTH}\b|.*\b{_MONTH} \d\d?\b"
            r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day\b",
            "on",
        ),
    )
)
_DANGLING = re.compile(rf"\b{PREPOSITION}$", re.I)
_PERSONS = {"i": "you", "me": "you", "we": "you", "us": "you", "my": "your", "our": "your"}
_PERSON = re.compile(r"\b(?:I|me|we|us|my|our)\b", re.I)
_PLEASE = re.compile(
    r"(?:please )?(?:do you know|(?:can|could|would) you (?:please )?tell me"
    rf"|(?:please )?tell me|i(?:['\u2019]d| would) like to know) "
    rf"(?=(?:{PREPOSITION} )?(?:{WH}|whose|how)\b)",
    re.I,
)
_NAME = re.compile(r"(?:please )?(?:tell me|name|give me|state) (?P<part>the .+)", re.I | re.S)


class Sentence(NamedTuple):
    """A sentence with room for the target between its words."""

    begin: str
    end: str = ""


def turned(question: str, subject: str, target: str = "") -> Sentence | None:
    """The sentence that `target` completes to an answer; None where no pattern fits.

    `question` names the subject, and may be an order ("Tell me ..."). Some sentences depend on what
    the target is: a bare number, a date.
    """
    named = re.compile(
        rf"(?:\b(?:the|an?) )?(?<!\w){re.escape(subject)}(?!\w)(?: \([^)]*\))?", re.I
    )
    if not (found := named.search(question)):
        return None
    asked = re.sub(r"\s+", " ", named.sub(_HERE, question, count=1)).strip(" ?!.")
    asked, inside = _PLEASE.subn("", asked, count=1)
    asked = re.sub(rf"^({WH})['\u2019]s\b", r"\1 is", asked, flags=re.I)
    for pattern, turn in (
        _TOLD if inside else _TURNS if question.rstrip().endswith("?") else _ORDERS
    ):
        match = pattern.fullmatch(asked)
        parts = match and turn(target=target, **match.groupdict(""))
        if parts:
            said = (_PERSON.sub(_addressed, part) for part in parts)
            return Sentence(*(part.replace(_HERE, found.group()) for part in said))
    return None


def led_to(begin: str, target: str) -> str:
    """`begin` with the preposition that leads to `target`: "at" noon, none that it has itself."""
    if re.match(rf"{PREPOSITION} ", target):
        return _DANGLING.sub("", begin).rstrip()
    if not begin.endswith(" in"):
        return begin
    led = next((word for time, word in _TIMES if time.match(target)), "in")
    return f"{begin.removesuffix('in')}{led}".rstrip()


def _addressed(person: re.Match[str]) -> str:
    return _PERSONS[person.group().lower()]


# --- what the patterns make of their groups -----------------------------------------------------

Parts = tuple[str, str]


def _about_subject(
    led_by: str, wh: str, when: str, be: str, tail: str, target: str
) -> Parts | None:
    """Who was Acme founded by -> Acme was founded by; who is Acme's head -> Acme's head is."""
    if tail.startswith(("'", "\u2019")):
        return f"{_HERE}{tail} {be}", ""
    if more := _MORE_NAME.match(tail):
        be, tail = f"{more['name'].strip()} {be}", more["said"]
    if led_by or when or _of(wh):
        return _ended(f"{_HERE} {be}{tail}", led_by or _of("when" if when else wh)), ""
    if re.search(rf"\b{_LOCATED}$", tail):
        return f"{_HERE} {be}{tail} in", ""
    return (f"{_HERE} {be}{tail}", "") if not tail or _DANGLING.search(tail) else None


def _about_part(wh: str, be: str, part: str, done: str, target: str) -> Parts:
    """What is the capital of Acme -> the capital of Acme is."""
    return _ended(f"{part} {be}{done}", "in" if wh.casefold() == "where" else ""), ""


def _about_size(be: str, aside: str, target: str) -> Parts:
    """How heavy is Acme -> Acme is."""
    return f"{_HERE} {be}", aside


def _whose(noun: str, be: str, target: str) -> Parts:
    """Whose design is Acme -> Acme is the design of."""
    return f"{_HERE} {be} the {noun} of", ""


def _deed(
    who: str,
    verb: str,
    rest: str,
    target: str,
    led_by: str = "",
    wh: str = "",
    when: str = "",
    noun: str = "",
    aux: str = "",
    adverb: str = "",
    count: str = "",
    late: str = "",
) -> Parts | None:
    """When did Acme open -> Acme opened in; what can I buy at Acme -> you can buy ... at Acme."""
    if verb.lower() == "have" and noun and not rest and aux.lower() in ("do", "does"):
        return f"the{noun} of {who} is", ""
    if verb not in _DEEDS and who.endswith(_HERE) and (more := _MORE_DEED.match(rest)):
        who, verb, rest = f"{who} {verb}{more['name']}", more["verb"], more["rest"]
    done = re.fullmatch(_DO, aux, re.I)
    acts = _inflected(verb.lower(), aux.lower()) if done else f"{aux} {verb}"
    said = f"{who} {adverb and adverb + ' '}{acts}"
    if led_by or when or _of(wh):
        return _ended(f"{said}{rest}", led_by or _of("when" if when else wh)), ""
    begin, end = (rest, "") if late else _room(rest)
    if re.fullmatch(_PLACE, noun, re.I) and re.fullmatch(_STAY, verb, re.I) and not begin:
        begin = " in"
    return f"{said}{begin}", f"{_counted(count, target)}{end}"


def _has(noun: str, who: str, verb: str, rest: str, target: str, **more: str) -> Parts | None:
    """What has Acme been called -> Acme has been called; not: which firm has Acme acquired."""
    if noun and verb.lower() != "been" and not _DANGLING.search(rest):
        return None  # who acquired whom?
    if verb.lower() == "been":
        verb, _, rest = rest.strip().partition(" ")
        verb, rest = f"been {verb}", rest and f" {rest}"
    return _deed(who, verb, rest, target, **more)


def _doer(tail: str, target: str, count: str = "") -> Parts | None:
    """Who runs Acme -> ... runs Acme."""
    if _DANGLING.search(tail):
        return None
    return "", f"{_counted(count, target)} {tail}"


def _there(be: str, place: str, target: str, count: str) -> Parts:
    """How many rooms are there in Acme -> there are ... rooms in Acme."""
    return f"there {be}", f"{_counted(count, target)} {place}"


def _stated(rest: str, target: str, led_by: str = "", wh: str = "") -> Parts:
    """When Acme closed -> Acme closed in; in which year Acme closed -> Acme closed in."""
    return _ended(rest, led_by or _of(wh)), ""


def _named(part: str, target: str) -> Parts | None:
    """The owner of Acme -> the owner of Acme is."""
    head = re.split(rf"\b(?:{PREPOSITION}|who|that|which|where)\b|{_HERE}", part)[0].strip()
    several = re.search(r"\w{3}(?<![suia'\u2019])s$", head)
    return (f"{part} {'are' if several else 'is'}", "") if _HERE in part else None


def _of(wh: str) -> str:
    """The preposition before the answer to "where" or "when"."""
    return "in" if wh.casefold() in ("where", "when") else ""


def _ended(begin: str, led_by: str) -> str:
    """`begin`, up to the preposition that leads to the answer."""
    return begin if _DANGLING.search(begin) else f"{begin} {led_by.lower()}".rstrip()


def _room(rest: str) -> Parts:
    """What stands behind a verb, before and after the place of its object."""
    if _DANGLING.search(rest):
        return rest, ""
    for pattern in (
        rf"( {PREPOSITION})( {_ASIDE}\b.*)",
        rf"( to [a-z]+)(| {_ASIDE}\b.*)",
        rf"()( {_ASIDE}\b.*)",
        rf"(.* to [a-z]+)( {_ASIDE}\b.*)",
        r"( (?:called|named|titled))( .*)",
    ):
        if found := re.fullmatch(pattern, rest, re.I):
            return found.group(1), found.group(2)
    return rest, ""


def _counted(noun: str, target: str) -> str:
    """What is counted, where the target is a number and says it not."""
    return f" {noun}" if noun and _NUMBER.fullmatch(target.strip()) else ""


def _inflected(verb: str, do: str) -> str:
    if do == "did":
        if verb in _IRREGULAR:
            return _IRREGULAR[verb]
        return re.sub(r"(?<=[^aeiou])y$", "i", verb.removesuffix("e")) + "ed"
    if do == "do":
        return verb
    if verb in ("have", "do", "go"):
        return {"have": "has", "do": "does", "go": "goes"}[verb]
    ending = "es" if verb.endswith(("s", "x", "ch", "sh")) else "s"
    return re.sub(r"(?<=[^aeiou])y$", "ie", verb) + ending


# --- the patterns -------------------------------------------------------------------------------

Turn = tuple[re.Pattern[str], Callable[..., Parts | None]]

_LED = rf"(?:(?P<led_by>{PREPOSITION}) )?"
_NOUN = rf"(?: (?!{_AUX}\b)[\w/()-]+){{,4}}?"
_ITSELF = (
    rf"(?:(?!{_YOU}\b)(?:[\w'\u2019-]+ ){{1,4}}?(?:of|in|on|at|for|to|with) )?"
    rf"{_HERE}(?:['\u2019]s [\w-]+)?"
)
_ONE = r"(?:my|your|our|an?|each|every) [\w-]+(?: [\w-]+)??"
_WHO = (
    rf"(?P<who>{_ITSELF}|{_YOU}"
    rf"|{_ONE}(?= [a-z]+(?: {_ASIDE}\b| (?:the|my|an?|in)\b| {_HERE}|$)))"
)
_ACT = rf"(?:(?P<adverb>{_ADVERB}) )?(?P<verb>[a-z]+)(?P<rest>(?: .*)?)"
_DAY = r"(?P<when>(?: (?:year|date|day)){,1})"
_COUNT = r"how many (?P<count>[\w-]+(?: [\w-]+){,2}?)"


def _table(*rows: tuple[str, Callable[..., Parts | None]]) -> tuple[Turn, ...]:
    return tuple((re.compile(pattern, re.I), turn) for pattern, turn in rows)


_DOERS = _table(
    (rf"who (?!{_AUX} {_HERE}|{_DO}\b)(?P<tail>[a-z]+ .*{_HERE}.*)", _doer),
    (
        rf"(?:what|which){_NOUN} "
        rf"(?P<tail>(?:(?:{BE}|{_VERBS}) (?!{_HERE}).*|(?!{_HAVE} {_HERE} {_DONE}\b){_VERBS} )"
        rf"{_HERE}.*)",
        _doer,
    ),
    (
        rf"(?:what|which){_NOUN} (?P<tail>{_MODAL} (?!the|an?|my|your|{_YOU})[a-z]+ .*{_HERE}.*)",
        _doer,
    ),
    (rf"(?:what|which)(?: \w+){{1,3}} (?P<tail>(?!{PREPOSITION} |us |you )[a-z]+ {_HERE})", _doer),
    (
        rf"(?:what|which) [\w-]+ "
        rf"(?P<tail>(?!{_AUX}\b)[a-z]+(?:s|ed) (?:(?:us|you|{PREPOSITION}) )?{_HERE}.*)",
        _doer,
    ),
    (
        rf"(?:what|which){_NOUN} "
        rf"(?P<tail>(?:on|in|of|at|from|under) {_HERE} (?:{BE}|{_VERBS}|[a-z]+s) (?!it\b).+)",
        _doer,
    ),
    (rf"{_COUNT} (?P<be>{BE}) there (?P<place>.*{_HERE}.*)", _there),
    (rf"{_COUNT} (?P<tail>(?:{BE}|(?!{_AUX}\b)[a-z]+) (?:{PREPOSITION} )?{_HERE}.*)", _doer),
)
_TURNS = (
    *_table(
        (
            rf"(?!(?:{PREPOSITION} )?{WH}\b|how\b)"
            rf"(?P<rest>.*{_HERE}(?:.*[^,])?) (?:(?:as )?{WH}(?: \w+){{,2}}|(?<=is) *|(?<=was) *)",
            _stated,
        ),
        (rf"{_LED}(?P<wh>{WH}){_DAY}{_NOUN} (?P<be>{BE}) {_HERE}(?P<tail>.*)", _about_subject),
        (
            rf"(?P<wh>{WH}){_NOUN} (?P<be>{BE}) "
            rf"(?P<part>(?:the (?:(?!\b(?:that|who|which)\b).)*\b{PREPOSITION} (?:the )?)?{_HERE})"
            rf"(?P<done> {_DONE}(?: {PREPOSITION})?)",
            _about_part,
        ),
        (
            rf"(?P<wh>{WH}){_NOUN} (?P<be>{BE}) (?P<part>(?:the .*)?{_HERE}.*)(?P<done>)",
            _about_part,
        ),
        (rf"whose (?P<noun>[\w -]+?) (?P<be>{BE}) {_HERE}", _whose),
        (
            rf"{_LED}(?P<wh>{WH}){_DAY}(?P<noun>{_NOUN}) (?P<aux>{_HAVE}) {_WHO} "
            rf"(?P<verb>{_DONE})(?P<rest>(?: .*)?)",
            _has,
        ),
        (rf"how {_SIZE} (?P<be>{BE}) {_HERE}(?P<aside>(?: {_ASIDE}\b.*)?)", _about_size),
        (
            rf"{_LED}(?P<wh>{WH}){_DAY}(?P<noun>{_NOUN}) (?P<aux>{_DO}|{_MODAL}) {_WHO} {_ACT}",
            _deed,
        ),
        (rf"how (?:(?P<late>{_OFTEN})|{_SIZE}) (?P<aux>{_DO}|{_MODAL}) {_WHO} {_ACT}", _deed),
        (rf"{_COUNT} (?P<aux>{_DO}|{_MODAL}) {_WHO} {_ACT}", _deed),
    ),
    *_DOERS,
    *_table(
        (rf"{_LED}(?:what|which){_NOUN},? (?P<rest>{_HERE} (?!{PREPOSITION}$)[a-z].*)", _stated)
    ),
)
_TOLD = (
    *_DOERS,
    *_table(
        (rf"(?P<wh>when|where) (?!{_AUX}\b)(?P<rest>.*{_HERE}.*)", _stated),
        (rf"{_LED}(?:what|which){_NOUN},? (?P<rest>{_HERE} (?!{PREPOSITION}$)[a-z].*)", _stated),
    ),
)
_ORDERS = ((_NAME, _named),)
