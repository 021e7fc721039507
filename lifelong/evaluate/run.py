"""One run, from a file of records to figures.

    records ── stream of edits ── fed up to a checkpoint ── rows: what is asked about them
                                                              │ routes: what shapes each reply
                                       replies, each once  ◄──┤
                base answers, from the cache where they are ◄─┘
    raw.db: replies, rows, costs ── metrics ── results

Everything that is measured is in raw.db when `measure` returns, and a run that was interrupted goes
on from there: whole checkpoints are skipped, replies are not asked for again, edits not made again.
"""

import hashlib
import resource
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, Self, cast

import store
from lifelong.encoder import Encoder, SentenceEncoder, load_encoder
from lifelong.errors import BadRun
from lifelong.evaluate.baselines import BASELINES, NoEdits
from lifelong.evaluate.config import Config
from lifelong.evaluate.contender import Contender, Edited
from lifelong.evaluate.likelihood import Likelihoods, perplexity
from lifelong.evaluate.multihop import Table, Told, composed, fact_base, tables, wordings
from lifelong.evaluate.pace import pace
from lifelong.evaluate.protocol import GREEDY, PROTOCOLS, Key, Reply, batches, replies
from lifelong.evaluate.raw import ALONE, BASE, Answers, Raw, Row
from lifelong.evaluate.records import LOCALITY, Case
from lifelong.evaluate.stream import Item, asked, drawn, ranks, scored, standing, stream
from lifelong.evaluate.undo import Drill
from lifelong.feed import record
from lifelong.generate import Generate
from lifelong.lm import LM
from lifelong.methods import METHODS, with_options
from lifelong.models import default_cache, load_model, resolve
from lifelong.runtime import EditableModel
from store import Edit
from store.records import canonical

Tell = Callable[[str, int, int], None]  # (what is being done, so many done, of so many)

PROOFS = 50  # probes on the base model's route that are asked all the same


@dataclass(frozen=True)
class Bench:
    """The models of a run; `retriever` is the encoder as it ships, for the baselines.

    Base answers are kept in the folder `cache` from run to run.
    """

    lm: LM
    encoder: Encoder
    retriever: Encoder
    cache: Path

    @classmethod
    def load(cls, config: Config) -> Self:
        """Raises ModelError."""
        lm = LM.of(*load_model(config.model, progress=False))
        encoder = load_encoder(config.encoder, progress=False, device=lm.device)
        plain = SentenceEncoder(resolve(config.encoder, progress=False), device=lm.device)
        return cls(lm, encoder, plain, default_cache())


def check(config: Config) -> None:
    """Refuse what cannot be run. Raises BadRun, BadSetting."""
    known = {
        "method": ([config.method], METHODS),
        "protocol": ([config.protocol], PROTOCOLS),
        "baseline": (config.baselines, BASELINES),
    }
    for what, (given, there) in known.items():
        if unknown := [name for name in given if name not in there]:
            raise BadRun(f"There is no {what} {unknown[0]!r}.", f"There are: {', '.join(there)}.")
    with_options(config.method, config.settings)  # raises BadSetting
    steps = config.checkpoints
    if list(steps) != sorted(set(steps)) or any(step < 1 for step in steps):
        raise BadRun(f"The checkpoints {steps} do not rise from 1 on.", "Give 1,10,100, say.")


def measure(config: Config, cases: Sequence[Case], bench: Bench, about: Any, tell: Tell) -> Raw:
    """Feed `cases` and ask; `about` identifies them. Returns the open file of results.

    Raises OutUnusable, OtherRun, NoChatTemplate, StoreError.
    """
    raw = Raw.open(config.out, identity(config, bench, about))
    answers = Answers(bench.cache / "base-answers.db")
    try:
        _Run(config, cases, bench, raw, answers, tell).all()
    except BaseException:
        raw.close()
        raise
    finally:
        answers.close()
    return raw


