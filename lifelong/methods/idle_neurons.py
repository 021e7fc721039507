"""Idle neurons: one neuron a fact, in the weights, in place of one that does next to nothing.

    MLP(x) = W_out (act(W_gate x) * W_in x)         x: what enters the MLP; no gate: act(W_in x)
    s(x)   = w.(x - m)                              1 at the subject, 0 at m, the mean of all x
    gate   = sharp (s(x) - rim) / (1 - rim)         in = s(x)   out = v / what it is at the subject

Our own cross of two papers. The value v is sought, and read at the subject, as MEMIT's (Meng et
al., 2023); but a product with a key reaches every other text a little, so here it stands behind a
neuron that fires at the subject only, as T-Patcher's do at a mistake (Huang et al., 2023). Nothing
is added to the model: of the neurons that no stored edit has, those are overwritten that write
least, mean a^2 |W_out column|^2. w moves least over ordinary text of all that give 1 at the subject
in all wordings, and 0 at whatever came nearest, other edits' subjects among that. No bias is
needed: the number 1 is nearly a linear function of x, for the norm before the MLP leaves something
constant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from lifelong import moments, sample
from lifelong.errors import UpdateRejected
from lifelong.hooks import tracing
from lifelong.lm import LM, Role
from lifelong.methods import memit
from lifelong.methods.blocks import padded
from lifelong.methods.keys_values import SPAN, Search, fitted, normed, seek
from lifelong.methods.wording import Wording, wordings
from lifelong.weights import matrix
from store import Delta, Edit, Factors, StoredPatch

# As MEMIT's here, on a longer leash: what one edit adds reaches no other.
SEARCH = replace(memit.SEARCH, clamp=1.0)

_BATCH = 32  # texts
_NEAREST = 30  # states that are held at 0
_ALIKE = 0.8  # s from which a state is the subject's own
_FAINT = 1.0  # the least activation that a column is made for
_FLOOR = 0.01  # added to a covariance's diagonal, as a share of its mean


@dataclass(frozen=True, slots=True)
class IdleNeurons:
    """One neuron an edit, all in one layer, which is the one with the idlest neurons left.

    Options: the `rim` from which a neuron fires, its activation at the subject (`sharp`), how hard
    single states are `held`, and the `share` of a layer's neurons that may be overwritten.
    """

    name: ClassVar[str] = "idle-neurons"
    by_subject: ClassVar[bool] = True

    search: Search = SEARCH
    rim: float = 0.6
    sharp: float = 5.0
    held: float = 16.0
    share: float = 0.25
    rounds: int = 5  # of fitting, see `fitted`

    def layers(self, lm: LM) -> range:
        """From the first quarter on (7 to 11 of 30): facts are recalled there."""
        first = lm.layers // 4
        return range(first, min(first + SPAN, lm.layers))

    def prepare(self, lm: LM) -> None:
        """How much the neurons of the layers do, and what enters their MLPs."""
        moments.ensure(lm, self.layers(lm))
        for layer in self.layers(lm):
            sample.ensure(lm, lm.path("mlp_in", layer))

    def propose(self, lm: LM, edits: Sequence[Edit], live: Sequence[StoredPatch]) -> Delta:
        """All edits in one change. Raises UpdateRejected where no idle neurons are left."""
        layer, neurons = self._idle(lm, len(edits), live)
        opens = _opens(lm)
        texts = wordings(lm, edits)
        site: Role = "mlp_out" if normed(lm) else "block"
        values = seek(lm, texts, layer, replace(self.search, sites=(site,)))
        own = [text for text in texts if text.kind != "essence"]
        states = _states(lm, own, layer).view(len(edits), -1, lm.hidden)
        others = _answered(live, _name(lm, opens[0], layer), lm.hidden)
        near, one = self._reads(lm, layer, states, others)
        gate = self.sharp / (1 - self.rim) * (near - self.rim * one)
        rows = dict(zip(opens, (gate, near), strict=False))
        active = torch.stack([(states @ row[:, :, None])[:, :, 0] for row in rows.values()])
        active = active.clamp(min=0).prod(0).mean(1).clamp(min=_FAINT)  # (N,)
        rows = {
            role: row - _bias(lm, role, layer, neurons)[:, None] * one for role, row in rows.items()
        }
        says = values.shift[site].cpu() / active[:, None]

        def written(scale: torch.Tensor) -> dict[str, Factors]:
            new = {**rows, "mlp_out": says * scale[:, None]}
            return _overwritten(lm, layer, neurons, new, states.mean(1))

        facts = {"moments": moments.moment(lm, layer).id, "loss": values.loss.tolist()}
        return Delta(self.name, fitted(lm, texts, written, self.rounds), facts)

    def _idle(self, lm: LM, number: int, live: Sequence[StoredPatch]) -> tuple[int, torch.Tensor]:
        """A layer and its `number` neurons that write least, of those that no edit has."""
        found: list[tuple[float, int, torch.Tensor]] = []
        for layer in self.layers(lm):
            lengths = _neurons(lm, "mlp_out", layer).double().square().sum(1)
            writes = moments.moment(lm, layer).matrix.diagonal() * lengths
            taken = _taken(live, _name(lm, "mlp_out", layer))
            if len(taken) + number <= self.share * len(writes):
                writes[taken] = torch.inf
                least = writes.topk(number, largest=False)
                found.append((float(least.values.sum()), layer, least.indices))
        if not found:
            raise UpdateRejected(
                f"No layer has {number} idle neurons left for edits.",
                "Nothing was installed; edit fewer facts at once, release some from the weights, "
                "or use a memory method.",
            )
        _, layer, neurons = min(found, key=lambda one: one[:2])
        return layer, neurons

    def _reads(
        self, lm: LM, layer: int, states: torch.Tensor, others: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What gives s(x) (N, H) and what gives 1 (H,) of a state x, float64.

        s is to be 1 at the `states` (N, wordings, H), and 0 at earlier edits' subjects, `others`
        (p, H).
        """
        usual = sample.sample(lm, lm.path("mlp_in", layer)).cpu().double()
        mean, own = usual.mean(0), states - usual.mean(0)
        root = torch.linalg.cholesky(_floored((usual - mean).T @ (usual - mean) / len(usual)))
        full = own.new_ones(own.shape[:2])
        w = _least(root, own, full, self.held)
        away = torch.cat([usual, others, states.mean(1)]) - mean
        s = away @ w.T  # (m, N)
        s[s > _ALIKE] = -torch.inf  # the subject itself, in another edit perhaps
        nearest = away[s.topk(min(_NEAREST, len(away)), dim=0).indices.T]  # (N, nearest, H)
        wanted = torch.cat([full, own.new_zeros(nearest.shape[:2])], 1)
        w = _least(root, torch.cat([own, nearest], 1), wanted, self.held)
        one = torch.linalg.solve(_floored(usual.T @ usual / len(usual)), mean)
        return w - (w @ mean)[:, None] * one, one


