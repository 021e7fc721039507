"""What the locate-and-write methods share: keys, target values, and the write that joins them.

An MLP's output matrix W is read as a memory: the input at the subject's last token is a *key* k,
the output Wk its *value* (Meng et al. 2022). An edit finds the value v* under which the model says
the target, and changes W so that it answers k with v*, and all other keys as before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch

from lifelong.errors import UpdateRejected
from lifelong.hooks import After, tracing
from lifelong.lm import LM, Role
from lifelong.methods.blocks import Blocks, padded
from lifelong.methods.wording import Wording
from lifelong.moments import Moment
from store import Factors

TOKENS = 512  # of wordings that run as one batch, padding included
READ = 2  # wordings of an edit that a step of the search reads, where it reads them in turn

_MARGIN = 0.5  # of the logit of each of a target's tokens over the likeliest other one's
_LONGER = 1.15  # what a change is multiplied with in a round of fitting
_LONGEST = 2.0  # and at most, over all rounds
_SINGULAR = 1e9  # the condition from which on a batch asks two things of one key
_FLOOR = 1e-4  # added to C's diagonal, as a share of its mean: C of a short text has no inverse


# --- target values --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """How target values are sought; the defaults are MEMIT's."""

    sites: tuple[Role, ...] = ("block",)  # outputs that are shifted, all at one layer
    steps: int = 25
    rate: float = 0.5  # Adam's
    clamp: float = 0.75  # the longest shift, as a share of what it shifts
    decay: float = 0.5
    kl: float = 0.0625  # the weight of "{subject} is a" staying what it is
    enough: float = 0.05  # the loss at which an edit is done
    said: float = 1.0  # the weight of a target token that is the likeliest already
    replaces: bool = False  # whether every wording gets the bare one's value, shifted
    together: bool = False  # whether a step reads all wordings of an edit, in one batch
    coarse: bool = False  # matrices multiplied in bfloat16, where the processor does so at once


@dataclass(frozen=True)
class Values:
    """Per site, (N, H): what the bare wordings give at the subject, and the shift that is sought.

    `loss` (N,) is that of every edit over its last round.
    """

    before: Mapping[Role, torch.Tensor]
    shift: Mapping[Role, torch.Tensor]
    loss: torch.Tensor


