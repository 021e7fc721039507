"""The live edits, found by what they say: by a subject, by a fact, by their ids.

In memory are their ids and what they are found by, as hashes; the edits themselves are read from
the journal when they are asked for, and the last ones asked for are kept. Of up to `KEPT` all are:
a file that fails then takes nothing away.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from lifelong.fact import Fact, facts
from lifelong.postings import Postings
from lifelong.subject import Gate, Subject, anchors, subject_key
from store import Edit, Journal, Outline

KEPT = 50_000
_CHUNK = 20_000  # edits read from the journal at a time


class Shelf(Gate):
    """The live edits of a journal. The caller keeps changes and questions apart (a lock)."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._live: set[int] = set()
        self._kept: OrderedDict[int, tuple[Edit, str]] = OrderedDict()
        self._of_subject = Postings()
        self._of_fact = Postings()
        self._near = Postings()  # anchors -> the subjects that have them, both hashed

    def fill(self, epoch: int) -> None:
        """Take in all that was live at `epoch`."""
        ids = self._journal.live_ids(epoch)
        for start in range(0, len(ids), _CHUNK):
            self.add(self._journal.outlines(ids[start : start + _CHUNK]))
        for postings in (self._of_subject, self._of_fact, self._near):
            postings.sort_in()
        if len(ids) <= KEPT:
            self.read(sorted(self._live), epoch)

    def add(self, outlines: Iterable[Outline | Edit]) -> None:
        """Take these in."""
        for edit in outlines:
            self._live.add(edit.id)
            key = subject_key(edit.subject or "")
            if key and not self._of_subject.get(hash(key)):
                self._near.add(hash(anchors(key)), hash(key))
            self._of_subject.add(hash(key), edit.id)
            for fact in facts(edit):
                self._of_fact.add(hash(fact), edit.id)

    def remove(self, ids: Iterable[int]) -> None:
        """Forget these."""
        for id in ids:
            self._live.remove(id)
            self._kept.pop(id, None)

    @property
    def ids(self) -> AbstractSet[int]:
        """The ids of all; not to be changed."""
        return self._live

    def about(self, subject: Subject) -> set[int]:
        """The ids of the edits that name `subject`; of those that name none for ()."""
        return self._of_subject.get(hash(subject)) & self._live

    def stating(self, fact: Fact) -> set[int]:
        """The ids of the edits that settle `fact`."""
        return self._of_fact.get(hash(fact)) & self._live

    def read(self, ids: Sequence[int], epoch: int) -> list[tuple[Edit, str]]:
        """These edits as of `epoch`, each with its method's text. Raises StoreError."""
        missing = [id for id in ids if id not in self._kept]
        if missing:
            texts = {
                id: text
                for stored in self._journal.patches(epoch, missing)
                for id, text in zip(stored.edits, stored.patch.texts, strict=True)
            }
            for edit in self._journal.get_many(missing, epoch):
                self._kept[edit.id] = (edit, texts.get(edit.id, ""))
        found = [self._kept[id] for id in ids]
        for id in ids:
            self._kept.move_to_end(id)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def __contains__(self, subject: Subject) -> bool:
        return bool(self.about(subject))

    def near(self, pairs: Iterable[Subject]) -> set[Subject]:
        """See `Gate.near`."""
        subjects = [hashed for pair in pairs for hashed in self._near.get(hash(pair))]
        carriers = (self._of_subject.get(hashed) & self._live for hashed in subjects)
        ids = [min(some) for some in carriers if some]
        named = [self._kept[id][0].subject for id in ids if id in self._kept]
        if missing := [id for id in ids if id not in self._kept]:
            named += [outline.subject for outline in self._journal.outlines(missing)]
        return {subject_key(subject or "") for subject in named}
