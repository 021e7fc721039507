"""A server as a process of its own, and what its clients do, for the benchmarks of serving."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx

OURS = [sys.executable, "-c", "from lifelong.cli import main; main()", "serve"]
ROOT = Path(__file__).parent.parent.parent


@dataclass
class Process:
    """A server that runs, or did."""

    command: Sequence[str]
    url: str
    env: Mapping[str, str]
    log: Path
    running: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def of(cls, command: Sequence[str], folder: Path, **env: str) -> "Process":
        """The server that `command --port PORT` starts."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        inherited = dict(os.environ) | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        command = [*command, "--port", str(port)]
        return cls(command, f"http://127.0.0.1:{port}", inherited | env, folder / "server.log")

    def start(self, ready: str = "/health/ready", seconds: float = 300) -> float:
        """Start it and wait until it is ready; the seconds that took."""
        began = time.monotonic()
        with open(self.log, "ab") as log:
            self.running = subprocess.Popen(
                self.command, env=dict(self.env), stdout=log, stderr=log
            )
        while time.monotonic() - began < seconds:
            if self.running.poll() is not None:
                break
            try:
                if httpx.get(self.url + ready, timeout=5).status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"{self.command} did not start:\n{self.log.read_text()[-2_000:]}")

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        assert self.running
        self.running.send_signal(sign)
        self.running.wait(120)

    @property
    def rss(self) -> int:
        """Bytes of memory that it holds."""
        assert self.running
        pages = Path(f"/proc/{self.running.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def chat(question: str, model: str, **more: Any) -> dict[str, Any]:
    """The body of a request."""
    turns = [{"role": "user", "content": question}]
    return {"model": model, "messages": turns, "temperature": 0, **more}


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them are."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
