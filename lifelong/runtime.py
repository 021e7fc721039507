"""EditableModel: a Hugging Face causal LM that takes corrections.

    edit   Edit -> policy.admit -> method.propose -> journal.record -> router, weights
    ask    prompt -> router.route -> method.condition -> generate -> Answer
    truth  the journal; everything else here is a view of it

An EditableModel *is* the model it was made from: `EditableModel(model, tokenizer)` gives that
object a class with these verbs before its own, so `isinstance`, `forward`, state-dict keys,
pipelines and streamers are the model's own. `close()` gives the old class back.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args, overload

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lifelong import conflicts, policy
from lifelong.asking import asking, remembered
from lifelong.batching import Batching
from lifelong.compaction import Compactor, Consolidating
from lifelong.conflicts import Conflict
from lifelong.consolidate import (
    METHOD,
    Consolidation,
    Examination,
    Figures,
    Gate,
    Policy,
    named,
)
from lifelong.encoder import Encoder
from lifelong.errors import BadEdit, BadSetting, LifelongError, NotAModel, TooWide
from lifelong.export import FORMATS, adapter
from lifelong.extract import PLAIN, Extractor
from lifelong.facts import FactBase
from lifelong.generate import Generate, Output, check_cache
from lifelong.hops import Hops
from lifelong.match import matching
from lifelong.mello import Mello
from lifelong.methods import METHODS, Method, WeightMethod
from lifelong.models import load_model
from lifelong.monitor import SAMPLE, Monitor
from lifelong.prompt import Prompt
from lifelong.rebase import Moved, move
from lifelong.ripple import Ripple, Rippling
from lifelong.ripple import ripple as rippling
from lifelong.router import EVERYONE, Route, Router
from lifelong.saved import save, settings_of
from lifelong.session import OnConflict, Session, patches_of
from lifelong.standing import holding, waiting, wipe
from lifelong.view import MAX_NEW_TOKENS, Answer, Messages, Stream, View, never
from lifelong.watch import Check, Monitoring, Watch
from lifelong.weights import BASE, Key, State
from store import (
    Audience,
    Edit,
    Event,
    Journal,
    Reach,
    Reading,
    Reference,
    Status,
    StoredPatch,
)

if TYPE_CHECKING:
    _Model = PreTrainedModel
else:
    _Model = object  # the real one is mixed in per model class, see `_editable`

Ids = list[int]
Edits = list[Edit]  # inside the class, `list` is a verb
Events = list[Event]
Readings = list[Reading]
Routes = list[Route]
Conflicts = list[Conflict]
References = list[Reference]

Multihop = Literal["hops", "mello"]

DEFAULT_STORE = "lifelong.db"
UNWATCHED = Monitoring()
GATE = Gate()
POLICY = Policy()
UNASKED = Consolidating()

_FOLLOWS: Mapping[Multihop, type[Hops | Mello]] = {"hops": Hops, "mello": Mello}

_log = logging.getLogger(__name__)
_off: ContextVar[frozenset[int]] = ContextVar("ids of models without edits", default=frozenset())


class EditableModel(_Model):
    """A causal LM whose users correct it. Made around a model, or by `from_pretrained`.

    Args:
        model: a transformers causal LM on any device, in any dtype; it becomes this object.
        tokenizer: its tokenizer.
        store: the SQLite file of the edits, made where it does not exist; ":memory:" for none.
        encoder: a name, hub id or folder of a sentence encoder, or an `Encoder`.
        method: how edits are made unless `edit` is told otherwise.
        methods: the table of methods, where one is to have other options than usual.
        multihop: whether questions that follow from several edits are answered, too: by `hops`
            (True) or, to compare with, by `mello`.
        monitor: when readings are taken unasked, what is alarming, what is done then.
        consolidating: when settled edits go into the weights unasked, and which.

    Raises StoreError (WrongBase where the store was made for another model), ModelError, BadEdit,
    PackageMissing.
    """

    def __new__(cls, model: PreTrainedModel, *args: Any, **kwargs: Any) -> Self:
        """The model itself, with these verbs before its own."""
        signature(cls.__init__).bind(None, model, *args, **kwargs)  # a TypeError leaves it as it is
        if not isinstance(model, PreTrainedModel) or isinstance(model, EditableModel):
            raise NotAModel(
                f"A {type(model).__name__} cannot be wrapped.",
                "Give a transformers causal LM, or a name to `EditableModel.from_pretrained`.",
            )
        model.__class__ = _editable(cls, type(model))
        return cast("Self", model)

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        store: str | Path = DEFAULT_STORE,
        encoder: str | Encoder = "minilm",
        method: str = "serac",
        methods: Mapping[str, Method] = METHODS,
        multihop: bool | Multihop = False,
        monitor: Monitoring = UNWATCHED,
        consolidating: Consolidating = UNASKED,
    ) -> None:
        try:
            self._session = Session.open(model, tokenizer, store, encoder, method, methods)
            self._session.hops = self._following(multihop)
            self._begin_monitoring(monitor)
            self._begin_consolidating(consolidating)
        except BaseException:
            EditableModel.close(self)
            raise

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str,
        *,
        store: str | Path = DEFAULT_STORE,
        encoder: str | Encoder | None = None,
        method: str | None = None,
        methods: Mapping[str, Method] = METHODS,
        multihop: bool | Multihop = False,
        monitor: Monitoring = UNWATCHED,
        consolidating: Consolidating = UNASKED,
        **load: Any,
    ) -> Self:
        """Load a model by name (`smollm2-135m`), hub id or folder, with the edits in `store`.

        From a folder that `save_pretrained` wrote come encoder and method, unless given, and the
        edits: those that are not in `store` yet. `load` goes to `models.load_model` (dtype,
        device). Raises ModelError, StoreError, BadEdit.
        """
        saved = settings_of(Path(name))
        model, tokenizer = load_model(name, **load)
        given = {"encoder": encoder, "method": method}
        made = cls(
            model,
            tokenizer,
            store=store,
            methods=methods,
            multihop=multihop,
            monitor=monitor,
            consolidating=consolidating,
            **{**(saved or {}), **{k: v for k, v in given.items() if v is not None}},
        )
        if saved is not None:
            try:
                made._session.journal.import_(name)
                made._session.sync()
            except BaseException:
                EditableModel.close(made)
                raise
        return made

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, **kwargs: Any
    ) -> None:
        """Model, tokenizer, edits and settings in one folder, for `from_pretrained`.

        `kwargs` go to transformers' `save_pretrained`. Raises StoreError.
        """
        s, folder = self._session, Path(save_directory)
        with s.weights.held(BASE):  # the edits are beside it
            super().save_pretrained(folder, **kwargs)
        s.lm.tokenizer.save_pretrained(folder)
        settings = {"method": s.method} | ({"encoder": s.encoder_name} if s.encoder_name else {})
        save(folder, s.journal, settings)

    def export(self, folder: str | Path, format: str = "safetensors") -> Ids:
        """What is in the weights, for use without `lifelong`; the ids of the edits that are in it.

        A plain checkpoint (`safetensors`), or an adapter for the base model (`peft-lora`). Raises
        BadSetting, NothingToExport.
        """
        s, target = self._session, Path(folder)
        if format not in FORMATS:
            raise BadSetting(f"There is no format {format!r}.", f"Take {' or '.join(FORMATS)}.")
        with s.lock:
            s.catch_up()
            inside, stored = s.router.in_weights, s.deltas()
            state = s.weights.resting
        if format == "peft-lora":
            adapter(s.lm, stored, target)
        else:
            with s.weights.held(state):
                super().save_pretrained(target)
            s.lm.tokenizer.save_pretrained(target)
        return inside

    def close(self) -> None:
        """Stop what runs by itself, close the store; the object is the bare model again.

        Twice is fine.
        """
        if isinstance(self, EditableModel):
            if session := self.__dict__.get("_session"):
                session.close()
            self._revert()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        EditableModel.close(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> PreTrainedModel:
        """A copy of the bare model: a store has one owner."""
        base = _base_of(type(self))
        copy: PreTrainedModel = base.__new__(base)
        memo[id(self)] = copy
        state = {k: v for k, v in self.__dict__.items() if k != "_session"}
        with self._session.weights.held(BASE):
            copy.__dict__ = deepcopy(state, memo)
        return copy

    # -- correcting ------------------------------------------------------------------------------

    @overload
    def edit(
        self, prompt: str, target: str | None = ..., *, ripple: Literal["report"], **said: Any
    ) -> Ripple: ...

    @overload
    def edit(
        self,
        prompt: str,
        target: str | None = ...,
        *,
        ripple: Literal["apply"] | None = ...,
        **said: Any,
    ) -> Edit: ...

    def edit(  # type: ignore[misc]  # the overloads leave out what `said` may be
        self,
        prompt: str,
        target: str | None = None,
        *,
        extractor: Extractor = PLAIN,
        subject: str | None = None,
        relation: str | None = None,
        old: str | None = None,
        paraphrases: Sequence[str] = (),
        locality: Sequence[str] = (),
        method: str | None = None,
        provenance: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        tenant: str | None = None,
        key: str | None = None,
        valid_until: str | None = None,
        on_conflict: OnConflict = "supersede",
        pending: bool = False,
        ripple: Rippling | None = None,
    ) -> Edit | Ripple:
        """From now on, asked `prompt` in any words, the model says `target`.

        Without a target `prompt` states it ("Actually, the CEO of Acme is Jane Roe since May", or
        a rule: "If ..., then ..."), and `extractor` says what is corrected; the statement is kept
        in the edit's provenance.

        The edit is on disk and live when this returns: for one user, for a tenant, or for everyone
        who asks. It replaces a live edit for the same people of the same prompt, or of the same
        subject and relation. `subject` is guessed from the prompt if not given. `paraphrases` and
        `locality` (prompts that must not change) are what `check` asks; they are never learnt from.
        `old` is what was wrong. A request that comes again with the same `key` records nothing
        again. After `valid_until` (ISO 8601 with offset) the edit is live no more. Where it has
        `conflicts`, `on_conflict` says whether it is refused or waits for `approve`; with
        `pending` it waits in any case. With `ripple="report"` nothing is written: what would follow
        is returned, and what that contradicts. With `"apply"` what follows for certain is written
        in the same transaction; `undo` of the edit takes it along.

        Raises BadEdit, TextTooLong, AlreadyTaught, Conflicting, StoreError; then nothing was
        written.
        """
        if target is None:
            provenance = {"statement": prompt, **(provenance or {})}
            fact = extractor.extract(prompt)
            prompt, target, subject = fact.prompt, fact.target, subject or fact.subject
            method = method or fact.method
        edit = policy.new_edit(
            prompt=prompt,
            target=target,
            subject=subject,
            relation=relation,
            old=old,
            paraphrases=paraphrases,
            locality=locality,
            provenance=provenance or {},
            user_id=user_id,
            tenant=tenant,
            key=key,
            valid_until=valid_until,
        )
        records = [edit]
        if ripple is not None:
            told = self._ripple(edit, method, ripple)
            if ripple == "report":
                return told
            before = self._session.journal.recorded_before([told.edit])
            records = [told.edit] if before else [told.edit, *told.certain]
        return self.edit_many(records, method=method, on_conflict=on_conflict, pending=pending)[0]

    def edit_many(
        self,
        records: Sequence[Edit | Mapping[str, Any]],
        *,
        method: str | None = None,
        user_id: str | None = None,
        tenant: str | None = None,
        on_conflict: OnConflict = "supersede",
        pending: bool = False,
    ) -> Edits:
        """Many edits as one: one patch, one transaction, all or nothing. Raises as `edit` does.

        A record is an `Edit`, or a mapping with the fields of our JSONL (`policy.edit_of`). They
        are for the audience given here or, without, each for its own. Where one has conflicts and
        `on_conflict` is `review`, all of them wait.
        """
        s = self._session
        admitted = [
            policy.admit(s.lm, s.edit_of(record, method, Audience(user_id, tenant)))
            for record in records
        ]
        if not admitted:
            return []
        how = s.methods[admitted[0].method]
        patch, vectors = s.made(how, admitted), s.router.encode(admitted)
        with s.changing():
            if before := s.journal.recorded_before(admitted):
                return before
            supersedes = s.superseded(admitted)
            waits = pending or s.must_wait(admitted, vectors, on_conflict)
            recorded = s.journal.record(
                admitted,
                patch,
                vectors,
                supersedes={} if waits else supersedes,
                status="pending" if waits else "live",
            )
        if s.watch:
            s.watch.count(len(recorded))
        return recorded

    def conflicts(self, edit: Edit | int) -> Conflicts:
        """What an edit, recorded or not, is at odds with among what is live for its audience.

        Raises BadEdit, TextTooLong, UnknownEdit.
        """
        s = self._session
        if isinstance(edit, int):
            asked = s.journal.get(edit)
        else:
            asked = policy.admit(s.lm, replace(edit, method=s.method))
        (vector,) = s.router.encode([asked])
        with s.lock:
            s.catch_up()
            return conflicts.find(s.router, asked, vector)

    def wrong(
        self,
        question: str,
        answer: str,
        *,
        provenance: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        tenant: str | None = None,
        key: str | None = None,
    ) -> Edit:
        """`answer` is wrong, and nobody said what is right: it changes nothing, and waits.

        `approve` with the right answer makes an edit of it. Raises BadEdit, TextTooLong,
        StoreError.
        """
        s = self._session
        said = Edit(
            question,
            "",
            old=answer,
            method=s.method,
            provenance=provenance or {},
            user_id=user_id,
            tenant=tenant,
            key=key,
        )
        with s.changing():
            (edit,) = s.journal.record([policy.complaint(s.lm, said)], None, status="proposed")
        return edit

    def approve(self, id: int, target: str | None = None, *, reason: str = "") -> Edit:
        """An edit that waits goes live; a complaint does by the right answer, as a new edit.

        Raises UnknownEdit, NotWaiting, BadEdit, StoreError, and for a complaint as `edit` does.
        """
        waiting = self.get(id)
        if waiting.status != "proposed":
            if target is not None:
                raise BadEdit(f"Edit {id} has a target.", "Reject it, and make another edit.")
            return self._session.step(id, lambda journal: journal.approve(id, reason=reason))
        if target is None:
            raise BadEdit(f"Edit {id} is a complaint.", "Give the right answer as `target`.")
        (made,) = self.edit_many([replace(waiting, target=target, key=None)])
        self.reject(id, reason=f"answered by edit {made.id}")
        return made

    def reject(self, id: int, *, reason: str = "") -> Edit:
        """An edit that waits shall not go live. Raises UnknownEdit, NotWaiting, StoreError."""
        return self._session.step(id, lambda journal: journal.reject(id, reason=reason))

    def promote(self, id: int, reach: Reach, *, reason: str = "") -> Edit:
        """The edit is for its author only, for his tenant, or for everyone.

        It replaces what is live there of the same fact. Raises UnknownEdit, WrongStatus, TooWide,
        StoreError.
        """
        if reach not in get_args(Reach):
            raise BadEdit(f"There is no reach {reach!r}.", f"Take {', '.join(get_args(Reach))}.")
        if reach != "everyone" and id in self._session.router.in_weights:
            raise TooWide(f"Edit {id} is in the weights, for everyone.", "Release it first.")
        return self._session.step(id, lambda journal: journal.promote(id, reach, reason=reason))

    def consolidate(
        self,
        which: Iterable[int] | Policy = POLICY,
        *,
        method: str = METHOD,
        gate: Gate | None = GATE,
    ) -> Consolidation:
        """Memory edits become one change of the weights, if what it does is within `gate`.

        The edits of these ids, or those that a policy chooses. They are answered by the weights
        from then on, and named as before; `undo` solves the others of their batch anew.
        Outside the gate, or if they changed meanwhile, everything is as it was. Without a gate
        nothing is asked. Raises BadEdit, TooWide, EditRefused, StoreError.
        """
        s, began = self._session, perf_counter()
        how = s.methods.get(method)
        if not isinstance(how, WeightMethod):
            raise BadEdit(f"{method!r} does not write into weights.", f"Take {METHOD}.")
        with s.lock:
            s.catch_up()
            memory, live, base = s.memory(), s.journal.live(), s.weights.resting
            inside = set(s.router.in_weights)
        edits = which.choose(memory, s.used) if isinstance(which, Policy) else named(memory, which)
        if not edits:
            return Consolidation(method, (), {}, ("no edit may go",), perf_counter() - began)
        patch, chosen = s.written_by(how, edits, new=False), tuple(edit.id for edit in edits)
        trial = StoredPatch(0, patch, chosen, frozenset(chosen), tuple(range(len(chosen))))
        after = s.weights.state([*s.deltas(), trial], base)
        exam = Examination(s.lm, edits, [edit for edit in live if edit.id in inside])
        measured = exam.compare(*map(partial(self._take, exam), (base, after))) if gate else {}
        misses = gate.misses(measured) if gate else ()
        with s.changing():
            still = set(s.journal.live_ids()) - set(s.router.in_weights)
            if s.weights.resting.key != base.key or not still.issuperset(chosen):
                misses += ("the edits changed meanwhile",)
            if not misses:
                s.journal.carry(chosen, patch, reason=f"consolidated: {method}")
        return Consolidation(method, chosen, measured, misses, perf_counter() - began)

    def release(self, ids: Iterable[int]) -> Edits:
        """Consolidated edits are answered from memory again; the weights are as without them.

        Raises UnknownEdit, BadEdit, StoreError.
        """
        s = self._session
        with s.changing():
            edits, inside = [self.get(id) for id in ids], s.router.in_weights
            for edit in edits:
                how = s.methods[edit.method]
                if isinstance(how, WeightMethod) or edit.id not in inside:
                    raise BadEdit(
                        f"Edit {edit.id} was not consolidated, or is not live.",
                        "Name edits of a memory method that are in the weights.",
                    )
                s.journal.carry([edit.id], s.made(how, [edit]), reason="released")
        return s.journal.get_many(edit.id for edit in edits)

    def adopt(self, store: str | Path, *, gate: Gate | None = GATE) -> Moved:
        """Take over the edits of another store, whatever model and encoder it was made for.

        What was in the weights there is remembered, and goes into these within `gate`; what acts in
        the model is made anew; the old store is left as it is. Raises StoreError.
        """
        s = self._session
        with s.weights.held(BASE), s.lock, Journal.read(store) as old:
            added, deltas = move(old, s.journal, s.lm, s.router.encode, s.methods)
            s.noticed()
        batches, refused = list[Consolidation](), list[str]()
        for method, ids in deltas:
            try:
                batches += [self.consolidate(ids, method=method, gate=gate)] if ids else []
            except LifelongError as exc:
                refused.append(f"{method} of edits {ids}: {exc}")
        return Moved(tuple(added), tuple(batches), tuple(refused))

    def add_facts(self, facts: Iterable[Reference]) -> References:
        """Keep facts for reference: what follows from an edit may pass through them.

        They are no edits and answer nothing by themselves. Those that were new, with ids.
        """
        s = self._session
        with s.lock:
            added = s.journal.add_facts(facts)
            s.noticed()
        return added

    def drop_facts(self, ids: Iterable[int] | None = None) -> int:
        """Keep these facts no longer (None: none of them); how many went."""
        s = self._session
        with s.lock:
            dropped = s.journal.drop_facts(ids)
            s.noticed()
        return dropped

    def facts(self) -> References:
        """The facts for reference, by id."""
        return self._session.journal.facts()

    def undo(self, id: int, *, replay: bool = False, reason: str = "") -> Edit:
        """Retire an edit: every answer is as if it had not been made; what it replaced is back.

        What was written because it follows from the edit goes, too; `redo` brings all of it back.
        What others have in the weights, or beside the model, stays as it is; with `replay` it is
        made again, where it was made while the edit was there, in the same transaction. Raises
        UnknownEdit, AlreadyRetired, StoreError; with `replay` Stale where others wrote meanwhile,
        and EditRefused where an edit is not learnt again; then nothing has happened.
        """
        how = self._session.replay if replay else self._session.retire
        how(id, reason=reason)
        return self.get(id)

    def redo(self, id: int, *, reason: str = "") -> Edit:
        """Bring a retired edit back, in the place of any that states the same fact by now.

        Raises UnknownEdit, NotRetired, StoreError.
        """
        return self._session.step(id, lambda journal: journal.restore(id, reason=reason))

    def erase(self, ids: Iterable[int], *, reason: str = "") -> Edits:
        """Wipe texts and vectors of these edits, and of what follows from them, for good.

        Those that stood are retired; the journal keeps that they were, and why, so keep personal
        data out of `reason`. Backups are the caller's to delete. Raises UnknownEdit, StoreError.
        """
        s = self._session
        which = s.journal.get_many(holding(s.journal, [self.get(id).id for id in ids]))
        with s.lock:
            s.sync()
            erased = wipe(s.journal, s.router.standing, which, reason=reason)
            s.noticed()
        return erased

    def expire(self) -> Edits:
        """End what is past its `valid_until`; asking does so by itself. Raises StoreError."""
        return self._session.settled(lambda journal: journal.expire())

    # -- asking ----------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own `forward`, under one state of the weights from input to output.

        Raises StaleCache where `past_key_values` were made under another.
        """
        weights, cache = self._session.weights, kwargs.get("past_key_values")
        if not weights.holds:  # else it was looked at before
            check_cache(cache, self._session.router.stands)
        with weights.held():
            weights.check_cache(cache)
            out = super().__call__(*args, **kwargs)
            for filled in (cache, getattr(out, "past_key_values", None)):
                weights.stamp(filled)
        return out

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        max_new_tokens: int = ...,
        stream: Literal[False] = ...,
        user_id: str | None = ...,
        tenant: str | None = ...,
        **kw: Any,
    ) -> Answer: ...

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        max_new_tokens: int = ...,
        stream: Literal[True],
        user_id: str | None = ...,
        tenant: str | None = ...,
        **kw: Any,
    ) -> Stream: ...

    def chat(
        self,
        messages: Messages,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        stream: bool = False,
        user_id: str | None = None,
        tenant: str | None = None,
        **generate_kwargs: Any,
    ) -> Answer | Stream:
        """The reply to `messages` (role and content each, or one text of a user).

        Whoever asks gets the edits for him: here as in every verb below, `user_id` of `tenant`.
        With `stream`, an iterator over pieces of it, whose `.answer` is the whole so far.
        Raises NoChatTemplate, MessagesRefused.
        """
        kwargs = {"max_new_tokens": max_new_tokens, **generate_kwargs}
        view = self.view(user_id, tenant)
        return view.stream(messages, **kwargs) if stream else view.chat(messages, **kwargs)

    def complete(
        self,
        text: str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        user_id: str | None = None,
        tenant: str | None = None,
        **generate_kwargs: Any,
    ) -> Answer:
        """The raw continuation of `text`, without a chat template."""
        view = self.view(user_id, tenant)
        return view.complete(text, max_new_tokens=max_new_tokens, **generate_kwargs)

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: Any = None,
        *,
        user_id: str | None = None,
        tenant: str | None = None,
        **kwargs: Any,
    ) -> Output:
        """transformers' `generate`; a prompt in scope of an edit is answered by the edit.

        Prompts are read back from the ids. Where the caller gives embeddings only, nothing can be
        read and the base model answers.
        """
        ids = inputs if inputs is not None else kwargs.pop("input_ids", None)
        if generation_config is not None:
            kwargs["generation_config"] = generation_config
        if ids is None:
            return self._generate(**kwargs)
        view = self.view(user_id, tenant)
        return view.generate(ids, kwargs.pop("attention_mask", None), **kwargs)

    def explain(
        self, prompt: Messages, *, user_id: str | None = None, tenant: str | None = None
    ) -> Route:
        """Which edits shape the answer to `prompt` (`hits`), and which nearly would (`near`)."""
        return self.view(user_id, tenant).explain(prompt)

    def view(
        self, user_id: str | None = None, tenant: str | None = None, *, edits: bool = True
    ) -> View:
        """What answers this asker, whatever the epoch; the base model without `edits`."""
        s, asker = self._session, Audience(user_id, tenant)
        off = not edits or id(self) in _off.get()
        state, refer = BASE if off else None, partial(self._referred, asker=asker)
        route = self._route_nowhere if off else partial(self._asked, asker=asker)
        stand = never if off else s.router.stands
        generate = self._generating(state, chat=True)
        return View(s.lm, generate, route, s.methods, refer, state, stand)

    def batching(self, most: int = 16) -> Batching:
        """Answers up to `most` requests at once, token by token, in a thread; to be closed."""
        s = self._session
        return Batching(s.lm, s.weights, busy=s.turns.chat, most=most)

    @contextmanager
    def disable_edits(self) -> Iterator[Self]:
        """The base model, exactly, for as long as the block runs, in this thread only."""
        token = _off.set(_off.get() | {id(self)})
        try:
            with self._session.weights.held(BASE):
                yield self
        finally:
            _off.reset(token)

    def at(self, epoch: int, *, user_id: str | None = None, tenant: str | None = None) -> View:
        """A read-only view that answers this asker as the model did at `epoch`."""
        return self._then(epoch)(Audience(user_id, tenant))

    def _then(self, epoch: int) -> Callable[[Audience], View]:
        """What answered each asker at `epoch`. Raises BadEdit."""
        s = self._session
        if not 0 <= epoch <= s.journal.epoch:
            raise BadEdit(f"There is no epoch {epoch} yet.", f"Give one of 0 to {s.journal.epoch}.")
        router = Router.build(s.journal, s.encoder, s.scope, at=epoch)
        then = s.weights.state(patches_of(s.journal, router))
        hops = s.hops and type(s.hops)(router, s.encoder, FactBase(s.journal.facts(epoch)))

        def route(questions: Sequence[str], asker: Audience) -> Routes:
            sensed = s.sensed(router.senses, questions)
            if hops is None:
                return router.route(questions, asker, sensed)
            return asking(lambda told: hops.route(questions, asker, told, sensed), self._ask)

        def view(asker: Audience) -> View:
            routed, refer = partial(route, asker=asker), partial(router.referred, asker=asker)
            generate = self._generating(then)
            return View(s.lm, generate, routed, s.methods, refer, then, router.stands)

        return view

    # -- looking ---------------------------------------------------------------------------------

    def get(self, id: int) -> Edit:
        """One edit with its present status, whoever sees it (`edit.audience`). UnknownEdit."""
        return self._session.journal.get(id)

    def history(self, id: int | None = None) -> Events:
        """What happened to one edit, or to all, in order. Raises UnknownEdit."""
        return self._session.journal.history(id)

    def check(self, sample: int = SAMPLE) -> Reading:
        """Re-ask a sample of the live edits and what they must not change; note the reading.

        What is alarming stands in its body under `alarms`, and is told and acted on as the
        model's `monitor` says.
        """
        return self._session.check(sample)

    def readings(self) -> Readings:
        """Every reading taken so far, in order."""
        return self._session.journal.readings()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that prompts are read and written with."""
        return self._session.lm.tokenizer

    @property
    def journal(self) -> Journal:
        """All that was ever said, by whomever: for the keeper of the store, never for users."""
        return self._session.journal

    @property
    def epoch(self) -> int:
        """The journal's last sequence number: what answers are given as of."""
        return self._session.journal.epoch

    @property
    def written(self) -> Key:
        """What the weights have besides the base model's: (patch id, its live positions) each."""
        return self._session.weights.resting.key

    def list(
        self,
        status: Status | None = None,
        *,
        user_id: str | None = None,
        tenant: str | None = None,
    ) -> Edits:
        """Every edit ever acknowledged that this asker may see, or those with this status."""
        s = self._session
        with s.lock:
            s.catch_up()
        return s.journal.edits(status, audience=Audience(user_id, tenant))

    def search(
        self,
        text: str,
        status: Status | None = None,
        *,
        user_id: str | None = None,
        tenant: str | None = None,
    ) -> Edits:
        """Those of `list` that hold every word of `text`."""
        return matching(self.list(status, user_id=user_id, tenant=tenant), text)

    def sample(self, most: int, *, user_id: str | None = None, tenant: str | None = None) -> Edits:
        """At most so many of the live edits that this asker sees, evenly spread by age."""
        s = self._session
        with s.lock:
            s.catch_up()
            ids = s.router.standing.live(Audience(user_id, tenant).levels)
        n = min(most, len(ids))
        return s.journal.get_many(ids[i * len(ids) // n] for i in range(n))

    def agreeing(self, id: int) -> Edits:
        """The live edits of all users of this one's tenant, its own among them, of the same fact.

        For who counts whether they say the same: a keeper's list. Raises UnknownEdit, StoreError.
        """
        s = self._session
        with s.lock:
            s.catch_up()
            return s.router.standing.peers(s.journal.get(id))

    def review(self, *, user_id: str | None = None, tenant: str | None = None) -> Edits:
        """What waits for `approve` or `reject`, the oldest first: a keeper's list.

        Of everybody, of all users of a tenant, or of one.
        """
        return waiting(self._session.journal, Audience(user_id, tenant))

    # -- within ----------------------------------------------------------------------------------

    @property
    def _generate(self) -> Generate:
        """The base model's own `generate`."""
        return cast("Generate", _base_of(type(self)).generate.__get__(self))  # type: ignore[attr-defined]

    def _generating(self, state: State | None, *, chat: bool = False) -> Generate:
        """The same with the weights in `state` (None: live) from the first token to the last."""
        s = self._session

        def generate(*args: Any, **kwargs: Any) -> Output:
            with s.weights.held(state), s.turns.chat() if chat else nullcontext():
                return self._generate(*args, **kwargs)

        return generate

    def _referred(self, prompt: Prompt, asker: Audience) -> Prompt:
        s = self._session
        if id(self) in _off.get() or not prompt.earlier:
            return prompt
        with s.lock:
            s.catch_up()
            return s.router.referred(prompt, asker)

    def _route(self, questions: Sequence[str], asker: Audience = EVERYONE) -> Routes:
        s = self._session
        if id(self) in _off.get():
            return self._route_nowhere(questions)
        return asking(s.routing(questions, asker), self._ask)

    def _asked(self, questions: Sequence[str], asker: Audience) -> Routes:
        """The routes for somebody who asks: the edits that shape his answer are used."""
        routes = self._route(questions, asker)
        self._session.used.update(hit.id for route in routes for hit in route.hits)
        return routes

    def _ask(self, text: str) -> str:
        """How the base model goes on with a text, as far as somebody who follows hops reads it."""
        s = self._session
        assert s.hops is not None
        return s.say(text, s.hops.until)

    def _following(self, multihop: bool | Multihop) -> Hops | Mello | None:
        """Raises BadEdit where there is no such way."""
        name: Any = "hops" if multihop is True else multihop
        if name is False:
            return None
        if name not in _FOLLOWS:
            raise BadEdit(f"There is no multihop {name!r}.", f"Take one of: {', '.join(_FOLLOWS)}.")
        s = self._session
        return _FOLLOWS[name](s.router, s.encoder, FactBase())

    def _route_nowhere(self, questions: Sequence[str]) -> Routes:
        return [Route(self._session.router.epoch)] * len(questions)

    def _take(self, exam: Examination, state: State) -> Figures:
        """What the weights in this state make of an examination, without memory's help."""
        view = View(self._session.lm, self._generating(state), self._route_nowhere)
        return exam.take(view, self._session.weights.held(state))

    def _ripple(self, edit: Edit, method: str | None, how: Rippling) -> Ripple:
        """Raises BadEdit, TextTooLong."""
        if how not in get_args(Rippling):
            raise BadEdit(f"There is no ripple {how!r}.", f"Take {', '.join(get_args(Rippling))}.")
        s = self._session
        admitted = policy.admit(s.lm, s.edit_of(edit, method, EVERYONE))
        with s.lock:
            s.catch_up()
            return rippling(s.router, admitted)

    def _begin_monitoring(self, settings: Monitoring) -> None:
        s = self._session
        s.say = remembered(s.lm, self._generating(BASE))
        generate = self._generating(None)  # which is no chat

        def now(asker: Audience) -> View:
            route = partial(self._route, asker=asker)
            return View(s.lm, generate, route, s.methods, stand=s.router.stands)

        monitor = Monitor(s.lm, s.journal, now, self._then, self.disable_edits)
        s.check = Check(monitor, settings, s.retire)
        if settings.by_itself:
            s.watch = Watch(settings, s.check, s.turns)

    def _begin_consolidating(self, settings: Consolidating) -> None:
        s = self._session
        write = partial(self.consolidate, method=settings.method, gate=settings.gate)
        s.compactor = Compactor(settings, s.memory, s.used, write, s.turns)

    def _revert(self) -> None:
        self.__dict__.pop("_session", None)
        self.__class__ = _base_of(type(self))  # type: ignore[assignment]


def _editable(verbs: type, base: type) -> type:
    """`base` with `verbs` before it, under its own name: transformers looks classes up by name."""
    return type(base.__name__, (verbs, base), {"__module__": base.__module__})


def _base_of(cls: type) -> type[PreTrainedModel]:
    return cast("type[PreTrainedModel]", cls.__bases__[-1])
