"""results.json, report.md and plots."""

import json
from pathlib import Path
from typing import Any


def write(folder: Path, found: dict[str, Any]) -> None:
    """Leave the results in `folder`."""
    (folder / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
