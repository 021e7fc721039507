"""EditableModel: a Hugging Face causal LM that takes corrections.

    edit   Edit -> policy.admit -> method.propose -> journal.record -> router and weights
    ask    prompt -> router.route -> method.condition -> generate -> Answer
    truth  the journal; everything else here is a view of it

An EditableModel *is* the model it was made from: `EditableModel(model, tokenizer)` gives that
object a class with these verbs before its own, so `isinstance`, `forward`, state-dict keys,
pipelines and streamers are the model's own. `close()` gives the old class back.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, overload

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lifelong import monitor, policy
from lifelong.encoder import Encoder, load_encoder
from lifelong.errors import BadEdit, LifelongError, NotAModel
from lifelong.generate import Generate, Output
from lifelong.lm import LM
from lifelong.methods import METHODS, WeightMethod
from lifelong.models import load_model
from lifelong.router import Route, Router
from lifelong.scope import ScopeClassifier, scope_for
from lifelong.view import MAX_NEW_TOKENS, Answer, Messages, Stream, View
from lifelong.weights import BASE, State, Weights
from store import Delta, Edit, Event, Journal, Patch, Reading, Status, StoredPatch, StoreError

if TYPE_CHECKING:
    _Model = PreTrainedModel
else:
    _Model = object  # the real one is mixed in per model class, see `_editable`

Edits = list[Edit]  # inside the class, `list` is a verb
Events = list[Event]
Routes = list[Route]
Patches = list[StoredPatch]

DEFAULT_STORE = "lifelong.db"

_log = logging.getLogger(__name__)
_off: ContextVar[frozenset[int]] = ContextVar("ids of models without edits", default=frozenset())


@dataclass
class _Session:
    """What an EditableModel has besides the model."""

    lm: LM
    encoder: Encoder
    scope: ScopeClassifier
    journal: Journal
    router: Router
    weights: Weights
    method: str
    check_every: int | None
    unchecked: int = 0  # edits since the last reading
    lock: Any = field(default_factory=RLock)  # one change, or one routing, at a time
    writing: Any = field(default_factory=RLock)  # one method at a time writes into the weights


class EditableModel(_Model):
    """A causal LM whose users correct it. Made around a model, or by `from_pretrained`.

    Args:
        model: a transformers causal LM on any device, in any dtype; it becomes this object.
        tokenizer: its tokenizer.
        store: the SQLite file of the edits, made where it does not exist; ":memory:" for none.
        encoder: a name, hub id or folder of a sentence encoder, or an `Encoder`.
        method: how edits are made unless `edit` is told otherwise.
        check_every: take a reading after every so many edits; None: only when `check` is called.

    Raises StoreError (WrongBase where the store was made for another model), ModelError, BadEdit.
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
        check_every: int | None = None,
    ) -> None:
        try:
            self._session = _open(model, tokenizer, store, encoder, method, check_every)
        except BaseException:
            self._revert()
            raise

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str,
        *,
        store: str | Path = DEFAULT_STORE,
        encoder: str | Encoder = "minilm",
        method: str = "serac",
        check_every: int | None = None,
        **load: Any,
    ) -> Self:
        """Load a model by name (`smollm2-135m`), hub id or folder, with the edits in `store`.

        `load` goes to `models.load_model` (dtype, device). Raises ModelError, StoreError, BadEdit.
        """
        model, tokenizer = load_model(name, **load)
        return cls(
            model,
            tokenizer,
            store=store,
            encoder=encoder,
            method=method,
            check_every=check_every,
        )

    def close(self) -> None:
        """Close the store; the object is the bare model again. Twice is fine."""
        if isinstance(self, EditableModel):
            self._session.weights.rest(BASE)
            self._session.journal.close()
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

    def edit(
        self,
        prompt: str,
        target: str,
        *,
        subject: str | None = None,
        relation: str | None = None,
        paraphrases: Sequence[str] = (),
        locality: Sequence[str] = (),
        method: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Edit:
        """From now on, asked `prompt` in any words, the model says `target`.

        The edit is on disk and live when this returns. It replaces a live edit of the same prompt,
        or of the same subject and relation. `subject` is guessed from the prompt if not given.
        `paraphrases` and `locality` (prompts that must not change) are what `check` asks; they are
        never learnt from.

        Raises BadEdit, TextTooLong, AlreadyTaught, StoreError; then nothing was written.
        """
        edit = Edit(
            prompt,
            target,
            subject=subject,
            relation=relation,
            paraphrases=paraphrases,  # type: ignore[arg-type]  # checked by policy.admit
            locality=locality,  # type: ignore[arg-type]
            provenance=provenance or {},
        )
        return self.edit_many([edit], method=method)[0]

    def edit_many(
        self, records: Sequence[Edit | Mapping[str, Any]], *, method: str | None = None
    ) -> Edits:
        """Many edits as one: one patch, one transaction, all or nothing. Raises as `edit` does.

        A record is an `Edit`, or a mapping with the fields of our JSONL (`policy.edit_of`).
        """
        s = self._session
        named = [
            replace(
                edit if isinstance(edit, Edit) else policy.edit_of(edit), method=method or s.method
            )
            for edit in records
        ]
        admitted = [policy.admit(s.lm, edit) for edit in named]
        if not admitted:
            return []
        how = METHODS[admitted[0].method]
        patch: Patch = (
            self._written(how, admitted)
            if isinstance(how, WeightMethod)
            else how.propose(s.lm, admitted)
        )
        with s.lock:
            self._sync()
            supersedes = self._superseded(admitted)
            vectors = s.router.encode(admitted)
            recorded = s.journal.record(admitted, patch, vectors, supersedes=supersedes)
            self._catch_up()
        self._check_if_due(len(recorded))
        return recorded

    def undo(self, id: int) -> Edit:
        """Retire an edit: every answer is as if it had not been made; what it replaced is back.

        Raises UnknownEdit, AlreadyRetired, StoreError.
        """
        with self._session.lock:
            edit = self._session.journal.retire(id)
            self._catch_up()
        return edit

    def redo(self, id: int) -> Edit:
        """Bring a retired edit back, in the place of any that states the same fact by now.

        Raises UnknownEdit, NotRetired, StoreError.
        """
        s = self._session
        with s.lock:
            self._sync()
            instead_of = s.router.same_fact(s.journal.get(id))
            edit = s.journal.restore(id, supersedes=[other.id for other in instead_of])
            self._catch_up()
        return edit

    # -- asking ----------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own `forward`, under one state of the weights from input to output.

        Raises StaleCache where `past_key_values` were made under another.
        """
        weights, cache = self._session.weights, kwargs.get("past_key_values")
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
        **kw: Any,
    ) -> Answer: ...

    @overload
    def chat(
        self, messages: Messages, *, max_new_tokens: int = ..., stream: Literal[True], **kw: Any
    ) -> Stream: ...

    def chat(
        self,
        messages: Messages,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        stream: bool = False,
        **generate_kwargs: Any,
    ) -> Answer | Stream:
        """The reply to `messages` (role and content each, or one text of a user).

        With `stream`, an iterator over pieces of it, whose `.answer` is the whole so far.
        Raises NoChatTemplate, MessagesRefused.
        """
        kwargs = {"max_new_tokens": max_new_tokens, **generate_kwargs}
        return (
            self._view.stream(messages, **kwargs) if stream else self._view.chat(messages, **kwargs)
        )

    def complete(
        self, text: str, *, max_new_tokens: int = MAX_NEW_TOKENS, **generate_kwargs: Any
    ) -> Answer:
        """The raw continuation of `text`, without a chat template."""
        return self._view.complete(text, max_new_tokens=max_new_tokens, **generate_kwargs)

    def generate(
        self, inputs: torch.Tensor | None = None, generation_config: Any = None, **kwargs: Any
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
        return self._view.generate(ids, kwargs.pop("attention_mask", None), **kwargs)

    def explain(self, prompt: Messages) -> Route:
        """Which edits shape the answer to `prompt` (`hits`), and which nearly would (`near`)."""
        return self._view.explain(prompt)

    @contextmanager
    def disable_edits(self) -> Iterator[Self]:
        """The base model, exactly, for as long as the block runs, in this thread only."""
        token = _off.set(_off.get() | {id(self)})
        try:
            with self._session.weights.held(BASE):
                yield self
        finally:
            _off.reset(token)

    def at(self, epoch: int) -> View:
        """A read-only view that answers as this model did at `epoch`."""
        s = self._session
        if not 0 <= epoch <= s.journal.epoch:
            raise BadEdit(f"There is no epoch {epoch} yet.", f"Give one of 0 to {s.journal.epoch}.")
        router = Router.build(s.journal, s.encoder, s.scope, at=epoch)
        then = s.weights.state(_deltas(s.journal, router))
        return View(s.lm, self._generating(then), router.route)

    # -- looking ---------------------------------------------------------------------------------

    def get(self, id: int) -> Edit:
        """One edit with its present status. Raises UnknownEdit."""
        return self._session.journal.get(id)

    def history(self, id: int | None = None) -> Events:
        """What happened to one edit, or to all, in order. Raises UnknownEdit."""
        return self._session.journal.history(id)

    def check(self, sample: int = monitor.SAMPLE) -> Reading:
        """Re-ask a sample of the live edits and what they must not change; note the reading."""
        s = self._session
        with s.lock:
            self._sync()
            live = s.journal.live()
        base = View(s.lm, self._generating(BASE), self._route_nowhere)
        reading = monitor.check(self._view, base, live, s.journal.readings(), sample=sample)
        s.unchecked = 0
        return s.journal.note(reading)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that prompts are read and written with."""
        return self._session.lm.tokenizer

    @property
    def epoch(self) -> int:
        """The journal's last sequence number: what answers are given as of."""
        return self._session.journal.epoch

    def list(self, status: Status | None = None) -> Edits:
        """Every edit ever acknowledged, or those with this status, by id."""
        return self._session.journal.edits(status)

    # -- within ----------------------------------------------------------------------------------

    @property
    def _view(self) -> View:
        off = id(self) in _off.get()
        return View(self._session.lm, self._generating(BASE if off else None), self._route)

    @property
    def _generate(self) -> Generate:
        """The base model's own `generate`."""
        return cast("Generate", _base_of(type(self)).generate.__get__(self))  # type: ignore[attr-defined]

    def _generating(self, state: State | None) -> Generate:
        """The same with the weights in `state` (None: live) from the first token to the last."""

        def generate(*args: Any, **kwargs: Any) -> Output:
            with self._session.weights.held(state):
                return self._generate(*args, **kwargs)

        return generate

    def _route(self, questions: Sequence[str]) -> Routes:
        s = self._session
        if id(self) in _off.get():
            return self._route_nowhere(questions)
        with s.lock:
            self._catch_up()
            return s.router.route(questions)

    def _route_nowhere(self, questions: Sequence[str]) -> Routes:
        return [Route(self._session.router.epoch)] * len(questions)

    def _written(self, method: WeightMethod, edits: Edits) -> Delta:
        """What the method would write; it takes its time, and others ask meanwhile."""
        s = self._session
        with s.weights.away(), s.writing:
            with s.weights.held(BASE):
                method.prepare(s.lm)
            with s.lock:
                self._sync()
                self._superseded(edits)
                live = _deltas(s.journal, s.router)
            with s.weights.held(s.weights.resting):
                patch = method.propose(s.lm, edits, live)
            s.weights.check(patch)
        return patch

    def _sync(self) -> None:
        """Router and weights become what the journal says."""
        s = self._session
        before = s.router.in_weights
        s.router.sync(s.journal)
        if s.router.in_weights != before:
            deltas = _deltas(s.journal, s.router)
            s.weights.rest(s.weights.state(deltas, s.weights.resting))

    def _catch_up(self) -> None:
        """Sync, where a failure must not be: what is recorded stays so, a chat goes on."""
        try:
            self._sync()
        except StoreError as exc:
            epoch = self._session.router.epoch
            _log.warning("The journal cannot be read; answering as of %d: %s", epoch, exc)

    def _superseded(self, edits: Sequence[Edit]) -> dict[int, Sequence[int]]:
        """Position -> ids that the edit there replaces. Raises AlreadyTaught, BadEdit."""
        policy.refuse_rivals(edits)
        found = [policy.superseded(e, self._session.router.same_fact(e)) for e in edits]
        return {position: old for position, old in enumerate(found) if old}

    def _check_if_due(self, edits: int) -> None:
        s = self._session
        s.unchecked += edits
        if s.check_every is None or s.unchecked < s.check_every:
            return
        try:
            self.check()
        except (LifelongError, StoreError) as exc:  # the edits are recorded all the same
            _log.warning("The edits could not be checked: %s", exc)

    def _revert(self) -> None:
        self.__dict__.pop("_session", None)
        self.__class__ = _base_of(type(self))  # type: ignore[assignment]


def _editable(verbs: type, base: type) -> type:
    """`base` with `verbs` before it, under its own name: transformers looks classes up by name."""
    return type(base.__name__, (verbs, base), {"__module__": base.__module__})


def _base_of(cls: type) -> type[PreTrainedModel]:
    return cast("type[PreTrainedModel]", cls.__bases__[-1])


def _open(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    store: str | Path,
    encoder: str | Encoder,
    method: str,
    check_every: int | None,
) -> _Session:
    if method not in METHODS:
        raise BadEdit(f"There is no method {method!r}.", f"Take one of: {', '.join(METHODS)}.")
    lm = LM.of(model, tokenizer)
    if isinstance(encoder, str):
        encoder_name, encoder = encoder, load_encoder(encoder, device=lm.device)
    else:
        encoder_name = type(encoder).__name__
    scope = scope_for(encoder)
    journal = Journal.open(
        store,
        model=lm.fingerprint,
        encoder=encoder.fingerprint,
        model_name=str(model.config.name_or_path),
        encoder_name=encoder_name,
    )
    try:
        router, weights = Router.build(journal, encoder, scope), Weights(lm)
        weights.rest(weights.state(_deltas(journal, router)))
    except BaseException:
        journal.close()
        raise
    return _Session(lm, encoder, scope, journal, router, weights, method, check_every)


def _deltas(journal: Journal, router: Router) -> Patches:
    """The patches that the weights have when the router is where it is, in journal order."""
    return journal.patches(router.epoch, router.in_weights) if router.in_weights else []
