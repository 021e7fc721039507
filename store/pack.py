"""A store's edits as a folder that can be sent: JSON lines, safetensors, a manifest of hashes.

edits.jsonl         one edit a line: origin, status, who superseded it, its patch, what was said
edits.safetensors   `ids` (n,) and `vectors` (n, d) of the edits that have one; `patch.N` (bytes,)
manifest.json       the SHA-256 of both, and which store, model and encoder they come from

An edit's origin is the store that first recorded it and its id there, so importing twice, or along
two ways, adds nothing twice. An import is a merge: final states travel, histories do not. Through a
pipe the three files go as one tar stream.
"""

import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import IO, Any, TypeAlias, get_args

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sqlite_utils import Database

from store import chain, life, rows, schema, views
from store.chain import State
from store.errors import DamagedPack
from store.file import sha256_of, sync
from store.patches import Hint, Hook, Patch, Tensors, from_bytes
from store.records import Edit, Reach, Status, canonical

FILES = EDITS, TENSORS, MANIFEST = "edits.jsonl", "edits.safetensors", "manifest.json"
_PATCH = "patch."
_ORIGIN = "pack:"  # pack:STORE:ID is the idempotency key of an imported edit

Line: TypeAlias = dict[str, Any]


def export(db: Database, folder: Path) -> Path:
    """Write the pack; `folder` appears when it is complete, and must not exist before."""
    part = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    try:
        store = schema.meta(db)
        _write(part, store, _lines(db, store["id"]), dict(_tensors(db)))
        for path in (*part.iterdir(), part):
            sync(path)
        os.rename(part, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def import_(db: Database, folder: Path) -> list[int]:
    """Merge the pack into the store; the ids of the edits that were not here yet.

    An edit that is here already keeps its own fate, unless a new one supersedes it.
    """
    store, lines, tensors = _read(folder)
    schema.check_made_for(db, store)
    try:
        return _merge(db, lines, tensors)
    except (LookupError, TypeError, ValueError) as exc:
        raise DamagedPack(f"{folder} holds something that is no edit ({exc!r})") from exc


def rebind(
    folder: Path,
    made_for: Mapping[str, str],
    encode: Callable[[Sequence[Edit]], np.ndarray],
    remake: Callable[[Edit], tuple[Edit, Patch]],
) -> list[tuple[str, list[str]]]:
    """Make the pack one for another model and encoder; what was solved for the old is remade.

    Of every patch that changes the model for every text, in order: its method, and the keys of the
    edits that it made live. Raises DamagedPack.
    """
    store, lines, tensors = _read(folder)
    said = {line["id"]: _edit(line) for line in lines}
    parts = {name: tensor for name, tensor in tensors.items() if name.startswith(_PATCH)}
    solved: dict[str, tuple[str, list[str]]] = {}  # for the old model alone
    scoped = set[str]()  # of these: what acts in the scope of its edits only
    for name in sorted(parts, key=_number):
        if not isinstance(patch := from_bytes(bytes(parts[name])), Hint):
            solved[name] = (patch.method, [])
            scoped |= {name} if patch.kind == Hook.kind else set()
    fresh = count(1 + max(map(_number, parts), default=0))
    for line in lines:
        if (name := f"{_PATCH}{line['patch']}") in solved:
            if line["status"] == "live":
                solved[name][1].append(line["said"]["key"])
            edit, patch = remake(said[line["id"]])
            line |= {"patch": next(fresh), "position": 0, "said": json.loads(edit.to_json())}
            parts[f"{_PATCH}{line['patch']}"] = np.frombuffer(patch.to_bytes(), np.uint8)
    parts = {name: part for name, part in parts.items() if name not in solved}
    vectors = encode([said[id] for id in tensors["ids"].tolist()])
    own = {key: value for key, value in made_for.items() if key != "id"}
    _write(folder, {**store, **own}, lines, {"ids": tensors["ids"], "vectors": vectors, **parts})
    return [made for name, made in solved.items() if name not in scoped]


def _number(name: str) -> int:
    return int(name.removeprefix(_PATCH))


def origin(folder: Path) -> Mapping[str, str]:
    """What the manifest says of the store that the pack in `folder` comes from. DamagedPack."""
    store, _, _ = _read(folder)
    return store


def send(folder: Path, out: IO[bytes]) -> None:
    """Write the pack in `folder` as a tar stream."""
    with tarfile.open(fileobj=out, mode="w|") as stream:
        for name in FILES:
            entry = tarfile.TarInfo(name)
            entry.size = (folder / name).stat().st_size
            with open(folder / name, "rb") as content:
                stream.addfile(entry, content)


def receive(source: IO[bytes], folder: Path) -> None:
    """Unpack what `send` wrote into the empty `folder`. DamagedPack when it holds anything else."""
    try:
        with tarfile.open(fileobj=source, mode="r|") as stream:
            for entry in stream:
                content = stream.extractfile(entry)
                if entry.name not in FILES or content is None:
                    raise DamagedPack(f"{entry.name!r} is no part of a pack")
                with open(folder / entry.name, "xb") as file:
                    shutil.copyfileobj(content, file)
    except (OSError, tarfile.TarError) as exc:
        raise DamagedPack(f"The stream is no pack ({exc})") from exc


def _merge(db: Database, lines: list[Line], tensors: Tensors) -> list[int]:
    said = {line["id"]: _edit(line) for line in lines}
    found = {id: _known(db, edit) for id, edit in said.items()}
    here = {id: known for id, known in found.items() if known}  # id in the pack -> id in this store
    new = [line for line in lines if line["id"] not in here]
    vectors = _vectors(db, tensors)
    for epoch, line in enumerate(new, chain.last_seq(db) + 1):
        id, status = line["id"], line["status"]
        here[id] = rows.insert_edit(db, said[id], vectors.get(id), epoch=epoch, status=status).id
    patches = {
        number: rows.insert_patch(db, from_bytes(bytes(tensors[f"{_PATCH}{number}"])))
        for number in sorted({line["patch"] for line in new} - {None})
    }
    for line in new:
        above = here[line["superseded_by"]] if line["status"] == "superseded" else None
        place = patches.get(line["patch"]), line["position"]
        chain.append(db, State(here[line["id"]], line["status"], *place, line["reach"], above))
    fresh = {here[line["id"]] for line in new}
    for line in lines:
        _supersede(db, here[line["id"]], here.get(line["superseded_by"]), fresh)
    return sorted(fresh)


def _edit(line: Line) -> Edit:
    if line["status"] not in get_args(Status) or line["reach"] not in get_args(Reach):
        raise ValueError(f"{line['status']} for {line['reach']}")
    return Edit.from_json(canonical(line["said"]))


def _supersede(db: Database, below: int, above: int | None, fresh: Container[int]) -> None:
    """An edit that was here goes below one that came."""
    if above in fresh and below not in fresh:
        state = life.state(db, below)
        if state.kind == "live":
            chain.append(db, replace(state, kind="superseded", cause=above))


def _known(db: Database, edit: Edit) -> int | None:
    """The id here of an edit in a pack: it came before, or it comes home."""
    _, store, id = (edit.key or "").split(":")
    if store == schema.meta(db)["id"]:
        home = views.edits(db, None, ids=[int(id)])
        return int(id) if home and home[0].prompt == edit.prompt else None
    return rows.recorded_before(db, edit)


def _vectors(db: Database, tensors: Tensors) -> Mapping[int, bytes | None]:
    blobs = rows.vector_rows(tensors["vectors"], len(tensors["ids"]))
    rows.check_dimension(db, blobs)
    return dict(zip(tensors["ids"].tolist(), blobs, strict=True))


def _lines(db: Database, store: str) -> Iterator[Line]:
    for id, body, kind, reach, patch, position, cause in db.execute(
        f"SELECT edit.id, content.body, kind, reach, patch, position, cause FROM {views.STATE}"
        " JOIN content ON content.edit = edit.id ORDER BY edit.id",
        {"at": views.NOW},
    ):
        said = json.loads(body)
        if not said.get("key", "").startswith(_ORIGIN):
            said["key"] = f"{_ORIGIN}{store}:{id}"
        yield {
            "id": id,
            "status": kind,
            "reach": reach,
            "patch": patch,
            "position": position,
            "superseded_by": cause if kind == "superseded" else None,
            "said": said,
        }


def _tensors(db: Database) -> Iterator[tuple[str, np.ndarray]]:
    ids = [id for (id,) in db.execute("SELECT edit FROM content WHERE vector IS NOT NULL")]
    yield from zip(("ids", "vectors"), views.vectors(db, None, ids), strict=True)
    for patch, blob in db.execute("SELECT patch, bytes FROM payload"):
        yield f"{_PATCH}{patch}", np.frombuffer(blob, np.uint8)


def _write(folder: Path, store: Mapping[str, str], lines: Iterable[Line], tensors: Tensors) -> None:
    text = "".join(f"{canonical(line)}\n" for line in lines)
    (folder / EDITS).write_text(text, encoding="utf-8")
    save_file(dict(tensors), folder / TENSORS)
    hashes = {name: sha256_of(folder / name) for name in (EDITS, TENSORS)}
    (folder / MANIFEST).write_text(canonical({"store": store, "files": hashes}))


def _read(folder: Path) -> tuple[Mapping[str, str], list[Line], Tensors]:
    """What the manifest vouches for. DamagedPack when a file is missing or not as it says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        store, hashes = manifest["store"], manifest["files"]
        for name in (EDITS, TENSORS):
            if sha256_of(folder / name) != hashes[name]:
                raise DamagedPack(f"{folder / name} does not match the manifest")
        with open(folder / EDITS, encoding="utf-8") as text:
            lines = [json.loads(line) for line in text]
        return store, lines, load_file(folder / TENSORS)
    except (OSError, LookupError, TypeError, ValueError, SafetensorError) as exc:
        raise DamagedPack(f"{folder} is not a whole pack ({exc})") from exc
