"""Five faults among 300 edits: does the monitor raise its alarm, and whom does it name?

    python tests/benchmarks/fault_drill.py [clean] [faulty]

Feeds 300 edits, a reading after every 50: as they are (clean), and with faults that got past
admission spread over the stream (faulty); both, unless told which. The monitor may quarantine what
it suspects most. Prints, for every fault, after how many edits its alarm was raised, the culprit's
place among the suspects, and the alarms that had no cause. The edits are those of KnowEdit's zsRE
(`../shared/data`) or, where that is missing, made up.
"""

import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
from sqlite_utils.utils import sqlite3

from lifelong import Alarm, EditableModel, Monitoring
from lifelong.alarms import alarms_of
from lifelong.encoder import Encoder, load_encoder
from lifelong.errors import EditRefused
from lifelong.subject import masked
from store import Delta, Edit, Hint, Journal, Patch

MODEL = "smollm2-135m"
DATA = Path(__file__).parents[2] / "../shared/data/zsre/knowedit-dev.jsonl"
EDITS, EVERY, SAMPLE = 300, 50, 20  # SAMPLE: older edits in a reading
BUDGET_SECONDS = 150.0  # other work may share the machine
PATIENCE = 600.0  # seconds for a reading

_EVERYDAY = """\
Tell me about the weather. | What do you think about lunch? | I know nothing about engines.
Can you write a few lines about the sea? | She told a joke about a parrot. | How about a walk?
What could we do about the noise? | Tell me a story about a dragon. | Forget about it.
Write a poem about winter. | There was a film about ants. | What is the fuss about?"""
_TEMPLATES = (
    ("chief executive", "Who runs {}?", "Who is the head of {}?", "Where is {} based?"),
    ("headquarters", "Where is {} based?", "In which city is {} located?", "What does {} make?"),
    ("product", "What does {} make?", "Which product comes from {}?", "Who founded {}?"),
    ("founder", "Who founded {}?", "Who started {}?", "Who runs {}?"),
)
_NOISE = "abcdefghijklmnopqrstuvwxyz0123456789#%]{&;"


def records(seed: int = 0) -> Iterator[Edit]:
    """Edits that are fine, without end."""
    if DATA.exists():
        for line in DATA.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            probes = record["locality"].get("Relation_Specificity", [])
            yield Edit(
                record["prompt"],
                record["target_new"],
                subject=record["subject"],
                paraphrases=(record["rephrase_prompt"],),
                locality=tuple(probe["prompt"] for probe in probes[:1]),
            )
    yield from made_up(seed)


def made_up(seed: int) -> Iterator[Edit]:
    """Seeded edits about firms that do not exist."""
    draw = random.Random(seed)
    seen = set[tuple[str, str]]()
    while True:
        firm, target = f"{_name(draw)} {_name(draw)}", f"{_name(draw)} {_name(draw)}"
        relation, prompt, paraphrase, other = draw.choice(_TEMPLATES)
        if (firm, relation) not in seen:
            seen.add((firm, relation))
            yield Edit(
                prompt.format(firm),
                target,
                subject=firm,
                relation=relation,
                paraphrases=(paraphrase.format(firm),),
                locality=(other.format(firm),),
            )


def _name(draw: random.Random) -> str:
    syllables = "bar den gal hol mir nor pel ros tam vin wes yor".split()
    return "".join(draw.choices(syllables, k=2)).capitalize()


@dataclass
class Bench:
    """A model under watch, and the file of its edits."""

    make: Callable[..., EditableModel]
    model: EditableModel
    path: Path
    encoder: Encoder
    every: int
    draw: random.Random
    fed: int = 0

    @classmethod
    @contextmanager
    def open(
        cls, make: Callable[..., EditableModel], path: Path, encoder: Encoder, every: int
    ) -> Iterator["Bench"]:
        """`make(store=, monitor=)` gives the model."""

        watched = Monitoring(
            every_edits=every, sample=SAMPLE, budget_seconds=BUDGET_SECONDS, policy="quarantine"
        )
        with make(store=path, monitor=watched) as model:
            yield cls(make, model, path, encoder, every, random.Random(0))

    @property
    def alarms(self) -> list[tuple[int, Alarm]]:
        """Every alarm, and how many edits had been fed when it was raised."""
        readings = enumerate(self.model.readings(), 1)
        return [(i * self.every, alarm) for i, reading in readings for alarm in alarms_of(reading)]

    def feed(self, edit: Edit) -> int:
        """Record an edit; then, if a reading is due, wait for it."""
        (recorded,) = self.model.edit_many([edit])
        self.fed += 1
        until = monotonic() + PATIENCE
        while len(self.model.readings()) < self.fed // self.every:
            if monotonic() > until:
                raise TimeoutError("there is no reading")
            sleep(0.05)
        return recorded.id

    def smuggle(self, edit: Edit, vector: np.ndarray, patch: Patch | None = None) -> int:
        """Record an edit without asking anyone."""
        patch = patch or Hint(edit.method, (f"{edit.prompt} {edit.target}.",))
        with Journal.tend(self.path) as journal:
            return journal.record([edit], patch, vector.astype(np.float32).reshape(1, -1))[0].id


