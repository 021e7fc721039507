"""Patches: what a method made of one or more edits, and its bytes.

A patch is stored as one safetensors blob: one metadata entry holds its kind and its JSON part
(one, because safetensors orders several at random), the tensors are the tensors. Nothing is
ever unpickled.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
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


Patch: TypeAlias = Hint
PATCHES: Mapping[str, type[Patch]] = {cls.kind: cls for cls in (Hint,)}


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
