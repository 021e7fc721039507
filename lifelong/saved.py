"""A folder that carries a model, its edits and the settings: what `save_pretrained` adds to it.

lifelong_config.json    encoder and method, as `EditableModel` takes them
edits.jsonl, edits.safetensors, manifest.json    the store, as `Journal.export` writes it
README.md               a card, unless there is one

The base weights stand beside them untouched, so transformers loads the folder as the plain model.
"""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lifelong.errors import ModelDamaged
from store import Journal

SETTINGS = "lifelong_config.json"

_CARD = """\
---
library_name: lifelong
---
A causal language model with {live} live corrections, as of epoch {epoch}.

```python
from lifelong import EditableModel

model = EditableModel.from_pretrained("path/to/this/folder")
```

Without `lifelong` it is the base model: the corrections stand in `edits.jsonl`.
"""


def save(folder: Path, journal: Journal, settings: dict[str, Any]) -> None:
    """Write edits, settings and card into `folder`, over those that are there. StoreError."""
    with TemporaryDirectory(dir=folder) as temporary:
        pack = journal.export(Path(temporary) / "pack")
        for path in pack.iterdir():
            os.replace(path, folder / path.name)
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")
    card = folder / "README.md"
    if not card.exists():
        card.write_text(_CARD.format(live=len(journal.live_ids()), epoch=journal.epoch))


def settings_of(folder: Path) -> dict[str, Any] | None:
    """What `save` was told; None for a folder, or a name, that it did not write. ModelDamaged."""
    path = folder / SETTINGS
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
        return {name: found[name] for name in ("encoder", "method") if name in found}
    except (OSError, ValueError, TypeError) as exc:
        raise ModelDamaged(f"{path} cannot be read ({exc}).", "Save the model again.") from exc
