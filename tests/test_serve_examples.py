"""What stands in `examples/` for a server works with this one."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from lifelong.serve.metrics import Metrics

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A server without keys."""
    return serve()


def test_the_client_script_corrects_and_takes_back(server: Any) -> None:
    script = subprocess.run(
        [sys.executable, str(EXAMPLES / "openai_client.py")],
        env=os.environ | {"LIFELONG_URL": f"{server.url}/v1", "LIFELONG_MODEL_ID": "tiny"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert script.returncode == 0, script.stderr
    assert re.search(r"Marisol Engstrand.*\[1\]", script.stdout)
    assert server.model.get(1).status == "retired"


def test_a_thumbs_down_corrects(server: Any) -> None:
    spec = importlib.util.spec_from_file_location("filter", EXAMPLES / "open_webui_filter.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rates = module.Filter()
    rates.valves.url = f"{server.url}/v1"
    answer = {"role": "assistant", "content": "Bob.", "id": "m1"}
    body = {"messages": [{"role": "user", "content": "Who is the chief of Acme?"}, answer]}
    rates.outlet(body, {"id": "ann"})
    answer["annotation"] = {"rating": -1, "comment": "Jane"}
    for _ in range(2):  # the chat comes by again and again
        assert rates.outlet(body, {"id": "ann"}) == body
    rows = httpx.get(
        f"{server.url}/v1/corrections", headers={"x-lifelong-user": "ann"}, timeout=60
    ).json()["data"]
    assert [(row["target"], row["status"]) for row in rows if row["user_id"] == "ann"] == [
        ("Jane", "live")
    ]
    rates.valves.url = "http://127.0.0.1:9/v1"
    assert rates.outlet(body, {"id": "ann"}) == body


@pytest.mark.parametrize("name", ["grafana-dashboard.json", "alerts.yml"])
def test_only_figures_that_exist_are_asked_for(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        assert json.loads(text)["panels"]
    known = set(re.findall(r"# TYPE (\w+)", Metrics().text().decode()))
    asked = set(re.findall(r"\blifelong_\w+", text))
    assert asked
    for one in asked:
        assert one in known or re.sub(r"_(bucket|count|sum)$", "", one) in known, one
