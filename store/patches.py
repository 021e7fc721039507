"""Patches: what a method made of one or more edits, and its bytes.

A patch is stored as one safetensors blob: one metadata entry holds its kind and its JSON part
(one, because safetensors orders several at random), the tensors are the tensors. Nothing is
ever unpickled.
"""

import json
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from store.errors import DamagedPatch
from store.records import canonical

Tensors: TypeAlias = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Hint:
    """One text per edit of the patch, in order, for a method that answers from memory."""

    kind: ClassVar[str] = "hint"

    method: str
    texts: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """The safetensors blob of this patch; equal patches give equal bytes."""
        return _pack({"kind": self.kind, "method": self.method, "texts": self.texts}, {})

    @classmethod
    def from_bytes(cls, blob: bytes) -> "Hint":
        """The hint in `blob`; DamagedPatch when there is none."""
        patch = from_bytes(blob)
        if not isinstance(patch, cls):
            raise DamagedPatch(f"This is a {patch.kind} patch, not a {cls.kind}")
        return patch

    def without(self, position: int) -> "Hint":
        """This patch when the edit at `position` is erased: nothing of its text is left."""
        return Hint(self.method, (*self.texts[:position], "", *self.texts[position + 1 :]))

    @classmethod
    def _unpack(cls, body: Mapping[str, Any], tensors: Tensors) -> "Hint":
        method, texts = body["method"], body["texts"]
        if tensors or not all(isinstance(text, str) for text in [method, *texts]):
            raise ValueError("a hint holds a method, its texts and nothing else")
        return cls(method, tuple(texts))


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The change of one weight (out, in), column by column: each column belongs to one edit.

        change = U M^-1 V^T        over the columns of the live edits only

    M couples the edits that were solved together: without one of them the change is solved anew,
    by linear algebra alone. `keys` (k, r or 0) are what a method must know later of the columns it
    wrote: what they answer to, for example. float32; `mix` is float64.
    """

    u: np.ndarray  # (out, r)
    v: np.ndarray  # (in, r)
    mix: np.ndarray  # (r, r)
    owner: np.ndarray  # (r,) int64: the position of the edit in its patch
    keys: np.ndarray  # (k, r), or (k, 0)

    def __post_init__(self) -> None:
        (out, r), (width, _) = self.u.shape, self.v.shape
        expected = {"v": (width, r), "mix": (r, r), "owner": (r,)}
        if (
            self.keys.ndim != 2
            or self.keys.shape[1] not in (r, 0)
            or any(getattr(self, name).shape != shape for name, shape in expected.items())
        ):
            raise ValueError(f"these are no factors of a ({out}, {width}) weight of rank {r}")

    def change(self, live: Collection[int]) -> np.ndarray:
        """What is added to the weight while the edits at these positions are live: (out, in)."""
        kept = self.of(live)
        inner = np.linalg.solve(kept.mix, kept.v.T.astype(np.float64))
        return np.asarray(kept.u.astype(np.float64) @ inner, np.float32)

    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """`up` (out, r) and `down` (in, r), float32, of which `up down^T` is the change."""
        up = np.linalg.solve(self.mix.T, self.u.T.astype(np.float64)).T
        return up.astype(np.float32), self.v

    def of(self, positions: Collection[int]) -> "Factors":
        """The columns of the edits at these positions."""
        at = np.flatnonzero(np.isin(self.owner, list(positions)))
        keys = self.keys[:, at] if self.keys.shape[1] else self.keys
        return Factors(self.u[:, at], self.v[:, at], self.mix[np.ix_(at, at)], self.owner[at], keys)


_PARTS = {name: np.float32 for name in ("u", "v", "keys")} | {
    "mix": np.float64,
    "owner": np.int64,
}


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """A low-rank change of weights, by parameter name; `facts` say how it was made."""

    kind: ClassVar[str] = "delta"

    method: str
    factors: Mapping[str, Factors]
    facts: Mapping[str, Any] = field(default_factory=dict)  # plain JSON

    def to_bytes(self) -> bytes:
        """The safetensors blob of this patch; equal patches give equal bytes."""
        names = list(self.factors)
        body = {"kind": self.kind, "method": self.method, "facts": self.facts, "weights": names}
        tensors = {
            f"{place}.{part}": np.ascontiguousarray(getattr(self.factors[name], part), dtype)
            for place, name in enumerate(names)
            for part, dtype in _PARTS.items()
        }
        return _pack(body, tensors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Delta) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def without(self, position: int) -> "Delta":
        """This patch when the edit at `position` is erased: none of its columns is left."""
        rest = {
            name: factors.of(set(factors.owner.tolist()) - {position})
            for name, factors in self.factors.items()
        }
        return Delta(self.method, rest, self.facts)

    @classmethod
    def _unpack(cls, body: Mapping[str, Any], tensors: Tensors) -> "Delta":
        if any(not np.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError("a change of weights must be finite")
        factors = {
            name: Factors(**{part: tensors[f"{place}.{part}"] for part in _PARTS})
            for place, name in enumerate(body["weights"])
        }
        return cls(str(body["method"]), factors, dict(body["facts"]))


Patch: TypeAlias = Hint | Delta
PATCHES: Mapping[str, type[Patch]] = {cls.kind: cls for cls in (Hint, Delta)}


def from_bytes(blob: bytes) -> Patch:
    """The patch of whatever kind in `blob`; DamagedPatch when it cannot be read."""
    try:
        body = json.loads(_metadata(blob)["patch"])
        return PATCHES[body["kind"]]._unpack(body, load(blob))
    except (SafetensorError, struct.error, ValueError, TypeError, LookupError) as exc:
        raise DamagedPatch(f"A patch of {len(blob)} bytes cannot be read ({exc!r})") from exc


def _pack(body: Mapping[str, object], tensors: Tensors) -> bytes:
    return save(dict(tensors), {"patch": canonical(body)})


def _metadata(blob: bytes) -> dict[str, str]:
    """safetensors reads metadata from files only: u64 header length, then JSON."""
    (length,) = struct.unpack_from("<Q", blob)
    metadata: dict[str, str] = json.loads(blob[8 : 8 + length])["__metadata__"]
    return metadata
