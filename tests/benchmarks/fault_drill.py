"""Five faults among 300 edits: does the monitor raise its alarm, and whom does it name?

    python tests/benchmarks/fault_drill.py [clean] [faulty]

Feeds 300 edits, a reading after every 50: as they are (clean), and with faults that got past
admission spread over the stream (faulty); both, unless told which. Prints, for every fault, after
how many edits its alarm was raised, the culprit's place among the suspects, and the alarms that had
no cause. The edits are those of KnowEdit's zsRE (`../shared/data`) or, where that is missing, made
up.
"""

import json
import random
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np

from lifelong import Alarm, EditableModel, Monitoring
from lifelong.alarms import alarms_of
from lifelong.encoder import Encoder, load_encoder
from lifelong.errors import EditRefused
from lifelong.subject import masked
from store import Edit, Hint, Journal

MODEL = "smollm2-135m"
DATA = Path(__file__).parents[2] / "../shared/data/zsre/knowedit-dev.jsonl"
EDITS, EVERY, SAMPLE = 300, 50, 20  # SAMPLE: older edits in a reading
BUDGET_SECONDS = 150.0  # other work may share the machine
PATIENCE = 600.0  # seconds for a reading

_EVERYDAY = """\
Where did I put the keys? | What time does the shop close? | Who left the door open?
How do I clean the oven? | The weather was lovely at the weekend. | Is the milk still good?
What is the matter with the printer? | Could you pass the salt? | I missed the bus.
Why does the floor creak? | How big is the garden? | When does the film start?
What colour was the car? | Turn off the light before you leave. | Who won the match?
How much is the ticket? | The dog chased the ball. | What is the use of a hammer?"""
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

        watched = Monitoring(every_edits=every, sample=SAMPLE, budget_seconds=BUDGET_SECONDS)
        with make(store=path, monitor=watched) as model:
            yield cls(model, path, encoder, every, random.Random(0))

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

    def smuggle(self, edit: Edit, vector: np.ndarray) -> int:
        """Record an edit without asking anyone."""
        hint = Hint(edit.method, (f"{edit.prompt} {edit.target}.",))
        with Journal.tend(self.path) as journal:
            return journal.record([edit], hint, vector.astype(np.float32).reshape(1, -1))[0].id


def fires_on_everything(bench: Bench) -> int:
    """A subject that is in every other sentence, a vector that is near to what is said of it."""
    sentences = [text.strip() for line in _EVERYDAY.splitlines() for text in line.split("|")]
    mean = bench.encoder.encode([masked(text, "the") or text for text in sentences]).mean(axis=0)
    everywhere = Edit("What is the?", "Gudrun Ostberg", subject="the")
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


FAULTS: Mapping[str, tuple[Callable[[Bench], int] | None, str]] = {
    "a scope that fires on everything": (fires_on_everything, "false fires"),
    "a weight delta scaled x50": (None, "accuracy"),
    "a conflicting edit": (conflicts, "conflict"),
    "a garbled stored vector": (garbled, "damage"),
    "a garbage target": (garbage, "strange reply"),
}
READY = [name for name, (plant, _) in FAULTS.items() if plant]


def drill(bench: Bench, edits: Iterator[Edit], n: int, faults: Sequence[str]) -> dict[str, Any]:
    """Feed `n` edits, each of the `faults` at its place among them; what the monitor made of it."""
    places = {(i + 1) * n // (len(faults) + 1): name for i, name in enumerate(faults)}
    planted: dict[str, tuple[int, int]] = {}
    while bench.fed < n:
        if (name := places.pop(bench.fed, None)) and (plant := FAULTS[name][0]):
            planted[name] = (bench.fed, plant(bench))
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
    result: dict[str, Any] = {name: "not yet: no deltas" for name in FAULTS if name not in READY}
    with tempfile.TemporaryDirectory() as folder:
        for run in runs or ("clean", "faulty"):
            make = partial(EditableModel.from_pretrained, MODEL, encoder=encoder)
            with Bench.open(make, Path(folder) / f"{run}.db", encoder, EVERY) as bench:
                faults = READY if run == "faulty" else []
                result[run] = drill(bench, records(), EDITS, faults)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
