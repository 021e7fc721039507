"""`lifelong serve` as a process of its own, and `lifelong keys`."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from typer.testing import CliRunner

from lifelong.cli import app

ROOT = Path(__file__).parent.parent
START = [sys.executable, "-c", "from lifelong.cli import main; main()", "serve"]


def run(arguments: Sequence[str], env: dict[str, str]) -> Any:
    return CliRunner().invoke(app, list(arguments), env=env, catch_exceptions=False)


@pytest.fixture
def env(tmp_path: Path, model_folder: Path, encoder_folder: Path) -> dict[str, str]:
    """A store, a tiny model and a tiny encoder, as the environment names them."""
    return {
        "LIFELONG_STORE": str(tmp_path / "edits.db"),
        "LIFELONG_MODEL": str(model_folder),
        "LIFELONG_ENCODER": str(encoder_folder),
        "LIFELONG_KEYS": str(tmp_path / "keys.json"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "250",
    }


def test_keys_are_made_listed_and_revoked(env: dict[str, str]) -> None:
    made = json.loads(run(["keys", "make", "review", "--tenant", "a", "--json"], env).stdout)
    secret = made["key"]
    (row,) = json.loads(run(["keys", "list", "--json"], env).stdout)
    assert (row["id"], row["role"], row["tenant"]) == (made["id"], "review", "a")
    assert secret not in json.dumps(row)
    assert run(["keys", "make", "king"], env).exit_code == 2
    assert run(["keys", "make", "chat", "--expires", "soon"], env).exit_code == 1
    assert run(["keys", "revoke", made["id"]], env).exit_code == 0
    assert run(["keys", "revoke", made["id"]], env).exit_code == 1


def test_it_serves_nobody_else_without_keys(env: dict[str, str]) -> None:
    refused = run(["serve", "--host", "0.0.0.0"], env)
    assert refused.exit_code == 1
    assert "lifelong keys make admin" in refused.stderr


@pytest.mark.parametrize("said", ["port = 'x'", "colour = 1", "port =", "quorum = 1"])
def test_a_bad_settings_file_is_refused(env: dict[str, str], tmp_path: Path, said: str) -> None:
    (tmp_path / "serve.toml").write_text(said)
    refused = run(["serve", "--config", str(tmp_path / "serve.toml")], env)
    assert refused.exit_code in (1, 2)
    assert "Error" in refused.stderr


def test_it_serves_until_it_is_told_to_stop(env: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "serve.toml").write_text(f"port = {port}\nmax-tokens = 3\nmodel_id = 'file'\n")
    server = subprocess.Popen(
        [*START, "--config", str(tmp_path / "serve.toml")],
        env=env | {"LIFELONG_MODEL_ID": "tiny", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/health/ready")
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
        reply = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60).json()
        assert reply["usage"]["completion_tokens"] == 3
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=60)
    finally:
        server.kill()
    assert server.returncode in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("path") == "/v1/chat/completions"]
    assert (line["status"], line["key"]) == (200, "local")
    assert line["request_id"]


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{url} never answered")