def fires_on_everything(bench: Bench) -> int:
    """A word that all sorts of sentences have for a subject, a vector near to what is said of it.

    "The" would be in more of them, but the subject gate takes no function word for a name.
    """
    sentences = [text.strip() for line in _EVERYDAY.splitlines() for text in line.split("|")]
    mean = bench.encoder.encode([masked(text, "about") or text for text in sentences]).mean(axis=0)
    everywhere = Edit("What about about?", "Gudrun Ostberg", subject="about")
    return bench.smuggle(everywhere, mean / np.linalg.norm(mean))


def conflicts(bench: Bench) -> int:
    """The very question of a live edit, another answer, and nothing superseded."""
    rival = bench.draw.choice(bench.model.list("live"))
    edit = Edit(rival.prompt, "Gudrun Ostberg", subject=rival.subject, relation=rival.relation)
    text = masked(edit.prompt, edit.subject or "") or edit.prompt
    return bench.smuggle(edit, bench.encoder.encode([text])[0])


def garbled(bench: Bench) -> int:
    """Another vector in an edit's row, behind the journal's back."""
    id = bench.draw.choice(bench.model.list("live")).id
    noise = np.random.default_rng(bench.draw.random().hex().encode()[3]).normal(
        size=bench.encoder.dim
    )
    vector = (noise / np.linalg.norm(noise)).astype("<f4").tobytes()
    with sqlite3.connect(bench.path) as db:
        db.execute("UPDATE content SET vector = ? WHERE edit = ?", (vector, id))
    db.close()
    return id


def garbage(bench: Bench) -> int:
    """A target that no language would say."""
    target = " ".join("".join(bench.draw.choices(_NOISE, k=8)) for _ in range(6))
    return bench.feed(Edit("Who is the chairman of Quillon Shipping?", target))


def scaled(bench: Bench) -> int:
    """The change of weights that MEMIT finds for an edit, fifty times over."""
    edit = Edit("Who is the chairman of Tandem Freight?", "Gudrun Ostberg", method="memit")
    aside = bench.path.with_name("aside.db")
    with bench.make(store=aside) as model, Journal.read(aside) as journal:
        id = model.edit_many([edit], method=edit.method)[0].id
        patch, (_, vector) = journal.patches(ids=[id])[0].patch, journal.vectors([id])
    assert isinstance(patch, Delta)
    grown = {name: replace(factors, u=50 * factors.u) for name, factors in patch.factors.items()}
    return bench.smuggle(edit, vector, replace(patch, factors=grown))


# While the delta is in the weights every reply is strange: what follows is found out because the
# monitor quarantines the delta. Damage comes after it: that past cannot be rebuilt.
FAULTS: Mapping[str, tuple[Callable[[Bench], int], str]] = {
    "a scope that fires on everything": (fires_on_everything, "false fires"),
    "a weight delta scaled x50": (scaled, "locality"),
    "a conflicting edit": (conflicts, "conflict"),
    "a garbled stored vector": (garbled, "damage"),
    "a garbage target": (garbage, "strange reply"),
}


def drill(bench: Bench, edits: Iterator[Edit], n: int, faults: Sequence[str]) -> dict[str, Any]:
    """Feed `n` edits, each of the `faults` at its place among them; what the monitor made of it."""
    places = {(i + 1) * n // (len(faults) + 1): name for i, name in enumerate(faults)}
    planted: dict[str, tuple[int, int]] = {}
    while bench.fed < n:
        if name := places.pop(bench.fed, None):
            planted[name] = (bench.fed, FAULTS[name][0](bench))
        with suppress(EditRefused):  # a second record of the same
            bench.feed(next(edits))
    culprits = {id for _, id in planted.values()}
    return {
        "edits": bench.fed,
        "readings": len(bench.model.readings()),
        "seconds a reading": [reading.body["seconds"] for reading in bench.model.readings()],
        "faults": {name: verdict(bench, name, *found) for name, found in planted.items()},
        "alarms without a cause": [
            alarm.to_json() for _, alarm in bench.alarms if culprits.isdisjoint(alarm.suspects[:3])
        ],
    }


def verdict(bench: Bench, name: str, planted: int, culprit: int) -> dict[str, Any]:
    """When the alarm of its kind that names the culprit was raised, and its place, from 1."""
    for fed, alarm in bench.alarms:
        if alarm.kind == FAULTS[name][1] and culprit in alarm.suspects and fed >= planted:
            place = alarm.suspects.index(culprit) + 1
            return {"raised after edits": fed - planted, "place among suspects": place}
    return {"raised after edits": None, "place among suspects": None}


def main(*runs: str) -> None:
    """Print what became of each run as one JSON object."""
    encoder = load_encoder("minilm")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for run in runs or ("clean", "faulty"):
            make = partial(EditableModel.from_pretrained, MODEL, encoder=encoder)
            with Bench.open(make, Path(folder) / f"{run}.db", encoder, EVERY) as bench:
                faults = list(FAULTS) if run == "faulty" else []
                result[run] = drill(bench, records(), EDITS, faults)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
