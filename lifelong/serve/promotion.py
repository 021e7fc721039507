"""From one user to all: a correction spreads by agreement, by trust or by a review.

    before ── promote ── after        the same questions of those who get it, asked twice
                │           └── breach: something old is lost, changed, or meant by mistake
                └────────────────────  then the edit is its author's again

The journal keeps who let it, and what the canary said.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

from lifelong.errors import LifelongError
from lifelong.match import same, says
from lifelong.monitor import Budget, answers
from lifelong.ordinary import ORDINARY
from lifelong.runtime import EditableModel
from lifelong.serve.metrics import Metrics
from lifelong.serve.settings import Settings
from lifelong.subject import normalise
from lifelong.view import View
from store import Edit, Reach, StoreError

_SECONDS = 20.0  # that one reading may take

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Canary:
    """What a few old edits, and what must not change, are answered with."""

    right: Mapping[int, bool]
    kept: Mapping[str, str]
    stray: frozenset[str]  # ordinary sentences that the edit in question would answer

    def breach(self, after: "Canary") -> str | None:
        """What is worse afterwards, if anything."""
        lost = [id for id, right in self.right.items() if right and not after.right.get(id, True)]
        changed = [q for q, text in self.kept.items() if not same(text, after.kept.get(q, text))]
        if lost:
            return f"edits {lost} are no longer answered rightly"
        if changed:
            return f"the answer to {changed[0]!r} changed"
        if stray := sorted(after.stray - self.stray):
            return f"it fires on {stray[0]!r}"
        return None

    def __str__(self) -> str:
        return f"{sum(self.right.values())} of {len(self.right)} right, {len(self.stray)} stray"


@dataclass(frozen=True)
class Outcome:
    """What became of a promotion: the edit, the readings, and why it was taken back, if it was."""

    edit: Edit
    before: Canary
    after: Canary
    breach: str | None


class Promotion:
    """Widens edits, one at a time; by itself in a thread of its own, which `close` ends."""

    def __init__(self, model: EditableModel, settings: Settings, metrics: Metrics) -> None:
        self._model = model
        self._settings = settings
        self._metrics = metrics
        self._one = Lock()
        self._thread = ThreadPoolExecutor(1, "lifelong promotion")

    def close(self) -> None:
        """Finish the promotion that is under way, and start no other."""
        self._thread.shutdown(cancel_futures=True)

    def consider(self, edit: Edit, *, trusted: bool) -> None:
        """Promote a new correction soon, if its author is trusted or enough others say the same."""
        self._thread.submit(self._consider, edit, trusted)

    def widen(self, edit: Edit, reach: Reach, reason: str) -> Outcome:
        """Let `edit` reach further, and no longer if that breaks something.

        Raises UnknownEdit, WrongStatus, StoreError.
        """
        with self._one:
            asked = self._asked(edit, reach)
            before = self._read(edit, reach, asked)
            if edit.status == "pending":
                self._model.approve(edit.id, reason=reason)
            wide = self._model.promote(edit.id, reach, reason=f"{reason} (before: {before})")
            after = self._read(edit, reach, asked)
            breach = before.breach(after)
            if breach:
                wide = self._model.promote(edit.id, "author", reason=f"canary: {breach}")
                _log.warning("Edit %d is its author's again: %s", edit.id, breach)
        self._metrics.promotions.labels("rolled back" if breach else "kept").inc()
        return Outcome(wide, before, after, breach)

    def _consider(self, edit: Edit, trusted: bool) -> None:
        try:
            agreed = [edit] if trusted else self._agreed(edit)
            if agreed:
                why = "by a trusted role" if trusted else f"by {len(agreed)} users"
                self.widen(agreed[0], wider(edit), why)
        except (LifelongError, StoreError) as exc:
            _log.warning("Edit %d was not promoted: %s", edit.id, exc)
        except Exception:
            _log.exception("Edit %d could not be promoted.", edit.id)
            raise

    def _agreed(self, edit: Edit) -> list[Edit]:
        """The live edits of different users that say the same, if they are enough."""
        by_user: dict[str, Edit] = {
            other.user_id: other
            for other in reversed(self._model.agreeing(edit.id))
            if other.user_id is not None and normalise(other.target) == normalise(edit.target)
        }
        enough = len(by_user) >= self._settings.quorum
        return sorted(by_user.values(), key=lambda e: e.id) if enough else []

    def _asked(self, edit: Edit, reach: Reach) -> list[Edit]:
        """A few of the edits that those who get it have already, evenly by age."""
        live = self._model.sample(self._settings.canary_edits, tenant=_tenant(edit, reach))
        return [other for other in live if other.id != edit.id]

    def _read(self, edit: Edit, reach: Reach, asked: Sequence[Edit]) -> Canary:
        view = self._model.view(tenant=_tenant(edit, reach))
        now = self._model.journal.get_many(other.id for other in asked)
        live = {other.id for other in now if other.status == "live"}
        kept = [probe for e in (edit, *asked) for probe in e.locality]
        replies = _replies(view, [*(e.prompt for e in asked), *kept])
        right = {
            e.id: says(replies[e.prompt], e.target, e.old)
            for e in asked
            if e.id in live and e.prompt in replies  # what the edit replaces is not lost
        }
        routes = zip(ORDINARY, view.routes(ORDINARY), strict=True)
        stray = frozenset(s for s, route in routes if any(hit.id == edit.id for hit in route.hits))
        return Canary(right, {q: replies[q] for q in kept if q in replies}, stray)


def wider(edit: Edit) -> Reach:
    """How far an edit may spread by itself: within its tenant, or to everyone if there is none."""
    return "tenant" if edit.tenant is not None else "everyone"


def _tenant(edit: Edit, reach: Reach) -> str | None:
    return None if reach == "everyone" else edit.tenant


def _replies(view: View, questions: Sequence[str]) -> dict[str, str]:
    return {q: answer.text for q, answer in answers(view, questions, Budget(_SECONDS))}