def _least(
    root: torch.Tensor, states: torch.Tensor, wanted: torch.Tensor, held: float
) -> torch.Tensor:
    """w (N, H), which of all w moves least over ordinary text, and gives what is `wanted` (N, k) of
    `states` (N, k, H): min w' S w + held / d |states w - wanted|^2, S = root root', and d the mean
    of x' S^-1 x over the states x of which 1 is wanted."""
    solved = torch.cholesky_solve(states.flatten(0, 1).T, root).T.view_as(states)
    inner = states @ solved.mT
    ones = wanted == 1
    sizes = (inner.diagonal(dim1=1, dim2=2) * ones).sum(1) / ones.sum(1)  # (N,)
    inner = inner + torch.diag_embed((sizes / held)[:, None].expand_as(wanted))
    w: torch.Tensor = (solved.mT @ torch.linalg.solve(inner, wanted[:, :, None]))[:, :, 0]
    return w


def _floored(matrix: torch.Tensor) -> torch.Tensor:
    floor = _FLOOR * matrix.diagonal().mean()
    return matrix + floor * torch.eye(len(matrix), dtype=matrix.dtype)


def _states(lm: LM, texts: Sequence[Wording], layer: int) -> torch.Tensor:
    """What enters the MLP at the subject of each text, (n, H) float64."""
    module, found = lm.module("mlp_in", layer), list[torch.Tensor]()
    for start in range(0, len(texts), _BATCH):
        rows = [(*text.head, text.tail[0]) for text in texts[start : start + _BATCH]]
        ids, mask = (part.to(lm.device) for part in padded(rows))
        seen: list[torch.Tensor] = []

        def look(entered: torch.Tensor, _: torch.Tensor, seen: list[torch.Tensor] = seen) -> None:
            seen.append(entered)

        with torch.no_grad(), tracing(after={module: look}, stop=module):
            lm.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        found.append(seen[0][range(len(rows)), [len(row) - 1 for row in rows]].cpu().double())
    return torch.cat(found)


