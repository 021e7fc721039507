"""What the routes call: each verb for one caller, who sees and changes only what is his to.

Everything here blocks and may be called from many threads.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from threading import Lock, Thread
from time import perf_counter
from typing import Any

from lifelong.alarms import alarms_of
from lifelong.batching import Listener, Sampling, Ticket
from lifelong.lm import control_tokens
from lifelong.prompt import Prompt
from lifelong.runtime import EditableModel
from lifelong.serve.keys import Caller, Role
from lifelong.serve.limits import Allowance
from lifelong.serve.metrics import Metrics
from lifelong.serve.problems import Problem
from lifelong.serve.promotion import Outcome, Promotion, wider
from lifelong.serve.settings import Settings
from lifelong.serve.trend import Trend
from lifelong.view import View
from store import Edit, Event, Reach, Reading, Status, UnknownEdit

_VIEWS = 8  # of past epochs that are kept
_DAY = 86_400.0
_PAGE = 200  # edits that are read at a time

_log = logging.getLogger(__name__)


class Service:
    """The model, once it is loaded, and all that is done with it."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.trend = Trend()
        self._model: EditableModel | None = None
        self._failed = False
        self._past: dict[tuple[Any, ...], View] = {}
        self._lock = Lock()
        users = settings.users_a_key
        self._a_minute = Allowance(settings.corrections_a_minute, 60, users)
        self._a_day = Allowance(settings.corrections_a_day, _DAY, users)

    # -- life ------------------------------------------------------------------------------------

    def load(self, open_model: Callable[[], EditableModel]) -> Thread:
        """Load the model in a thread; until it is there every verb raises Problem (503)."""
        thread = Thread(target=self._load, args=(open_model,), name="lifelong loading")
        thread.start()
        return thread

    def close(self) -> None:
        """Let the replies that are being made end, up to a limit, then close the model."""
        if self._model is not None:
            if not self._batching.drain(self.settings.drain_seconds):
                _log.warning("Replies were cut off.")
            self._promotion.close()
            self._batching.close()
            EditableModel.close(self._model)
            self._model = None

    @property
    def loaded(self) -> bool:
        """Whether the model is there."""
        return self._model is not None

    @property
    def model(self) -> EditableModel:
        """The model. Raises Problem while there is none."""
        if self._model is None:
            why = "cannot be used: the log says why" if self._failed else "is being loaded"
            raise Problem(503, f"The model {why}.", code="model_not_ready")
        return self._model

    def ready(self) -> dict[str, Any]:
        """The epoch of journal and index. Raises Problem where either cannot be used."""
        model, began = self.model, perf_counter()
        with model.journal.together():  # a commit, as a correction needs one
            pass
        self.metrics.commit_seconds.observe(perf_counter() - began)
        journal, index = model.epoch, model.explain("").epoch
        if index < journal:
            raise Problem(503, f"The index is at epoch {index}, the journal at {journal}.")
        return {"status": "ready", "epoch": journal}

    def _load(self, open_model: Callable[[], EditableModel]) -> None:
        try:
            model = open_model()
        except Exception:  # noqa: BLE001  whatever it is, the server stays up to say so
            _log.exception("The model cannot be used.")
            self._failed = True
            return
        self._batching = model.batching(self.settings.rows)
        self._promotion = Promotion(model, self.settings, self.metrics)
        self._control_tokens = control_tokens(model.tokenizer)
        self._model = model

    # -- answering -------------------------------------------------------------------------------

    def view(self, model_id: str, caller: Caller) -> View:
        """What answers as `<id>`, `<id>:base` or `<id>@<epoch>`. Raises Problem (404)."""
        own, model = self.settings.model_id, self.model
        name, at, epoch = model_id.rpartition("@") if "@" in model_id else (model_id, "", "")
        if name == f"{own}:base" and not at:
            return model.view(edits=False)
        if name == own and not at:
            return model.view(**caller.asker)
        if name == own and epoch.isascii() and epoch.isdecimal() and len(epoch) < 16:
            if int(epoch) <= model.epoch:
                return self._at(int(epoch), caller)
        raise Problem(
            404,
            f"There is no model {model_id!r}: ask for {own}, {own}:base or {own}@0 to "
            f"{own}@{model.epoch}.",
            code="model_not_found",
            param="model",
        )

    def prompt(self, view: View, messages: Sequence[Mapping[str, str]]) -> Prompt:
        """A conversation as a prompt. Raises Problem, NoChatTemplate, MessagesRefused."""
        self.check_text(*(message["content"] for message in messages))
        return view.prompt(messages)

    def check_text(self, *texts: str) -> None:
        """Refuse tokens that steer the chat template: they would open turns of their own."""
        for token in self._control_tokens:
            if any(token in text for text in texts):
                raise Problem(400, f"The text holds {token!r}: leave it out.", code="control_token")

    def ask(self, view: View, prompt: Prompt, sampling: Sampling, listener: Listener) -> Ticket:
        """A reply, told to `listener`. Raises Busy, PromptTooLong."""
        began = perf_counter()
        ticket = self._batching.ask(view, prompt, sampling, listener)
        self.metrics.lookup_seconds.observe(perf_counter() - began)
        self.metrics.prompt_tokens.inc(ticket.prompt_tokens)
        if ticket.route.hits:
            self.metrics.edit_hits.inc()
        return ticket

    def _at(self, epoch: int, caller: Caller) -> View:
        key = (epoch, self.model.epoch, caller.user, caller.tenant)  # what is erased now, is gone
        with self._lock:
            if key not in self._past:
                if len(self._past) >= _VIEWS:
                    del self._past[next(iter(self._past))]
                self._past[key] = self.model.at(epoch, **caller.asker)
            return self._past[key]

    # -- correcting ------------------------------------------------------------------------------

    def correct(
        self,
        caller: Caller,
        said: Mapping[str, Any],
        *,
        source: str,
        key: str | None = None,
        trace: Mapping[str, Any] | None = None,
    ) -> Edit:
        """A correction, live for its author when this returns, unless it has to wait.

        Raises Problem, EditRefused, StoreError.
        """
        began = perf_counter()
        need(caller, "correct")
        self._within_quota(caller)
        asked = filter(None, (said["prompt"], said.get("subject"), said.get("relation")))
        doubt = self.settings.moderate(" ".join(asked), said["target"])
        provenance = {"source": source, "key": caller.key, **_given(trace or {})}
        if doubt:
            provenance["doubt"] = doubt
        edit: Edit = self.model.edit(
            **said,
            **caller.asker,
            provenance=provenance,
            key=_key(caller, key),
            pending=doubt is not None,
        )
        self.metrics.apply_seconds.observe(perf_counter() - began)
        self._count(edit, source)
        if edit.status == "live":
            trusted = self.settings.trusted
            self._promotion.consider(edit, trusted=trusted is not None and caller.may(trusted))
        return edit

    def complain(
        self,
        caller: Caller,
        question: str,
        answer: str,
        *,
        key: str | None,
        trace: Mapping[str, Any],
    ) -> Edit:
        """An answer is wrong, and nobody says what is right. Raises as `correct` does."""
        need(caller, "correct")
        self._within_quota(caller)
        provenance = {"source": "feedback", "key": caller.key, **_given(trace)}
        edit = self.model.wrong(
            question, answer, provenance=provenance, key=_key(caller, key), **caller.asker
        )
        self._count(edit, "feedback")
        return edit

    def change(self, caller: Caller, id: int, target: str) -> Edit:
        """Another answer to the question of an edit, which it replaces where it may."""
        old = self.kept(caller, id)
        said = {"prompt": old.prompt, "target": target, "subject": old.subject,
                "relation": old.relation, "paraphrases": old.paraphrases,
                "locality": old.locality}  # fmt: skip
        return self.correct(caller, said, source="api", trace={"instead_of": id})

    def undo(self, caller: Caller, id: int, reason: str = "") -> Edit:
        """Take an edit back."""
        self.kept(caller, id)
        return self.model.undo(id, reason=_by(caller, reason))

    def redo(self, caller: Caller, id: int, reason: str = "") -> Edit:
        """Bring it back."""
        edit = self.kept(caller, id)
        if "doubt" in edit.provenance:
            need(caller, "review")
        return self.model.redo(id, reason=_by(caller, reason))

    def erase(self, caller: Caller, id: int, reason: str = "") -> list[Edit]:
        """Wipe what an edit says for good, and all that follows from it."""
        need(caller, "admin")
        self.kept(caller, id)
        return self.model.erase([id], reason=_by(caller, reason))

    def reject(self, caller: Caller, id: int, reason: str = "") -> Edit:
        """What waits shall not go live."""
        need(caller, "review")
        self.kept(caller, id)
        return self.model.reject(id, reason=_by(caller, reason))

    def approve(
        self,
        caller: Caller,
        id: int,
        *,
        target: str | None = None,
        reach: Reach | None = None,
        reason: str = "",
    ) -> Outcome:
        """A reviewer lets an edit go live, or reach further, under the eyes of the canary."""
        need(caller, "review")
        edit, why = self.kept(caller, id), _by(caller, reason)
        if edit.status == "proposed":
            edit = self.model.approve(id, target, reason=why)
        elif target is not None:
            raise Problem(400, f"Edit {id} has a target.", param="target")
        to: Reach = reach or wider(edit)
        if to == "everyone" and caller.tenant is not None:
            raise Problem(403, "A tenant's reviewer cannot speak for everyone.", code="reach")
        return self._promotion.widen(edit, to, why)

    # -- looking ---------------------------------------------------------------------------------

    def get(self, caller: Caller, id: int) -> Edit:
        """An edit that he may know of; of others he is told that they do not exist."""
        edit = self.model.get(id)
        if not caller.sees(edit):
            raise UnknownEdit(f"There is no edit {id}")
        return edit

    def kept(self, caller: Caller, id: int) -> Edit:
        """An edit whose fate is his to decide. Raises UnknownEdit, Problem (403)."""
        edit = self.get(caller, id)
        if not caller.keeps(edit):
            raise Problem(403, f"What becomes of edit {id} is not yours to say.", code="not_yours")
        return edit

    def edits(
        self,
        caller: Caller,
        *,
        limit: int,
        before: int | None = None,
        status: Status | None = None,
        words: str = "",
        private: bool = False,
    ) -> list[Edit]:
        """At most `limit` of the edits he may know of, from below id `before`, the newest first.

        With `private`, of those that are one user's.
        """
        wanted = words.casefold().split()
        found = (
            edit
            for edit in self._newest(before, status)
            if caller.sees(edit)
            and (edit.user_id is not None or not private)
            and all(word in f"{edit.prompt} {edit.target}".casefold() for word in wanted)
        )
        return list(islice(found, limit))

    def _newest(self, before: int | None, status: Status | None) -> Iterator[Edit]:
        """In steps, so that no chat waits for all of them to be read."""
        while page := self.model.journal.newest(_PAGE, before=before, status=status):
            yield from page
            before = page[-1].id

    def waiting(self, caller: Caller) -> list[Edit]:
        """What waits for his decision, the oldest first."""
        need(caller, "review")
        return self.model.review(tenant=caller.tenant)

    def history(self, caller: Caller, id: int) -> list[Event]:
        """What happened to an edit."""
        self.get(caller, id)
        return self.model.history(id)

    def readings(self, caller: Caller) -> list[Reading]:
        """Every reading: figures of all edits, so for reviewers."""
        need(caller, "review")
        return self.model.readings()

    def refresh_metrics(self) -> None:
        """Bring what is a state, not a count, up to date."""
        if self._model is None:
            return
        metrics, model = self.metrics, self._model
        epoch = model.epoch
        metrics.epoch.set(epoch)
        metrics.index_lag.set(epoch - model.explain("").epoch)
        metrics.edits_active.set(model.journal.counts().get("live", 0))
        metrics.running.set(self._batching.running)
        metrics.waiting.set(self._batching.waiting)
        if readings := model.readings():
            metrics.alarms.set(len(alarms_of(readings[-1])))
            for (name, age), share in shares(readings[-1]).items():
                metrics.retention.labels(name, age).set(share)

    def _within_quota(self, caller: Caller) -> None:
        for allowance in (self._a_minute, self._a_day):
            if wait := allowance.take(caller):
                raise Problem(429, "Too many corrections.", code="quota", retry_after=wait)

    def _count(self, edit: Edit, source: str) -> None:
        self.metrics.corrections.labels(edit.status, source).inc()


