"""What an EditableModel has besides the model, and how that stays in step with the journal.

Router and weights are functions of the journal. Whoever writes does so inside `changing`: one
transaction in which nobody else writes between the look and the record; whoever only asks calls
`catch_up` first. Both hold `lock`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, Literal, Self, TypeVar, get_args

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lifelong import conflicts, policy
from lifelong.asking import Told, Until
from lifelong.codebook import states
from lifelong.compaction import Compactor
from lifelong.encoder import Encoder, Vectors, load_encoder
from lifelong.errors import BadEdit, Conflicting
from lifelong.facts import FactBase
from lifelong.hops import Hops
from lifelong.lm import LM
from lifelong.mello import Mello
from lifelong.methods import Method, SideMethod, WeightMethod
from lifelong.replay import remade
from lifelong.router import EVERYONE, Route, Router
from lifelong.scope import ScopeClassifier, scope_for
from lifelong.standing import retire, settle
from lifelong.watch import Check, Turns, Watch
from lifelong.weights import BASE, Weights
from store import (
    Audience,
    Delta,
    Edit,
    Extension,
    Journal,
    Patch,
    Stale,
    Status,
    StoredPatch,
    StoreError,
)
from store.records import utc

T = TypeVar("T")
OnConflict = Literal["supersede", "reject", "review"]

_log = logging.getLogger(__name__)


@dataclass
class Session:
    """One model, one store, and what was made of the two."""

    lm: LM
    encoder: Encoder
    scope: ScopeClassifier
    journal: Journal
    router: Router
    weights: Weights
    method: str
    methods: Mapping[str, Method]
    encoder_name: str | None  # None: the caller brought the encoder itself
    written: list[int] = field(default_factory=list)  # the edits that are in the weights
    seen: int | None = None  # the journal's data version that the router is in step with
    stamp: tuple[int, int] = (0, 0)  # of the facts that are loaded
    hops: Hops | Mello | None = None  # what follows questions that hold more than one fact
    say: Callable[[str, Until], str] = field(init=False)  # see `asking.remembered`
    check: Check = field(init=False)
    watch: Watch | None = None
    compactor: Compactor | None = None
    used: Counter[int] = field(default_factory=Counter)  # answers by edit, since it was opened
    turns: Turns = field(default_factory=Turns)
    lock: Any = field(default_factory=RLock)  # one change, or one routing, at a time
    writing: Any = field(default_factory=RLock)  # one method at a time writes into the weights

    @classmethod
    def open(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        store: str | Path,
        encoder: str | Encoder,
        method: str,
        methods: Mapping[str, Method],
    ) -> Self:
        """Read the store, or make it. Raises BadEdit, ModelError, StoreError, PackageMissing."""
        if method not in methods:
            raise BadEdit(f"There is no method {method!r}.", f"Take one of: {', '.join(methods)}.")
        lm = LM.of(model, tokenizer)
        name = encoder if isinstance(encoder, str) else None
        if isinstance(encoder, str):
            encoder = load_encoder(encoder, device=lm.device)
        scope = scope_for(encoder)
        journal = Journal.open(
            store,
            model=lm.fingerprint,
            encoder=encoder.fingerprint,
            model_name=str(model.config.name_or_path),
            encoder_name=name or type(encoder).__name__,
        )
        try:
            router, weights = Router.build(journal, encoder, scope), Weights(lm)
            weights.rest(weights.state(patches_of(journal, router)))
        except BaseException:
            journal.close()
            raise
        written = router.in_weights
        return cls(lm, encoder, scope, journal, router, weights, method, methods, name, written)

    def close(self) -> None:
        """Stop what runs by itself, put the base weights back, close the store."""
        if self.compactor:
            self.compactor.close()
        if self.watch:
            self.watch.close()
        self.weights.rest(BASE)
        self.journal.close()

    # -- in step with the journal ----------------------------------------------------------------

    def sync(self) -> None:
        """Router and weights become what the journal says. Raises StoreError."""
        self.seen = None
        version = self.journal.data_version()
        with self.journal.unchanged():
            self.router.sync(self.journal)
            if self.hops is not None and self.stamp != (stamp := self.journal.facts_stamp()):
                self.hops.facts, self.stamp = FactBase(self.journal.facts()), stamp
        if self.router.in_weights != self.written:
            self.weights.rest(self.weights.state(self.deltas(), self.weights.resting))
            self.written = self.router.in_weights
        self.seen = version

    def catch_up(self) -> None:
        """Sync if anybody wrote, where a failure must not be: what is recorded, a chat goes on."""
        try:
            if self.seen is None or self.seen != self.journal.data_version():
                self.sync()
            if self.router.ended(utc(datetime.now(UTC))):
                self.settled(lambda journal: journal.expire())
        except StoreError as exc:
            _log.warning("The journal fails; answering as of %d: %s", self.router.epoch, exc)

    def memory(self) -> list[Edit]:
        """The live edits that are not in the weights, the oldest first."""
        with self.lock:
            self.catch_up()
            inside = set(self.router.in_weights)
            return [edit for edit in self.journal.live() if edit.id not in inside]

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One change: nobody else writes between the look and the record, all is in step after."""
        with self.lock:
            with self.journal.together():
                self.sync()
                yield
            self.noticed()

    def noticed(self) -> None:
        """This process wrote, which no data version tells it."""
        self.seen = None
        self.catch_up()

    def step(self, id: int, step: Callable[[Journal], Edit]) -> Edit:
        """A step of one edit; the edit as it stands when all have found their places."""
        self.settled(step)
        return self.journal.get(id)

    def settled(self, step: Callable[[Journal], T]) -> T:
        """What a step gives, once every edit that it touches has found its place."""
        with self.changing():
            return settle(self.journal, self.router.standing, lambda: step(self.journal))

    def retire(self, id: int, kind: Status = "retired", reason: str = "") -> None:
        """End a live edit, and with it what follows from it."""
        standing = self.router.standing
        self.settled(lambda journal: retire(journal, standing, id, kind=kind, reason=reason))

    def replay(self, id: int, reason: str = "") -> None:
        """The same; what was made in the weights while the edit was there is made again.

        Raises Stale where others wrote meanwhile, EditRefused; then nothing has happened.
        """

        def step() -> None:
            standing = self.router.standing
            fall = partial(retire, self.journal, standing, id, reason=reason)
            settle(self.journal, standing, fall)

        with self.weights.away(), self.writing:
            with suppress(_NotTaken), self.changing():
                epoch, before = self.journal.epoch, self.deltas()
                step()
                after = self.journal.patches(None, self.journal.written_ids())
                raise _NotTaken
            made = remade(self.lm, self.weights, self.methods, (before, after), self.journal)
            with self.changing():
                if self.journal.epoch != epoch:
                    raise Stale(f"Others wrote while what came after edit {id} was made again")
                step()
                for ids, patch in made:
                    self.journal.carry(ids, patch, reason=f"replayed without edit {id}")

    # -- before an edit is recorded --------------------------------------------------------------

    def edit_of(
        self, record: Edit | Mapping[str, Any], method: str | None, audience: Audience
    ) -> Edit:
        """A record as an edit by `method`, for `audience` if that is narrower than everyone."""
        edit = record if isinstance(record, Edit) else policy.edit_of(record)
        if audience != EVERYONE:
            edit = replace(edit, user_id=audience.user_id, tenant=audience.tenant)
        return replace(edit, method=method or self.method)

    def superseded(self, edits: Sequence[Edit]) -> dict[int, Sequence[int]]:
        """Position -> ids that the edit there replaces. Raises AlreadyTaught, BadEdit."""
        policy.refuse_rivals(edits)
        found = [policy.superseded(edit, self.router.visible(edit)) for edit in edits]
        return {position: old for position, old in enumerate(found) if old}

    def must_wait(self, edits: Sequence[Edit], vectors: Vectors, on_conflict: OnConflict) -> bool:
        """Whether these edits need an approval. Raises Conflicting where they are refused."""
        if on_conflict not in get_args(OnConflict):
            raise BadEdit(f"There is no policy {on_conflict!r}.", "Take supersede, reject, review.")
        if on_conflict == "supersede":
            return False
        for edit, vector in zip(edits, vectors, strict=True):
            for found in conflicts.find(self.router, edit, vector):
                if on_conflict == "review":
                    return True
                raise Conflicting(f"It is at odds: {found}.", "Undo that one, or replace it.")
        return False

    def made(self, method: Method, edits: list[Edit]) -> Patch:
        """What a method makes of edits. Raises EditRefused and what `method.propose` does."""
        if isinstance(method, WeightMethod):
            return self.written_by(method, edits)
        with self.weights.held(BASE if isinstance(method, SideMethod) else None):
            return method.propose(self.lm, edits)

    def written_by(
        self, method: WeightMethod, edits: list[Edit], *, new: bool = True
    ) -> Delta | Extension:
        """What the method would write; it takes its time, and others ask meanwhile."""
        with self.weights.away(), self.writing:
            with self.weights.held(BASE):
                method.prepare(self.lm)
            with self.lock:
                self.sync()
                if new:
                    self.superseded(edits)
                stored = [*self.journal.lapsed(), *self.deltas()]
            with self.weights.held(self.weights.resting):
                patch = method.propose(self.lm, edits, stored)
            self.weights.check(patch)
        return patch

    def deltas(self) -> list[StoredPatch]:
        """The patches that the weights have, in journal order."""
        return patches_of(self.journal, self.router)

    # -- before a reply --------------------------------------------------------------------------

    def routing(self, questions: Sequence[str], asker: Audience) -> Callable[[Told], list[Route]]:
        """Routes of `questions` among what `asker` sees, given what the base model told so far."""
        with self.lock:
            self.catch_up()
            senses = self.router.senses
        sensed = self.sensed(senses, questions)

        def route(told: Told) -> list[Route]:
            with self.lock:
                self.catch_up()
                if self.hops is None:
                    return self.router.route(questions, asker, sensed)
                return self.hops.route(questions, asker, told, sensed)

        return route

    def sensed(self, modules: Iterable[str], questions: Sequence[str]) -> Mapping[str, Vectors]:
        """The base model's states by which some edits are found; not to be asked for in a lock."""
        with self.weights.held(BASE):
            return {module: states(self.lm, module, questions) for module in modules}


class _NotTaken(Exception):
    """A step was only looked at: its transaction is rolled back."""


def patches_of(journal: Journal, router: Router) -> list[StoredPatch]:
    """The patches that the weights have when the router is where it is, in journal order."""
    return journal.patches(router.epoch, router.in_weights) if router.in_weights else []