def _opens(lm: LM) -> tuple[Role, ...]:
    """What opens a neuron, and what fills it where that is another matrix."""
    gated = lm.layout is not None and lm.layout.mlp_gate is not None
    return ("mlp_gate", "mlp_in") if gated else ("mlp_in",)


def _name(lm: LM, role: Role, layer: int) -> str:
    return f"{lm.path(role, layer)}.weight"


def _neurons(lm: LM, role: Role, layer: int) -> torch.Tensor:
    """What each neuron has of a matrix, (d_ff, H) float32."""
    whole = matrix(lm, lm.path(role, layer)).cpu()
    return whole.T if role == "mlp_out" else whole


def _bias(lm: LM, role: Role, layer: int, neurons: torch.Tensor) -> torch.Tensor:
    """(N,), which stays as it is, so the rows make up for it."""
    bias = getattr(lm.module(role, layer), "bias", None)
    return torch.zeros(len(neurons)) if bias is None else bias.detach().cpu()[neurons]


def _overwritten(
    lm: LM,
    layer: int,
    neurons: torch.Tensor,
    new: Mapping[Role, torch.Tensor],
    states: torch.Tensor,
) -> dict[str, Factors]:
    """The change that gives `neurons` (N,) the `new` rows (N, H) of each matrix."""
    factors = {}
    for role, rows in new.items():
        old = _neurons(lm, role, layer)
        place = np.eye(len(old), dtype=np.float32)[:, neurons.tolist()]
        change = (rows - old[neurons]).T.float().numpy()
        out = role == "mlp_out"
        factors[_name(lm, role, layer)] = Factors(
            u=change if out else place,
            v=place if out else change,
            mix=np.eye(len(neurons)),
            owner=np.arange(len(neurons)),
            keys=np.zeros((0, 0), np.float32) if out else states.T.float().numpy(),
        )
    return factors


def _taken(live: Sequence[StoredPatch], name: str) -> torch.Tensor:
    """The neurons that stored edits have, live or not: what is undone may be redone."""
    taken = [factors.v.argmax(0) for factors in _mine(live, name)]
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *taken]))


def _answered(live: Sequence[StoredPatch], name: str, width: int) -> torch.Tensor:
    """The subjects' states (p, H) of stored edits, float64."""
    keys = [factors.keys for factors in _mine(live, name)]
    return torch.from_numpy(np.concatenate([np.zeros((width, 0)), *keys], axis=1).T)


def _mine(live: Sequence[StoredPatch], name: str) -> list[Factors]:
    return [
        stored.patch.factors[name]
        for stored in live
        if isinstance(stored.patch, Delta) and stored.patch.method == IdleNeurons.name
        if name in stored.patch.factors
    ]
