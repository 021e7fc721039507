"""`lifelong store ...`: look after the file of edits. No model is loaded.

`status` and `verify` leave with 3 when the file is damaged. `restore` and `erase` ask first, unless
told `--yes`; a no leaves with 1 and changes nothing.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, cast

from typer import Argument, BadParameter, Exit, FileBinaryRead, Option, Typer, confirm

from lifelong.cli import feed
from lifelong.cli.setup import UNUSABLE, Setup, fields, stderr, with_setup
from lifelong.standing import Standing, holding, wipe
from store import DamagedDatabase, Journal, pack, put_back
from store import migrate as migrate_store
from store import rebuild as rebuild_index

Yes = Annotated[bool, Option("--yes", help="Do not ask.")]


def path(setup: Setup) -> None:
    """Where the file of edits is, whether or not it is there."""
    file = Path(setup.store).absolute()
    setup.show({"path": str(file), "exists": file.exists()}, str(file))


def status(
    setup: Setup,
    quick: Annotated[bool, Option("--quick", help="Do not verify: large files take long.")] = False,
) -> None:
    """What is in the store, what it was made for, how large it is, whether it is whole."""
    with setup.read() as journal:
        readings = journal.readings()
        found = {
            "path": str(Path(journal.path).absolute()),
            "schema": journal.schema,
            "epoch": journal.epoch,
            "edits": dict(journal.counts()),
            "bytes": _sizes(journal),
            "made_for": journal.meta,
            "reading": asdict(readings[-1]) if readings else None,
            "integrity": "not checked" if quick else _integrity(journal),
        }
    setup.show(found, fields(found))
    if found["integrity"] not in ("not checked", "intact"):
        raise Exit(UNUSABLE)


def verify(setup: Setup) -> None:
    """Check every page, the hash chain, and every text, vector and patch."""
    with setup.read() as journal:
        epoch = journal.verify()
    setup.show({"epoch": epoch}, f"Intact up to epoch {epoch}.")


def backup(
    setup: Setup, target: Annotated[Path, Argument(help="A file that does not exist yet.")]
) -> None:
    """Copy the store as of now, while others go on using it; the copy is verified."""
    with setup.read() as journal:
        copy = journal.backup(target)
    with Journal.read(copy) as journal:
        epoch = journal.epoch
    setup.show({"path": str(copy), "epoch": epoch}, f"{copy} is the store as of epoch {epoch}.")


def restore(
    setup: Setup, backup: Annotated[Path, Argument(help="What `backup` made.")], yes: Yes = False
) -> None:
    """Make the store what BACKUP is; what it was until now is set aside."""
    if Path(setup.store).exists():
        _ask(yes, f"Replace {setup.store} by {backup}?")
    aside = put_back(backup, setup.store)
    with setup.read() as journal:
        epoch = journal.epoch
    was = f" What it was is in {aside}." if aside else ""
    data = {"path": setup.store, "epoch": epoch, "set_aside": str(aside) if aside else None}
    setup.show(data, f"{setup.store} is at epoch {epoch}.{was}")


def rebuild(setup: Setup) -> None:
    """Throw away what is derived from the edits and build the index anew."""
    with setup.read() as journal, stderr().status("Building the index"):
        edits = len(rebuild_index(journal))
    setup.show({"edits": edits}, f"The index of {edits} live edits was built anew.")


def export(
    setup: Setup,
    folder: Annotated[str, Argument(help="A folder that does not exist yet; - for stdout.")],
) -> None:
    """Write all edits as a pack: JSONL, safetensors, a manifest of hashes; - is the same as tar."""
    with setup.read() as journal:
        if folder == "-":
            with TemporaryDirectory() as place:
                pack.send(journal.export(Path(place) / "pack"), sys.stdout.buffer)
            return
        journal.export(folder)
    setup.show({"path": folder}, f"The edits are in {folder}.")


def import_(
    setup: Setup,
    source: Annotated[str, Argument(help="What `export` wrote: a folder; - for stdin.")],
) -> None:
    """Add the edits of a pack, all or none; those that are here already are not added again.

    A store that is not there is made as the pack's was. Where stdin is no pack but corrections, a
    JSON object a line, it is `lifelong import -`: each line gets its verdict as it comes.
    """
    if source != "-":
        _merge(setup, Path(source))
        return
    stdin = cast("FileBinaryRead", sys.stdin.buffer)
    if stdin.peek(1).startswith(b"{"):
        feed.import_(setup, stdin, method="serac")
        return
    with TemporaryDirectory() as place:
        pack.receive(stdin, Path(place))
        _merge(setup, Path(place))


def migrate(setup: Setup) -> None:
    """Bring the file to the schema of this version; a backup is kept."""
    kept = migrate_store(setup.store)
    with setup.read() as journal:
        schema = journal.schema
    was = f" What it was is in {kept}." if kept else ""
    data = {"schema": schema, "backup": str(kept) if kept else None}
    setup.show(data, f"{setup.store} has the schema {schema}.{was}")


def erase(
    setup: Setup,
    ids: Annotated[list[int] | None, Argument(help="As `lifelong list` shows them.")] = None,
    yes: Yes = False,
) -> None:
    """Wipe texts and vectors for good, and leave the hash chain whole.

    Of the edits IDS; without any, of all that --user (of --tenant) said, or all users of --tenant.
    What was written because it follows from them goes, too.
    """
    if not ids and setup.audience is None:
        raise BadParameter("name edits by their ids, or a person by --user and --tenant")
    with setup.tend() as journal:
        named = [journal.get(id) for id in dict.fromkeys(ids or ())]
        named = named or journal.authored(setup.user, setup.tenant)
        which = journal.get_many(holding(journal, (edit.id for edit in named)))
        _ask(yes, f"Erase the texts of {len(which)} edits for good?")
        gone = wipe(journal, Standing.of(journal), which, reason="erased on request")
        erased, epoch = [edit.id for edit in gone], journal.epoch
    copies = [str(copy) for copy in _copies(Path(setup.store))]
    also = "".join(f"\nIt may still hold them: {copy}" for copy in copies)
    data = {"erased": erased, "epoch": epoch, "copies": copies}
    setup.show(data, f"The texts of {len(erased)} edits are gone.{also}")


COMMANDS = (path, status, verify, backup, restore, rebuild, export, import_, migrate, erase)

app = Typer(help="Look after the file of edits; no model is loaded.", no_args_is_help=True)
for _command in COMMANDS:
    app.command(_command.__name__.rstrip("_"))(with_setup(_command))


def _ask(yes: bool, question: str) -> None:
    if not yes:
        confirm(question, abort=True, err=True)


def _merge(setup: Setup, folder: Path) -> None:
    with Journal.for_pack(setup.store, folder) as journal:
        ids = [edit.id for edit in journal.import_(folder)]
        epoch = journal.epoch
    setup.show({"ids": ids, "epoch": epoch}, f"{len(ids)} edits are new, epoch {epoch}.")


def _integrity(journal: Journal) -> str:
    try:
        journal.verify()
    except DamagedDatabase as error:
        return str(error)
    return "intact"


def _sizes(journal: Journal) -> dict[str, int]:
    """Bytes on disk: the file, what a commit keeps beside it, the cache."""
    file = Path(journal.path)
    beside = [file.with_name(file.name + suffix) for suffix in ("-wal", "-journal")]
    cached = [entry for entry in journal.cache.rglob("*") if entry.is_file()]
    return {
        "file": file.stat().st_size,
        "log": sum(log.stat().st_size for log in beside if log.exists()),
        "cache": sum(entry.stat().st_size for entry in cached),
    }


def _copies(file: Path) -> list[Path]:
    """The copies that migrations and restores left beside the file."""
    return sorted(
        copy
        for kind in ("before", "set-aside")
        for copy in file.absolute().parent.glob(f"{file.name}.{kind}-*")
    )