@torch.inference_mode(False)  # whatever the caller has switched off
@torch.enable_grad()
def seek(lm: LM, texts: Sequence[Wording], layer: int, how: Search) -> Values:
    """The values at the subject's last token of `layer` under which every target is said.

        loss = mean NLL of the target's tokens + kl KL(before || now | "{subject} is a")
               + decay |shift| / |value|^2

    Adam on all edits together. A step reads the bare wording and one of the others, in turn: they
    pull alike, and each costs as much as the bare one. An edit whose loss over the last round of
    turns is low is left alone. The clamp follows every step, the last of which only evaluates.
    """
    n = 1 + max(text.edit for text in texts)
    rounds, read = ([texts], len(texts) // n) if how.together else (_rounds(texts), READ)
    always, *turns = [
        [_Group(lm, part, layer, how.sites, read) for part in _grouped(some, lambda t: len(t.tail))]
        for some in rounds
    ]
    before = {site: torch.zeros(n, lm.hidden, device=lm.device) for site in how.sites}
    for group in always:
        for site, seen in group.look().items():
            before[site][group.edit[group.bare]] = seen[group.bare]
    if how.replaces:
        for group in (*always, *(group for turn in turns for group in turn)):
            group.start = {site: value[group.edit] for site, value in before.items()}
    size = {site: value.norm(dim=1, keepdim=True) for site, value in before.items()}
    shifts = {site: _Shift(torch.zeros_like(value), how.rate) for site, value in before.items()}
    with _multiplying(lm.device, how.coarse):
        loss = _descend(always, turns, shifts, size, how)
    return Values(before, {site: shift.value for site, shift in shifts.items()}, loss)


def _descend(
    always: list["_Group"],
    turns: list[list["_Group"]],
    shifts: Mapping[Role, "_Shift"],
    size: Mapping[Role, torch.Tensor],
    how: Search,
) -> torch.Tensor:
    """Move the shifts down the loss; the loss (N,) of every edit over its last round."""
    n, device = next((len(length), length.device) for length in size.values())
    lately = torch.full((max(1, len(turns)), n), torch.inf, device=device)
    todo = torch.ones(n, dtype=torch.bool, device=device)
    for step in range(how.steps):
        leaves = {site: shift.leaf() for site, shift in shifts.items()}
        now = torch.stack([how.decay * leaves[s].norm(dim=1) / size[s][:, 0] ** 2 for s in leaves])
        now = now.sum(0)
        now.sum().backward(inputs=list(leaves.values()))
        now = now.detach()
        turn = step % len(lately)
        for groups in (always, *turns[turn : turn + 1]):
            groups[:] = [kept for group in groups if (kept := group.only(todo))]
            for group in groups:
                part = group.loss(leaves, how, n)
                part.sum().backward(inputs=list(leaves.values()))  # no weight gets a gradient
                now += part.detach()
        lately[turn] = torch.where(todo, now, lately[turn])
        todo = lately.mean(0) > how.enough
        if step == how.steps - 1 or not todo.any():
            break
        for site, leaf in leaves.items():
            shifts[site].step(leaf.grad, todo, how.clamp * size[site])
    return lately.mean(0)


def _multiplying(device: torch.device, coarse: bool) -> torch.autocast:
    """Inside the block this thread multiplies matrices in bfloat16, if that is quick here."""
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {"avx512_bf16": True}
    quick = able.get("avx512_bf16") or able.get("amx_bf16")
    return torch.autocast(device.type, torch.bfloat16, enabled=bool(coarse and quick))


class _Shift:
    """Adam (Kingma and Ba, 2015) on rows of which some are done."""

    def __init__(self, value: torch.Tensor, rate: float) -> None:
        self.value = value
        self._rate = rate
        self._mean = torch.zeros_like(value)
        self._square = torch.zeros_like(value)
        self._steps = 0

    def leaf(self) -> torch.Tensor:
        # The norm of nothing has no slope: begin a hair away from it.
        return (self.value + 1e-12).requires_grad_()

    def step(self, slope: torch.Tensor | None, todo: torch.Tensor, longest: torch.Tensor) -> None:
        assert slope is not None
        self._steps += 1
        self._mean = 0.9 * self._mean + 0.1 * slope
        self._square = 0.999 * self._square + 0.001 * slope**2
        mean = self._mean / (1 - 0.9**self._steps)
        root = (self._square / (1 - 0.999**self._steps)).sqrt() + 1e-8
        moved = self.value - self._rate * mean / root
        moved = moved * (longest / moved.norm(dim=1, keepdim=True)).clamp(max=1.0)
        self.value = torch.where(todo[:, None], moved, self.value)


class _Group:
    """Some wordings, alike in length, as one batch through the blocks from `layer` up."""

    def __init__(
        self, lm: LM, texts: Sequence[Wording], layer: int, sites: Sequence[Role], read: int
    ) -> None:
        self._lm, self._read = lm, read
        self._sites = {site: lm.module(site, layer) for site in sites}
        self._blocks = Blocks(
            lm, range(layer, lm.layers), [t.head for t in texts], [t.tail for t in texts]
        )
        self.start: dict[Role, torch.Tensor] = {}  # what is shifted, unless it is what comes out
        self._place(texts)
        self._essence = torch.zeros(len(self._last[0]), 1)

    def look(self) -> dict[Role, torch.Tensor]:
        """What the sites give at the subject, (B, H) each; what is said of it is kept."""
        seen: dict[Role, torch.Tensor] = {}

        def keeper(site: Role) -> Callable[..., None]:
            return lambda _, out: seen.update({site: out[:, 0].float()})

        with torch.no_grad(), tracing(after={m: keeper(s) for s, m in self._sites.items()}):
            self._essence = self._logits(self._blocks.run(self._blocks.start), *self._last)
        return seen

    def _place(self, texts: Sequence[Wording]) -> None:
        """Which rows are bare; where labels are predicted, which, and how much each weighs."""
        self._texts, device = texts, self._lm.device
        self.edit = torch.tensor([t.edit for t in texts], device=device)
        self.bare = torch.tensor([t.kind == "bare" for t in texts], device=device)
        spots = [
            (row, place, label, 1 / (self._read * len(t.labels)))
            for row, t in enumerate(texts)
            for place, label in t.spots
        ]
        places = torch.tensor([spot[:3] for spot in spots], device=device).reshape(-1, 3)
        self._spots, self._labels = places[:, :2].unbind(1), places[:, 2]
        self._weights = torch.tensor([spot[3] for spot in spots], device=device)
        ends = [(row, len(t.tail) - 1) for row, t in enumerate(texts) if t.kind == "essence"]
        self._last = torch.tensor(ends, device=device, dtype=torch.long).reshape(-1, 2).unbind(1)

    def only(self, todo: torch.Tensor) -> "_Group | None":
        """The rows of the edits that are not done; None where there are none."""
        kept = todo[self.edit]
        if kept.all():
            return self
        if not kept.any():
            return None
        rows, few = kept.nonzero()[:, 0], copy(self)
        few._blocks = self._blocks.only(rows)
        few._essence = self._essence[kept[self._last[0]]]
        few.start = {site: value[kept] for site, value in self.start.items()}
        few._place([self._texts[row] for row in rows.tolist()])
        return few

    def loss(self, shift: Mapping[Role, torch.Tensor], how: Search, n: int) -> torch.Tensor:
        """What these wordings add to the loss of each of `n` edits, (n,)."""
        acts = {module: self._shifted(site, shift[site]) for site, module in self._sites.items()}
        with tracing(after=acts):
            out = self._blocks.run(self._blocks.start)
        said = self._logits(out, *self._spots)
        nll = -said.gather(1, self._labels[:, None])[:, 0] * self._weights
        nll = torch.where(said.argmax(1) == self._labels, how.said * nll, nll)
        loss = out.new_zeros(n, dtype=torch.float32)
        loss = loss.index_add(0, self.edit[self._spots[0]], nll)
        drift = (self._essence.exp() * (self._essence - self._logits(out, *self._last))).sum(1)
        return loss.index_add(0, self.edit[self._last[0]], how.kl * drift)

    def _logits(self, out: torch.Tensor, rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (n, vocabulary) at some positions: the head is dear."""
        normed = self._lm.module("final_norm")(out[rows, at])
        return self._lm.head(normed).float().log_softmax(-1)

    def _shifted(self, site: Role, shift: torch.Tensor) -> Callable[..., torch.Tensor]:
        def act(_input: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
            start = self.start[site].to(out.dtype) if self.start else out[:, 0]
            subject = start + shift[self.edit].to(out.dtype)
            return torch.cat([subject[:, None], out[:, 1:]], dim=1)

        return act


def _rounds(texts: Sequence[Wording]) -> list[list[Wording]]:
    """What every step reads, then what one step of a round reads besides."""
    always = [text for text in texts if text.kind in ("bare", "essence")]
    others: dict[int, list[Wording]] = {}
    for text in texts:
        if text.kind not in ("bare", "essence"):
            others.setdefault(text.edit, []).append(text)
    return [always, *map(list, zip(*others.values(), strict=True))]


def _grouped(
    texts: Sequence[Wording], length: Callable[[Wording], int]
) -> Iterator[Sequence[Wording]]:
    """Batches of wordings that are alike in length: padding costs as much as text."""
    ordered = sorted(texts, key=lambda t: (length(t), len(t.head), t.edit), reverse=True)
    while ordered:
        rows = max(1, TOKENS // length(ordered[0]))
        yield ordered[:rows]
        ordered = ordered[rows:]


# --- the write ------------------------------------------------------------------------------------

SPAN = 5  # layers that a batch is spread over

Solve = Callable[[int, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
# (layer, keys (N, in)) -> v (N, in) and mix (N, N), both float64: see `store.Factors`
Change = Mapping[str, Factors]  # by the name of the weight


def early(lm: LM) -> list[int]:
    """The last of the first quarter of the blocks (3 to 7 of 30): facts are recalled there.

    Where MLP outputs are normed before they are added, what a block gives does not follow from the
    write, so one layer must do.
    """
    last = lm.layers // 4
    layers = range(max(0, last - SPAN + 1), last + 1)
    return [last] if normed(lm) else list(layers)


def normed(lm: LM) -> bool:
    """Whether this family norms what its MLPs give."""
    return lm.layout is not None and lm.layout.mlp_norm is not None


def identity_plus(gram: torch.Tensor) -> torch.Tensor:
    """I + gram: edits that are weighed against something give way to it and to each other."""
    return gram + torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def write(
    lm: LM,
    texts: Sequence[Wording],
    wanted: torch.Tensor,
    layers: Sequence[int],
    solve: Solve,
    *,
    site: Role = "block",
    share: Callable[[int], float] = lambda left: 1 / left,
) -> dict[str, Factors]:
    """Changes of the MLP output matrices of `layers` that bring `site` of the last to `wanted`.

    In order: every layer takes its `share` of what is still missing from (N, H), measured with the
    changes below it in place. The model itself is not touched: changes run beside its matrices.
    """
    kinds = dict.fromkeys(t.kind for t in texts if t.kind != "essence")
    parts = [
        _Part(lm, part, range(layers[0], layers[-1] + 1))
        for kind in kinds
        for part in _grouped([t for t in texts if t.kind == kind], lambda t: len(t.head) + 1)
    ]
    factors = {}
    for place, layer in enumerate(layers):
        keys = _mean_keys(parts, layer, len(wanted))
        now = torch.empty_like(wanted)
        for part in parts:
            if part.kind == "bare":
                now[part.edit] = part.reach(layer, layers[-1], site)
        missing = (wanted - now) * share(len(layers) - place)
        change = _factors(missing, keys, *solve(layer, keys))
        factors[f"{lm.path('mlp_out', layer)}.weight"] = change
        if layer != layers[-1]:
            for part in parts:
                part.advance(layer, change)
    return factors


class _Part:
    """Wordings of one kind, up to the subject, on their way through the layers that are edited."""

    def __init__(self, lm: LM, texts: Sequence[Wording], layers: range) -> None:
        self._lm = lm
        self.kind = texts[0].kind
        self.edit = torch.tensor([t.edit for t in texts], device=lm.device)
        self._at = [len(t.head) for t in texts]
        rows = [(*t.head, t.tail[0]) for t in texts]
        self._blocks = Blocks(lm, layers, [()] * len(rows), rows)
        self._layer, self._hidden = layers[0], self._blocks.start

    def keys(self, layer: int) -> torch.Tensor:
        """What enters the MLP's output matrix of `layer` at the subject, (B, in)."""
        hidden = self._raise(layer)
        found: list[torch.Tensor] = []
        module = self._lm.module("mlp_out", layer)
        with tracing(after={module: lambda entered, _: found.append(entered)}, stop=module):
            self._blocks.step(hidden, layer)
        return self._subject(found[0])

    def reach(self, layer: int, last: int, site: Role) -> torch.Tensor:
        """What `site` of layer `last` gives at the subject, (B, H)."""
        found: list[torch.Tensor] = []
        module = self._lm.module(site, last)
        with torch.no_grad(), tracing(after={module: lambda _, out: found.append(out)}):
            self._blocks.run(self._raise(layer), layer)
        return self._subject(found[0])

    def advance(self, layer: int, change: Factors) -> None:
        """Go through `layer` with `change` beside its matrix."""
        down, up = _beside(change, self._hidden.dtype, self._hidden.device)
        module = self._lm.module("mlp_out", layer)
        with torch.no_grad(), tracing(after={module: lambda x, out: out + x @ down @ up}):
            self._hidden = self._blocks.step(self._raise(layer), layer)
        self._layer = layer + 1

    def _raise(self, layer: int) -> torch.Tensor:
        """What enters `layer`: blocks between the edited ones are passed on the way."""
        with torch.no_grad():
            while self._layer < layer:
                self._hidden = self._blocks.step(self._hidden, self._layer)
                self._layer += 1
        return self._hidden

    def _subject(self, found: torch.Tensor) -> torch.Tensor:
        return found[range(len(found)), self._at].detach().float()


@torch.no_grad()
def fitted(
    lm: LM, texts: Sequence[Wording], written: Callable[[torch.Tensor], Change], rounds: int
) -> Change:
    """A change, longer for those edits whose target is not said yet behind the bare prompt.

    `written` makes it of how long what each edit adds is to be, (N,). What is written falls short
    of what was sought: C holds it back, and other edits of the batch pull elsewhere. The paper
    leaves it there; here what such an edit adds grows by a step a round.
    """
    todo = [text for text in texts if text.kind == "bare"]
    scale = torch.ones(len(todo))
    for _ in range(rounds):
        now = written(scale)
        groups = _grouped(todo, lambda t: len(t.head) + len(t.tail))
        short = torch.cat([_short(lm, group, now) for group in groups])
        if not len(short):
            break
        scale[short] = (scale[short] * _LONGER).clamp(max=_LONGEST)
        todo = [text for text in todo if text.edit in short]
    return written(scale)


def _short(lm: LM, texts: Sequence[Wording], change: Change) -> torch.Tensor:
    """The edits (n,) of which some token of the target is not said with this change."""
    ids, mask = (part.to(lm.device) for part in padded([(*t.head, *t.tail) for t in texts]))
    spots = [
        (row, len(t.head) + place, label, t.edit)
        for row, t in enumerate(texts)
        for place, label in t.spots
    ]
    row, at, labels, edit = torch.tensor(spots, device=lm.device).unbind(1)

    def beside(factors: Factors) -> After:
        down, up = _beside(factors, lm.model.dtype, lm.device)
        return lambda entered, out: out + entered @ down @ up

    modules = {lm.model.get_submodule(n.removesuffix(".weight")): f for n, f in change.items()}
    with tracing(after={module: beside(factors) for module, factors in modules.items()}):
        hidden = lm.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    said = lm.head(hidden[row, at]).float()
    own = said.gather(1, labels[:, None])[:, 0]
    other = said.scatter(1, labels[:, None], -torch.inf).amax(1)
    short: torch.Tensor = edit[own < other + _MARGIN].unique()
    return short.cpu()


def scaled(change: Change, scale: torch.Tensor) -> Change:
    """Every edit's part times its `scale` (N,)."""
    return {name: replace(f, u=f.u * scale.numpy()[f.owner]) for name, f in change.items()}


def weigh(known: Moment, keys: torch.Tensor) -> torch.Tensor:
    """(C^-1 k)^T for every key: (N, in), float64. Directions that no text shows get a floor."""
    matrix = known.matrix.to(keys.device)
    floor = _FLOOR * matrix.diagonal().mean()
    whole = matrix + floor * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return torch.cholesky_solve(keys.T.double(), torch.linalg.cholesky(whole)).T


def least_change(known: Mapping[int, Moment], weight: float) -> Solve:
    """MEMIT's system: new keys get what they want, while `weight` C holds what C stands for."""

    def solve(layer: int, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weighed = weigh(known[layer], keys) / weight  # ((weight C)^-1 K)^T
        return weighed, identity_plus(keys.double() @ weighed.T)

    return solve


def _mean_keys(parts: Sequence[_Part], layer: int, n: int) -> torch.Tensor:
    """(n, in): the mean over wordings of one kind, then over kinds, so that each kind counts."""
    kinds: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for part in parts:
        kinds.setdefault(part.kind, []).append((part.edit, part.keys(layer)))
    means = []
    for found in kinds.values():
        edit, keys = (torch.cat(column) for column in zip(*found, strict=True))
        total = keys.new_zeros(n, keys.shape[1]).index_add(0, edit, keys)
        means.append(total / torch.bincount(edit, minlength=n)[:, None])
    return torch.stack(means).mean(0)


def _factors(
    missing: torch.Tensor, keys: torch.Tensor, v: torch.Tensor, mix: torch.Tensor
) -> Factors:
    """As the store keeps them. Raises UpdateRejected for what is no number."""
    if not all(torch.isfinite(part).all() for part in (missing, keys, v, mix)):
        raise UpdateRejected(
            "The values that were sought are no numbers.",
            "Nothing was installed; use float32, other facts, or a memory method.",
        )
    if not torch.linalg.cond(mix) < _SINGULAR:
        raise UpdateRejected(
            "Several edits would be written at one place: their texts are alike up to the subject.",
            "Nothing was installed; make them one after the other, or use memit.",
        )
    return Factors(
        u=missing.T.float().cpu().numpy(),
        v=v.T.float().cpu().numpy(),
        mix=mix.double().cpu().numpy(),
        owner=np.arange(len(missing)),
        keys=keys.T.float().cpu().numpy(),
    )


def _beside(
    change: Factors, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """`x @ down @ up` is what `change` adds to an output: (in, r) and (r, out)."""
    up, down = map(torch.from_numpy, change.pair())
    return down.to(device, dtype), up.T.to(device, dtype)
