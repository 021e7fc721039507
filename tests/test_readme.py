"""The README cannot rot: its example is run, its commands and its file tree are compared."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no {language} block"
    return found.group(1)


def test_the_example_is_the_file_in_examples() -> None:
    script = (ROOT / "examples/ten_lines.py").read_text(encoding="utf-8")
    assert script.endswith(block("python"))


@pytest.mark.real
@pytest.mark.usefixtures("real_lm", "real_encoder")
def test_the_example_prints_what_the_readme_says(tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(block("python"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.stdout == block("text"), done.stderr


def test_every_source_file_is_in_the_tree() -> None:
    tree = README.split("## What is where", 1)[1].split("```text", 1)[1].split("```", 1)[0]
    sources = [*ROOT.glob("lifelong/**/*.py"), *ROOT.glob("store/*.py"), *ROOT.glob("examples/*")]
    named = {path.name for path in sources if path.name != "__init__.py"}
    assert [name for name in sorted(named) if name not in tree] == []


def test_the_test_command_is_what_ci_runs() -> None:
    assert "make test" in README
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")