def need(caller: Caller, role: Role) -> None:
    """Refuse who may not do what `role` may. Raises Problem (403)."""
    if not caller.may(role):
        raise Problem(403, f"This needs the role {role}; yours is {caller.role}.", code="role")


def shares(reading: Reading) -> dict[tuple[str, str], float]:
    """(measure, group of age) -> share; the group is "all", or 0 for the oldest tenth."""
    found: dict[tuple[str, str], float] = {}
    for name in ("accuracy", "generality", "locality"):
        if isinstance(value := reading.body.get(name), float):
            found[name, "all"] = value
    ages = reading.body.get("accuracy_by_age")
    for group, value in enumerate(ages if isinstance(ages, list) else []):
        if isinstance(value, float):
            found["accuracy", str(group)] = value
    return found


def shown(edit: Edit, caller: Caller) -> dict[str, Any]:
    """An edit as `caller` may see it: who said so is for its author and its reviewers."""
    reach = "author" if edit.user_id else "tenant" if edit.tenant else "everyone"
    public = ("id", "epoch", "status", "prompt", "target", "subject", "relation", "valid_until")
    told = {name: getattr(edit, name) for name in public} | {"reach": reach}
    if caller.keeps(edit):
        said = asdict(edit)
        private = ("old", "paraphrases", "locality", "method", "user_id", "tenant")
        told |= {name: said[name] for name in private} | {"provenance": dict(edit.provenance)}
    return told


def _key(caller: Caller, given: str | None) -> str | None:
    """An idempotency key of this caller: nobody meets another's."""
    if given is None:
        return None
    parts = "\x1f".join((caller.tenant or "", caller.user, given))
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


def _by(caller: Caller, reason: str) -> str:
    """Who took a step: his key, as a name would stay in the journal for ever."""
    return f"{caller.role} key {caller.key}" + (f": {reason}" if reason else "")


def _given(trace: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in trace.items() if value is not None}