def identity(config: Config, bench: Bench, about: Any) -> dict[str, Any]:
    """What must be the same for a run to be the same run."""
    options = {
        name: getattr(config, name)
        for name in (
            "method protocol edits checkpoints seed order batch baselines settings probes "
            "scalability windows all_probes compared multihop"
        ).split()
    }
    text = config.perplexity.read_bytes() if config.perplexity else b""
    template = str(bench.lm.tokenizer.chat_template)
    return {
        **options,
        "data": about,
        "model": bench.lm.fingerprint,
        "dtype": str(bench.lm.dtype),
        "encoder": bench.encoder.fingerprint,
        "template": hashlib.sha256(template.encode()).hexdigest(),
        "perplexity": hashlib.sha256(text).hexdigest() if text else None,
        "code": code(),
    }


def code() -> str:
    """sha256 of the source of both packages."""
    total = hashlib.sha256()
    for package in (Path(__file__).parents[1], Path(store.__file__).parent):
        for path in sorted(package.rglob("*.py")):
            total.update(path.read_bytes())
    return total.hexdigest()


class _Run:
    """The stages of one run, over what they share."""

    def __init__(
        self,
        config: Config,
        cases: Sequence[Case],
        bench: Bench,
        raw: Raw,
        answers: Answers,
        tell: Tell,
    ) -> None:
        if config.order == "shuffled":
            cases = Random(config.seed).sample(cases, len(cases))
        self._config = config
        self._bench = bench
        self._raw = raw
        self._answers = answers
        self._tell = tell
        self._cases = cases
        self._items = stream(cases)
        self._ranks = ranks(len(self._items), config.seed)
        self._steps = config.checkpoints or (len(cases),)
        self._methods = with_options(config.method, config.settings)
        self._protocol = PROTOCOLS[config.protocol]
        self._source = _source(bench.lm, config.protocol)
        self._said: dict[str, dict[Key, tuple[str, Reply]]] = {}
        self._likelihoods = Likelihoods(bench.lm, self._protocol)
        self._store = config.out / f"{config.method}.db"

    def all(self) -> None:
        """Baselines, the method, its edits one by one, undo."""
        lm = self._bench.lm
        self._protocol.prompt(lm, "?")  # raises NoChatTemplate before anything is done
        base = NoEdits(lm, cast("Generate", lm.model.generate), self._protocol)
        self._raw.note("base", self._perplexity())
        if self._raw.noted("base_rss_mb") is None:
            self._raw.note("base_rss_mb", _peak_rss_mb())
        for name in self._config.baselines:
            who = BASELINES[name](base, self._bench.retriever)
            for step in self._steps:
                self._checkpoint(who, base, step)
        self._method()
        if self._config.multihop:
            self._multihop()
        self._alone(base)
        self._undo()

    # -- the method ------------------------------------------------------------------------------

    def _method(self) -> None:
        if self._finished(self._config.method, self._steps[-1]):
            return
        with self._open(self._store) as model:
            now = Edited(model, self._bench.lm, self._protocol, self._config.method)
            base = NoEdits(self._bench.lm, model.at(0).generate, self._protocol)
            for step in self._steps:
                self._feed(model, self._until(step))
                self._checkpoint(now, base, step)
        began = perf_counter()
        with self._open(self._store):
            self._raw.note("restart_seconds", perf_counter() - began)

    def _open(self, store: Path | str) -> EditableModel:
        lm, method = self._bench.lm, self._config.method
        return EditableModel(
            lm.model,
            lm.tokenizer,
            store=store,
            encoder=self._bench.encoder,
            method=method,
            methods=self._methods,
            multihop=self._config.multihop,
        )

    def _feed(self, model: EditableModel, items: Sequence[Item]) -> None:
        """Make the edits that were not made yet, so many at a time."""
        method, size = self._config.method, self._config.batch
        made = {edit.provenance.get("place") for edit in model.list()}
        made |= {place for place, (_, why) in self._raw.written(method).items() if why}
        rest = [item for item in items if item.place not in made]
        with self._raw.phase("edits"):
            for start in range(0, len(rest), size):
                some = rest[start : start + size]
                self._tell(f"{method}: edits", start, len(rest))
                began = perf_counter()
                verdicts = list(record(model.edit_many, [item.edit for item in some]))
                each = (perf_counter() - began) / len(some)
                why = ["" if isinstance(verdict, Edit) else str(verdict) for verdict in verdicts]
                self._raw.wrote(method, [item.place for item in some], each, why)

    def _multihop(self) -> None:
        """Composed questions of a sample of cases, without and with what is not edited as facts."""
        if self._raw.noted("composed") is not None:
            return
        cases = composed(self._cases[: self._steps[-1]])
        sample = Random(self._config.seed).sample(cases, min(self._config.probes, len(cases)))
        texts = [text for case in sample for text in wordings(case)]
        told = list[Told]()
        with self._raw.phase("composed questions"), self._open(self._store) as model:
            base = NoEdits(self._bench.lm, model.at(0).generate, self._protocol)
            for facts in ([], fact_base(cases)):
                model.drop_facts()
                model.add_facts(facts)
                now = Edited(model, self._bench.lm, self._protocol, self._config.method)
                said = self._told(now, base, texts, f"{now.name} with {len(facts)} facts,")
                ways = dict(zip(texts, now.ways(texts), strict=True))
                told.append(Told({text: reply.text for text, reply in said.items()}, ways))
            model.drop_facts()
        found = {name: _shares(table) for name, table in tables(sample, *told)}
        self._raw.note("composed", {"facts": len(facts), "tables": found})

    def _told(
        self, who: Contender, base: NoEdits, texts: Sequence[str], stage: str
    ) -> dict[str, Reply]:
        """The reply to each text."""
        shapes = dict(zip(texts, who.shapes(texts), strict=True))
        plain = {(text, "") for text, shape in shapes.items() if not shape}
        self._ask(who, who.name, stage, ((t, shape) for t, shape in shapes.items() if shape))
        self._recall(plain)
        self._ask(base, BASE, stage, plain)
        said = self._known(who.name) | self._known(BASE)
        return {text: said[text, shape][1] for text, shape in shapes.items()}

    def _alone(self, base: NoEdits) -> None:
        """A sample of edits, each the only one of a fresh base (Eq. 11)."""
        method = self._config.method
        sample = {
            item.place: item
            for step in self._steps
            for item in drawn(self._chosen(step), self._ranks, self._config.scalability)
        }
        if self._finished(method, ALONE):
            return
        rows = []
        with self._raw.phase("edits made alone"):
            for done, item in enumerate(sample.values()):
                self._tell(f"{method}: edits made alone", done, len(sample))
                with self._open(":memory:") as model:
                    list(record(model.edit_many, [item.edit]))
                    now = Edited(model, self._bench.lm, self._protocol, method)
                    rows += self._answered(now, base, [item.own()], ALONE)
        self._raw.finish(method, ALONE, rows, {})

    def _undo(self) -> None:
        method = self._config.method
        if self._raw.noted("undo") is not None:
            return
        self._tell(f"{method}: undo", 0, 1)
        drill = Drill(
            self._bench.lm,
            self._bench.encoder,
            self._protocol,
            method,
            self._methods,
            self._until(self._steps[-1]),
            self._config.seed,
        )
        with self._raw.phase("undo"):
            self._raw.note("undo", drill.run(self._store))

    # -- a checkpoint ----------------------------------------------------------------------------

    def _checkpoint(self, who: Contender, base: NoEdits, step: int) -> None:
        if self._finished(who.name, step):
            return
        items = self._until(step)
        with self._raw.phase("facts of the baselines"):
            who.at(items)
        chosen = self._chosen(step)
        if self._config.compared is not None and not isinstance(who, Edited):
            chosen = drawn(chosen, self._ranks, self._config.compared)
        sample = {item.place for item in drawn(chosen, self._ranks, self._config.probes)}
        rows = list(asked(chosen, sample, gated=who.gated))
        rows = self._answered(who, base, rows, step, sample)
        with self._raw.phase("likelihoods"):
            rows = self._measured(who, rows, sample)
        costs = {
            "edits": len(items),
            "superseded": len(items) - len(standing(items)),
            "scored": len(chosen),
            "sampled": len(sample),
            "peak_rss_mb": _peak_rss_mb(),
        }
        if isinstance(who, Edited):
            costs |= self._costs_of_method(who, base, rows, step)
        self._raw.finish(who.name, step, rows, costs)

    def _costs_of_method(
        self, who: Edited, base: NoEdits, rows: Sequence[Row], step: int
    ) -> dict[str, Any]:
        files = self._store.parent.glob(f"{self._store.name}*")
        costs: dict[str, Any] = {
            "store_bytes": sum(file.stat().st_size for file in files),
            "perplexity": self._perplexity(),
        }
        if step == self._steps[-1]:
            costs |= {"proof": self._proof(who, base, rows), "pace": self._pace(who, base, rows)}
        return costs

    def _pace(self, who: Edited, base: NoEdits, rows: Sequence[Row]) -> dict[str, Any] | None:
        """Of a question on the base model's route."""
        self._tell(f"{who.name}: pace", 0, 1)
        apart = next((row.prompt for row in rows if not row.shape), None)
        if apart is None:
            return None
        with self._raw.phase("pace"):
            prompt = self._protocol.prompt(self._bench.lm, apart)
            return pace(self._bench.lm, who.generate, base.generate, prompt)

    def _answered(
        self,
        who: Contender,
        base: NoEdits,
        rows: Sequence[Row],
        step: int,
        sample: Set[int] = frozenset(),
    ) -> list[Row]:
        """The rows with what shapes their replies, and the replies.

        Also the base model's where they are compared: locality, and own prompts of the `sample`.
        """
        texts = list(dict.fromkeys(row.prompt for row in rows))
        with self._raw.phase("routes"):
            self._tell(f"{who.name}, {step} records: routes", 0, len(texts))
            shapes = dict(zip(texts, who.shapes(texts), strict=True))
        rows = [replace(row, shape=shapes[row.prompt]) for row in rows]
        stage = f"{who.name} {step}"
        shaped = {(row.prompt, row.shape) for row in rows if row.shape}
        plain = {(row.prompt, "") for row in rows if bool(row.shape) == (row.kind in LOCALITY)}
        if self._protocol.chat:
            own = (row for row in rows if row.kind == "own" and row.place in sample)
            plain |= {(row.prompt, "") for row in own}
        with self._raw.phase(f"answers of {who.name}"):
            self._ask(who, who.name, stage, shaped)
        self._recall(plain)
        with self._raw.phase("answers of the base model"):
            self._ask(base, BASE, stage, plain)
        said, unedited = self._known(who.name), self._known(BASE)
        return [_with_replies(row, said, unedited) for row in rows]

    def _ask(self, who: Contender, source: str, stage: str, keys: Iterable[Key]) -> None:
        """Ask for the replies that are missing.

        What this stage asked before it was interrupted counts when batches are made, so they are
        the same batches: padding decides the last bits, and they can decide a word.
        """
        known = self._known(source)
        missing = sorted(key for key in keys if key not in known or known[key][0] == stage)
        prompts = {key: who.prompt(*key) for key in missing}
        done = 0
        for batch in batches(self._bench.lm, self._protocol, prompts):
            self._tell(f"{stage} records: answers of {source}", done, len(prompts))
            done += len(batch)
            if all(key in known for key in batch):
                continue
            asked_for = [prompts[key] for key in batch]
            said = replies(self._bench.lm, who.generate, self._protocol, asked_for)
            self._keep(source, stage, dict(zip(batch, said, strict=True)))
            if source == BASE:
                self._answers.keep(self._source, "", dict(zip(batch, said, strict=True)))

    def _recall(self, keys: Iterable[Key]) -> None:
        """Take base answers from the cache, where it has them."""
        cached, known = self._cached(), self._known(BASE)
        found = {k: cached[k][1] for k in sorted(keys) if k in cached and k not in known}
        if found:
            self._keep(BASE, "cached", found)

    def _keep(self, source: str, stage: str, said: Mapping[Key, Reply]) -> None:
        self._raw.keep(source, stage, said)
        self._known(source).update({key: (stage, reply) for key, reply in said.items()})

    def _known(self, source: str) -> dict[Key, tuple[str, Reply]]:
        if source not in self._said:
            self._said[source] = self._raw.known(source)
        return self._said[source]

    def _cached(self) -> dict[Key, tuple[str, Reply]]:
        if self._source not in self._said:
            self._said[self._source] = self._answers.known(self._source)
        return self._said[self._source]

    def _proof(self, who: Edited, base: NoEdits, rows: Sequence[Row]) -> dict[str, int]:
        """Probes on the base model's route, asked of both in equal batches."""
        texts = sorted({row.prompt for row in rows if not row.shape})
        texts = Random(self._config.seed).sample(texts, min(PROOFS, len(texts)))
        prompts = {(text, ""): base.prompt(text, "") for text in texts}
        equal = 0
        with self._raw.phase("proof"):
            for batch in batches(self._bench.lm, self._protocol, prompts):
                some = [prompts[key] for key in batch]
                now, then = (
                    replies(self._bench.lm, one.generate, self._protocol, some)
                    for one in (who, base)
                )
                equal += sum(a.ids == b.ids for a, b in zip(now, then, strict=True))
        return {"n": len(texts), "equal": equal}

    # -- likelihoods -----------------------------------------------------------------------------

    def _measured(self, who: Contender, rows: Sequence[Row], places: Set[int]) -> list[Row]:
        """The rows, those about `places` with their likelihoods."""
        self._tell(f"{who.name}: likelihoods", 0, 1)
        mine = [row for row in rows if row.place in places]
        if self._protocol.chat:
            with who.untouched():
                mine = list(self._likelihoods.natural(mine))
        if (state := who.state()) is not None:
            mine = list(self._likelihoods.forced(mine, state))
        measured = iter(mine)
        return [next(measured) if row.place in places else row for row in rows]

    def _perplexity(self) -> float | None:
        """Of the held-out text, if there is one, under the model as it is."""
        if self._config.perplexity is None:
            return None
        text = self._config.perplexity.read_text(encoding="utf-8")
        with self._raw.phase("perplexity"):
            return perplexity(self._bench.lm, text, self._config.windows)

    # -- which edits -----------------------------------------------------------------------------

    def _until(self, step: int) -> list[Item]:
        return [item for item in self._items if item.record <= step]

    def _chosen(self, step: int) -> list[Item]:
        return scored(standing(self._until(step)), self._ranks)

    def _finished(self, method: str, step: int) -> bool:
        return self._raw.costs(method, step) is not None


def _source(lm: LM, protocol: str) -> str:
    """What a base model's reply depends on besides the prompt."""
    chat = PROTOCOLS[protocol].chat
    return canonical(
        {
            "fingerprint": lm.fingerprint,
            "dtype": str(lm.dtype),
            "protocol": protocol,
            "template": str(lm.tokenizer.chat_template) if chat else None,
            "limits": {**GREEDY, "new_tokens": PROTOCOLS[protocol].new_tokens},
        }
    )


def _shares(table: Table) -> dict[str, dict[str, int]]:
    return {group: asdict(share) for group, share in table.items()}


def _with_replies(
    row: Row,
    said: Mapping[Key, tuple[str, Reply]],
    unedited: Mapping[Key, tuple[str, Reply]],
) -> Row:
    base = unedited.get((row.prompt, ""), (None, None))[1]
    return replace(row, reply=said[row.prompt, row.shape][1] if row.shape else base, base=base)


def _peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
