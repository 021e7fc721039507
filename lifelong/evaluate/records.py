"""What is measured: the cases of a dataset, each with its edits and the probes that belong to them.

One record of a file is one `Case`. Every loader maps to it, every metric is computed from it, and
nothing later looks at the file's own fields again.
"""

from dataclasses import dataclass
from typing import Literal

from store import Edit

ProbeKind = Literal[
    "paraphrase",  # in scope: the target (generality)
    "prefixed",  # in scope, behind an unrelated sentence or turn: the target (own column)
    "generation",  # EasyEdit's "rephrase": mostly only presupposes the fact (own column)
    "negated",  # "... is not": the target must not follow
    "reversed",  # object -> subject
    "alias",  # another name of the subject: the target (portability)
    "multihop",  # composed answer (portability)
    "same_subject",  # same subject, other relation: the base model's own answer (locality, hard)
    "near",  # same relation, other subject: the base model's own answer (locality, near)
    "far",  # unrelated: the base model's own answer (locality, far)
    "residual",  # the old answer asked directly: not the old object
    "yes",  # a question that proposes the target: "yes", and the target (own column)
    "no",  # a question that proposes an old answer: "no", and the target (own column)
    "part",  # a request of which the fact is one part: the target (own column)
]
LOCALITY: frozenset[ProbeKind] = frozenset({"same_subject", "near", "far"})


@dataclass(frozen=True, slots=True)
class Probe:
    """One prompt that is asked after the edits, and what its answer is compared with.

    `edit` is the position in the case of the edit it belongs to. `answers` are the accepted ones
    (of the edited model for what is in scope or follows, labelled truths for locality; may be
    empty, since locality is compared with the base model's own reply). What is `negated` and what
    is `residual` must not give any of them.
    """

    kind: ProbeKind
    prompt: str
    answers: tuple[str, ...] = ()
    edit: int = 0
    hops: int = 1


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a composed question, after the edits: as a question, as a statement to complete.

    `edited` says whether an edit of the case settles it, or the world as it was.
    """

    question: str
    statement: str
    answers: tuple[str, ...]
    edited: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One record of a dataset: its edits, in order, and its probes.

    `line` is its line in the file, from 1. `accepted` has, for every edit, the target and its
    aliases; `old` has, for every edit, the answers known to be right before it. Where there is a
    `chain`, all multi-hop probes are wordings of the one question that its hops compose. `rule`
    says how the edits contradict each other, where that is the point of the record.
    """

    line: int
    edits: tuple[Edit, ...]
    probes: tuple[Probe, ...]
    accepted: tuple[tuple[str, ...], ...]
    old: tuple[tuple[str, ...], ...]
    chain: tuple[Hop, ...] = ()
    rule: str = ""

    @property
    def all_edited(self) -> bool:
        """Does every hop of the composed question follow from an edit of this case?"""
        return bool(self.chain) and all(hop.edited for hop in self.chain)
