"""What a run is asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Order = Literal["given", "shuffled"]


@dataclass(frozen=True, slots=True)
class Config:
    """The options of `lifelong eval`. `edits` (None: all) and `checkpoints` count records.

    Without checkpoints, the end is the only one. The baselines are asked about a sample of so many
    edits as `compared` (None: all that are scored). Of the text `perplexity`, so many `windows` of
    512 tokens are read (None: all). With `multihop`, what follows from several edits is answered,
    too, and composed questions of so many cases as `probes` are asked without and with facts.
    """

    file: Path
    out: Path
    model: str = "smollm2-135m"
    encoder: str = "minilm"
    method: str = "serac"
    protocol: str = "chat"
    edits: int | None = None
    checkpoints: tuple[int, ...] = ()
    seed: int = 0
    order: Order = "given"
    batch: int = 1
    baselines: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    probes: int = 100
    scalability: int = 20
    perplexity: Path | None = None
    windows: int | None = 20
    all_probes: bool = False
    compared: int | None = None
    multihop: bool = False
