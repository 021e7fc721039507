"""The package has one door, and opening it loads no model library."""

import subprocess
import sys

import store


def test_all_names_what_the_door_offers() -> None:
    offered = {name for name, value in vars(store).items() if not name.startswith("_")}
    modules = {name for name in offered if f"store.{name}" in sys.modules}
    assert sorted(store.__all__) == sorted(offered - modules)


def test_importing_the_store_loads_no_model_library() -> None:
    heavy = "{'torch', 'transformers', 'lifelong'}"
    script = f"import sys, store; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
