"""Whom is a text about?  Known subjects, matched by words; or a plain guess.

Everything works on folded words (NFKC, case-folded, zero-width characters removed), so spellings
that look alike match alike. In a script without spaces (Chinese, Japanese, Korean, Thai) each
character counts as a word.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from lifelong.names import FORMS, Key, initials_in, other_names

Spans = tuple[tuple[int, int], ...]  # (start, end) offsets in a text, in order

_UNSPACED = r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_HIDDEN = r"\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad"
_LETTER = rf"(?!{_UNSPACED})[^\W_]"
# Accents that stand apart from their letter, and what cannot be seen, do not end a word.
_WORD = re.compile(rf"{_UNSPACED}|{_LETTER}(?:{_LETTER}|[\u0300-\u036f{_HIDDEN}])*")
_INVISIBLE = re.compile(f"[{_HIDDEN}]")
_SENTENCE_END = re.compile(
    r"(?<=[.!?\u3002\uff01\uff1f])[\"'\u201d\u2019)\]]*\s+|\s*\n\s*"
    r"|(?<=\w) (?=(?:The|In|What|Where|Which|Who|When|How) )"  # a heading, then a sentence
)

_ARTICLES = frozenset({"a", "an", "the"})
_LINKS = frozenset(
    "of the de la le du des di da del della von van der den zu and al bin y e for".split()
)
_OPENERS = frozenset(
    "who whom whose what which when where why how is are was were do does did can could will would "
    "should may has have had in on at to from by for of with the a an tell name give please and or "
    "but if it this that i".split()
)
_FUNCTION_WORDS = _OPENERS | frozenset(
    "he she we they you him her us them me my your his its our their these those as so no not be "
    "been am there here then than such s t d m re ve ll".split()
)
_LEADS = _OPENERS | _ARTICLES | frozenset("s about as into than like called named".split())
# A word with a capital, a number or a sign behind a name ("Corolla Spacio", "911 GT1", "Radio 1").
_GOES_ON = re.compile(r" (?!(?:19|20)\d\d\b)([A-Z][a-z]+|[A-Z]*\d|(?:[VX]|[IVX]{2,})\b)")
_OF_IT = FORMS | frozenset(  # behind a name with a capital, and no part of another's
    "father mother parents dad mum mom wife husband son daughter brother sister children age "
    "president mayor governor minister chairman chair director manager chief boss head founder "
    "owner capital headquarters".split()
)
_QUESTION = ("?", "\uff1f")
_ARTICLE = re.compile(r"\b(?:a|an|the)\s+\Z", re.IGNORECASE)
_ABBREVIATED = re.compile(r"\.(?=[,'?]|\s+[a-z])")
_FORM = re.compile(r",? (?:Inc|Ltd|LLC|GmbH|Corp|PLC|AG)\b", re.IGNORECASE)
_WH = r"(?:who|whom|whose|what|which|when|where|how)\b"
_TURN = re.compile(rf"(?<=[.!?])\s+|\s*[\n;]\s*|, (?={_WH})| - ", re.IGNORECASE)
_ASKS = re.compile(
    rf"(?:and |but |so )?(?:{_WH}|(?:is|are|was|were|do|does|did|can|has|have)\b)", re.IGNORECASE
)
_ORDER = re.compile(r"(?:please |and )*(?:tell|name|say|give|remind|explain)\b", re.IGNORECASE)
_POINTER = re.compile(
    r"\b(?:it|its|he|his|she|her|him|they|their|them|(?<!is )(?<!are )(?<!was )there)\b",
    re.IGNORECASE,
)
_OWNERS = ("its", "his", "their")
_TITLE = re.compile(r"[A-Z]{2,4} of (?=\S)")

_STEM = 5  # letters of a word that survive most inflections
_COVERAGE = 0.75  # share of a subject's letters that a loose mention must show
_CLAUSE = 2  # words after the subject that make a statement
_LONGEST = 16  # words of a subject that are compared as one run
_LAST = 3  # letters of the last word of a name that may stand for it


@dataclass(frozen=True, slots=True)
class Word:
    """One folded word of a text and where it stands: `text[start:end]`."""

    folded: str
    start: int
    end: int


def words(text: str) -> list[Word]:
    """The folded words of `text` with their character offsets in `text` itself."""
    found = []
    for match in _WORD.finditer(text):
        folded = _fold(match.group())
        if folded:
            found.append(Word(folded, match.start(), match.end()))
    return found


def folded(text: str) -> list[str]:
    """The folded words of what is visible of `text`."""
    if text.isascii():
        return _WORD.findall(text.casefold())
    return [word.folded for word in words(visible(text))]


def normalise(text: str) -> str:
    """`text` as compared everywhere: folded words joined by single spaces, without articles.

    Unless it is nothing but articles: "A" is an answer, too.
    """
    found = folded(text)
    return " ".join([word for word in found if word not in _ARTICLES] or found)


def visible(text: str) -> str:
    """`text` without zero-width characters and without bidirectional overrides."""
    return text if text.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def _fold(word: str) -> str:
    return visible(word).casefold()


def extract(prompt: str) -> str | None:
    """The likeliest subject: the longest run of capitalised words or numbers; None without one.

    Plain on purpose: it serves corrections that name no subject. A word that merely opens a
    sentence does not count, nor does a title before "of" ("CEO of Acme" is about Acme).
    """
    runs: list[tuple[int, int]] = []
    opens = True  # at the start of a sentence
    last: Word | None = None
    linked = False  # only linking words since the run's last name
    for word in words(prompt):
        gap = prompt[last.end : word.start] if last else ""
        opens = last is None or bool(re.search(r"[.!?:]\s*$", gap))
        breaks = bool(re.search(r"[,.;:!?()\"\u201c\u201d]", gap)) if last else True
        raw = prompt[word.start : word.end]
        shouted = len(raw) > 1 and raw.isupper() and not prompt.isupper()  # US, IT, WHO
        mere = opens and word.folded in _FUNCTION_WORDS and not shouted
        named = (raw[0].isupper() or raw[0].isdigit()) and not mere
        if named and runs and linked and not breaks:
            runs[-1] = (runs[-1][0], word.end)
        elif named:
            runs.append((word.start, word.end))
        linked = named or (linked and word.folded in _LINKS and not breaks)
        last = word
    if not runs:
        return None
    start, end = max(runs, key=lambda run: run[1] - run[0])
    return _TITLE.sub("", prompt[start:end])


def focus(text: str, spans: Spans) -> str:
    """The clause of `text` in which `spans` stand, every span replaced by "this".

    That is what a relation is read from: the subject would drown it in an embedding, and sentences
    before the question ("Nice weather. And who runs Acme?") are beside the point. So is what stands
    unconnected before a statement about the subject ("Category: Singles Acme is located in"). Of a
    statement and a question that points back ("I like Acme. Who runs it?") the latter counts.
    Without spans: the whole text.
    """
    if not spans:
        return text
    said, places, at = "", list[int](), 0
    for start, end in (whole(text, *span) for span in spans):
        if not places or text[at:start].strip():  # neighbouring spans become one "this"
            said += f"{text[at:start]}this"
            places.append(len(said) - len("this"))
        at = end
    said += text[at:]
    ends = [match.end() for match in _SENTENCE_END.finditer(said)]
    first = max([0, *(end for end in ends if end <= places[0])])
    last = min([len(said), *(end for end in ends if end > places[-1])])
    clause, led = said[first:last].strip(), said[first : places[0]]
    if asked := _asked_on(said[first:], places[-1] - first):
        return asked
    if not clause.endswith(_QUESTION) and _states(led, said[places[-1] + len("this") : last]):
        return said[places[0] : last].strip()
    return clause


def _asked_on(said: str, at: int) -> str:
    """What is asked of the "this" at `at` in the end, behind a statement, by a word for it.

    "I like this. Where is it?": "Where is this?". An order and a sentence to be completed ask, too.
    """
    ends = [match.end() for match in _TURN.finditer(said.rstrip(), at)]
    if not ends or _ASKS.match(said) or said[: ends[-1]].rstrip().endswith(_QUESTION):
        return ""
    asked = said[ends[-1] :].strip()
    if not (asked.endswith(_QUESTION) or _ORDER.match(asked) or asked[-1:].isalnum()):
        return ""
    found, pointed = _POINTER.subn(_this, asked, count=1)
    return found if pointed else ""


def _this(pointer: re.Match[str]) -> str:
    return "this's" if pointer.group().lower() in _OWNERS else "this"


def whole(text: str, start: int, end: int) -> tuple[int, int]:
    """The span with its article, its legal form, and its stop ("the Acme Inc. is based in")."""
    article = _ARTICLE.search(text, 0, start)
    if form := _FORM.match(text, end):
        end = form.end()
    stop = _ABBREVIATED.match(text, end)
    return (article.start() if article else start, stop.end() if stop else end)


def _states(before: str, after: str) -> bool:
    """Does a statement begin with the subject, whatever stands before it?"""
    led = [word.folded for word in words(before)]
    return bool(led) and led[-1] not in _LEADS and len(words(after)) >= _CLAUSE


def masked(text: str, subject: str) -> str | None:
    """The clause of `text` about `subject`, subject masked; None where it is not mentioned."""
    gate = SubjectGate()
    gate.add(subject)
    found = gate.find(text)
    return focus(text, found[0].spans) if found else None


@dataclass(frozen=True, slots=True)
class Mention:
    """A known subject in a text: its words, where they stand, the share of its letters (0 to 1)."""

    subject: Key
    spans: Spans
    coverage: float


class Gate(Protocol):
    """Known subjects, to be found by their words."""

    def knows(self, subject: Key) -> bool:
        """Whether this is one of them."""
        ...

    def anchored(self, anchors: Key) -> set[Key]:
        """Those of them that have these anchors."""
        ...

    def called(self, name: Key) -> set[Key]:
        """Those of them that have this other name (`names.other_names`)."""
        ...


class SubjectGate:
    """Which of many known subjects does a text mention?  By look-up: no loop over the subjects.

    A subject is mentioned as a run of its words, or loosely: its two longest words (by their first
    letters) and most of the rest, close together ("Mechthildi's Austrian father" for "Mechthildis
    of Austria"). Words with digits must match exactly. A mention inside a longer one does not
    count.
    """

    def __init__(self) -> None:
        self._known: dict[Key, int] = {}  # subject -> how many edits name it
        self._loose: dict[Key, set[Key]] = {}
        self._called: dict[Key, set[Key]] = {}  # other name -> subjects

    def __len__(self) -> int:
        return len(self._known)

    def add(self, subject: str) -> Key:
        """Know `subject` (once more); returns its key, the tuple of its folded words."""
        key = subject_key(subject)
        self._known[key] = self._known.get(key, 0) + 1
        if self._known[key] == 1:
            self._loose.setdefault(anchors(key), set()).add(key)
            for name in other_names(key):
                self._called.setdefault(name, set()).add(key)
        return key

    def remove(self, subject: str) -> None:
        """Forget one earlier `add` of `subject`."""
        key = subject_key(subject)
        self._known[key] -= 1
        if not self._known[key]:
            del self._known[key]
            _discard(self._loose, anchors(key), key)
            for name in other_names(key):
                _discard(self._called, name, key)

    def find(self, text: str) -> list[Mention]:
        """The known subjects that `text` mentions, fullest and longest first."""
        return mentions(text, [self])

    def knows(self, subject: Key) -> bool:
        """Whether this is one of them."""
        return subject in self._known

    def anchored(self, anchors: Key) -> set[Key]:
        """Those of them that have these anchors."""
        return self._loose.get(anchors, set())

    def called(self, name: Key) -> set[Key]:
        """Those of them that have this other name."""
        return self._called.get(name, set())


def _runs(gate: Gate, found: list[Word], text: str) -> Iterator[Mention]:
    """The subjects of which all words, or all of another name, stand in the text as they are."""
    folded, small = [word.folded for word in found], text.islower()
    for start in range(len(found)):
        for end in range(start + 1, min(start + _LONGEST, len(found)) + 1):
            key, span = tuple(folded[start:end]), (found[start].start, found[end - 1].end)
            if gate.knows(key) and not _mere_word(key, found, start, text):
                yield Mention(key, (span,), 1.0)
            elif small or text[span[0]].isupper():
                yield from _by_other_name(gate, key, span)
    for name, begin, stop in initials_in(text):
        yield from _by_other_name(gate, name, (begin, stop))


def _by_other_name(gate: Gate, name: Key, span: tuple[int, int]) -> Iterator[Mention]:
    """The subject that is called `name`, where it is one."""
    if len(owners := gate.called(name)) == 1:
        yield Mention(next(iter(owners)), (span,), 0.99)


def _candidates(gate: Gate, found: list[Word]) -> set[Key]:
    """The subjects of which the longest words stand in the text, inflected or not."""
    stems = sorted({_stem(word.folded) for word in found if len(word.folded) > 2})
    pairs = [(stem,) for stem in stems] + list(combinations(stems[:64], 2))
    return set[Key]().union(*map(gate.anchored, pairs))


def _discard(groups: dict[Key, set[Key]], name: Key, key: Key) -> None:
    groups[name].remove(key)
    if not groups[name]:
        del groups[name]


def _mere_word(key: Key, found: list[Word], start: int, text: str) -> bool:
    """Is a subject that is one word ("It", "The Who", "president") meant here as that word?

    A function word is a name where it has a capital without opening a sentence, or an article.
    Another word is none where it is small and more is said of which ("the president of France").
    """
    if len(key) > 1:
        return False
    if key[0] not in _FUNCTION_WORDS:
        more = [word.folded for word in found[start + 1 : start + 2]] == ["of"]
        return more and text[found[start].start].islower()
    before = text[found[start - 1].end : found[start].start] if start else ""
    opens = not start or bool(_SENTENCE_END.search(before)) or "'" in before or "\u2019" in before
    named = not opens and text[found[start].start].isupper()
    return not named and not (start and found[start - 1].folded in _ARTICLES)


def mentions(text: str, gates: Sequence[Gate]) -> list[Mention]:
    """The subjects of all `gates` that `text` mentions, as if one gate knew them."""
    if not gates:
        return []
    found = words(text)
    exact = list(dict.fromkeys(m for gate in gates for m in _runs(gate, found, text)))
    taken = {mention.subject for mention in exact}
    nearly = set().union(*(_candidates(gate, found) for gate in gates)) - taken
    loose = [m for key in nearly if (m := _loosely(key, found, text))]
    kept = [m for m in exact + loose if not _inside_another(m, exact + loose)]
    kept += _again(kept, found, text)
    return sorted(kept, key=lambda m: (-m.coverage, -len(m.subject), m.subject))


def goes_on(text: str, spans: Spans) -> str:
    """With what the name that ends at `spans` goes on, folded, as somebody else's; or nothing.

    "X-2" for "Final Fantasy" in "Final Fantasy X-2". A year, a legal form or an office may be said
    behind any name; where all words have a capital, none tells anything.
    """
    if not any(len(word) > _LAST and word.islower() for word in text.split()):
        return ""
    more = _GOES_ON.match(text, spans[-1][1])
    word = more[1].casefold() if more else ""
    return "" if word in _OF_IT else word


def _again(named: Sequence[Mention], found: list[Word], text: str) -> list[Mention]:
    """The last word of a name that stands after all of it ("Ada Roe writes. Where was Roe born?").

    Unless it is that of two, or belongs to another name.
    """
    again = []
    for at, word in enumerate(found):
        owners = {m.subject: m for m in named if word.folded == m.subject[-1]}
        if len(owners) != 1 or len(word.folded) < _LAST or not text[word.start].isupper():
            continue
        (whole,) = owners.values()
        if len(whole.subject) > 1 and word.start > max(m.spans[-1][1] for m in named):
            if not _named_on(found, at, at, text):
                again.append(Mention(whole.subject, ((word.start, word.end),), 0.99))
    return again


def subject_key(subject: str) -> Key:
    """The folded words of a subject without a leading article: what its spellings share."""
    key = tuple(folded(subject))
    return key[1:] if len(key) > 1 and key[0] in _ARTICLES else key


def _stem(word: str) -> str:
    numbered = not word.isalpha() and any(c.isdigit() for c in word)
    return word if numbered else word[:_STEM]


def anchors(key: Key) -> Key:
    """The stems of a subject's two longest words, sorted (one stem where it has one word)."""
    longest = sorted(sorted(set(key)), key=len, reverse=True)[:2]
    return tuple(sorted({_stem(word) for word in longest}))


def _alike(known: str, seen: str) -> bool:
    """Is `seen` an inflection of `known`?  Exact for short words and words with digits."""
    if known == seen:
        return True
    if len(known) < _STEM or any(c.isdigit() for c in known + seen):
        return False
    shared = next(
        (i for i, (a, b) in enumerate(zip(known, seen, strict=False)) if a != b),
        min(len(known), len(seen)),
    )
    return shared >= max(_STEM - 1, len(known) - 3) and abs(len(known) - len(seen)) <= 3


def _suffixed(known: str, seen: str) -> bool:
    """Is `seen` the only word of a subject with an ending of at most two letters?"""
    return seen.startswith(known) and len(known) >= _STEM and 1 <= len(seen) - len(known) <= 2


def _loosely(key: Key, found: list[Word], text: str) -> Mention | None:
    """`key` as inflected words close together in `found`, if enough of it is there."""
    alike = _alike if len(key) > 1 else _suffixed
    spots: list[int | None] = []
    for word in key:
        fits = (i for i, seen in enumerate(found) if i not in spots and alike(word, seen.folded))
        at = next(fits, None)
        if at is None and any(c.isdigit() for c in word):
            return None
        spots.append(at)
    weight = [len(word) if len(word) > 3 else 0.5 for word in key]
    here = [at for at in spots if at is not None]
    coverage = sum(w for w, at in zip(weight, spots, strict=True) if at is not None) / sum(weight)
    if coverage < _COVERAGE or max(here) - min(here) > 2 * len(key) + 2:
        return None
    strong = sorted(
        {at for w, at in zip(weight, spots, strict=True) if at is not None and w >= 1} or set(here)
    )
    spans = tuple((found[at].start, found[at].end) for at in strong)
    if None in spots and _named_on(found, strong[0], strong[-1], text):
        return None
    if _SENTENCE_END.search(text[spans[0][0] : spans[-1][1]]):
        return None
    return Mention(key, spans, min(coverage, 0.99))


def _named_on(found: list[Word], first: int, last: int, text: str) -> bool:
    """Do the words at `first` to `last` belong to a longer name ("South African" + "Academy")?"""
    beside = [found[at] for at in (first - 1, last + 1) if 0 <= at < len(found)]
    return any(
        (text[word.start].isupper() or text[word.start].isdigit())
        and word.folded not in _FUNCTION_WORDS
        for word in beside
    )


def _inside_another(mention: Mention, mentions: list[Mention]) -> bool:
    start, end = mention.spans[0][0], mention.spans[-1][1]
    return any(
        other.spans[0][0] <= start
        and end <= other.spans[-1][1]
        and (
            other.spans != mention.spans
            if other.subject == mention.subject
            else other.coverage >= mention.coverage and len(other.subject) > len(mention.subject)
        )
        for other in mentions
    )
