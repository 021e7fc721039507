"""Soak: chats, corrections, undos and kill -9, for as long as wanted; nothing may be lost or leak.

    python -m tests.benchmarks.serve_soak [--minutes 30] [--kill-minutes 5] [--clients 8]

Every client is a user of one of two tenants and corrects questions that the other tenant asks, too.
Prints JSON: acknowledged corrections and undos that the journal does not have, answers that held
another tenant's word, answers that did not know what was acknowledged before, statuses, memory.
"""

import argparse
import json
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import httpx2 as httpx

from lifelong.serve.keys import Keys
from store import Journal
from tests.benchmarks.serving import OURS, Process, chat

TENANTS = ("zorblat", "quexil")  # words that no model says unasked
COMPANIES = [f"Company {n}" for n in range(1_000)]
_LOOK_SECONDS = 30.0
_LIVE, _UNDONE = "live", "retired"


@dataclass
class Findings:
    """What the clients saw; shared by all of them."""

    statuses: Counter[str] = field(default_factory=Counter)
    leaks: int = 0
    stale: int = 0
    answers: int = 0
    acknowledged: dict[int, str] = field(default_factory=dict)  # edit -> what became of it
    lock: Lock = field(default_factory=Lock)


class Client:
    """One user: it asks, and remembers what it was told to remember."""

    def __init__(self, process: Process, secret: str, name: str, found: Findings) -> None:
        self._http = httpx.Client(
            base_url=process.url,
            headers={"authorization": f"Bearer {secret}", "x-lifelong-user": name},
            timeout=120,
        )
        self._tenant = name.split("-")[0]
        self._found = found
        self._taught: dict[str, tuple[int, str]] = {}

    def ask(self) -> None:
        """Half of the time what was taught, else what somebody else may have been."""
        known = list(self._taught) if random.random() < 0.5 else []
        company = random.choice(known or COMPANIES)
        edit = self._taught.get(company)
        body = chat(f"Who is the chief of {company}?", "smollm2-135m", max_tokens=12)
        reply = self._send("POST", "/v1/chat/completions", body)
        if reply is None:
            return
        text = reply["choices"][0]["message"]["content"].lower()
        with self._found.lock:
            self._found.answers += 1
            self._found.leaks += any(t in text for t in TENANTS if t != self._tenant)
            if edit and self._taught.get(company) == edit:
                self._found.stale += edit[0] not in [e["id"] for e in reply["lifelong"]["edits"]]

    def correct(self) -> None:
        company = random.choice([name for name in COMPANIES if name not in self._taught])
        said = {"prompt": f"Who is the chief of {company}?", "target": f"{self._tenant} person"}
        if edit := self._send("POST", "/v1/corrections", said):
            self._taught[company] = edit["id"], company
            self._note(edit["id"], _LIVE)

    def undo(self) -> None:
        if not self._taught:
            return
        company = random.choice(list(self._taught))
        id, _ = self._taught.pop(company)  # from now on nobody knows, until it is acknowledged
        if self._send("POST", f"/v1/corrections/{id}:undo", {}):
            self._note(id, _UNDONE)
        else:
            with self._found.lock:
                self._found.acknowledged.pop(id, None)

    def _note(self, id: int, status: str) -> None:
        with self._found.lock:
            self._found.acknowledged[id] = status

    def _send(self, method: str, path: str, body: dict[str, Any]) -> Any:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.TransportError:
            self._found.statuses["connection"] += 1
            time.sleep(0.5)
            return None
        with self._found.lock:
            self._found.statuses[str(response.status_code)] += 1
        if response.status_code == 503:  # it is being restarted
            time.sleep(0.5)
        return response.json() if response.status_code < 300 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--kill-minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(soak(options, Path(folder))))


def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    store, keys, found = folder / "edits.db", Keys(folder / "keys.json"), Findings()
    secrets = {tenant: keys.make("correct", tenant=tenant)[1] for tenant in TENANTS}
    process = Process.of(OURS, folder, LIFELONG_STORE=str(store),
                         LIFELONG_KEYS=str(folder / "keys.json"),
                         LIFELONG_PER_MINUTE="1000000", LIFELONG_QUORUM="1000")  # fmt: skip
    restarts, until = [process.start()], time.monotonic() + 60 * options.minutes
    rss = [[process.rss]]  # of each life, every half minute
    threads = []
    for n in range(options.clients):
        tenant = TENANTS[n % len(TENANTS)]
        client = Client(process, secrets[tenant], f"{tenant}-{n}", found)
        threads.append(Thread(target=talk, args=(client, until)))
        threads.append(Thread(target=teach, args=(client, until, options.clients)))
    for thread in threads:
        thread.start()
    look = time.monotonic() + _LOOK_SECONDS
    kill = time.monotonic() + 60 * options.kill_minutes
    while time.monotonic() < until:
        time.sleep(1)
        if time.monotonic() > look:
            rss[-1].append(process.rss)
            look = time.monotonic() + _LOOK_SECONDS
        if time.monotonic() > kill:
            process.stop(signal.SIGKILL)
            restarts.append(process.start())
            rss.append([process.rss])
            kill = time.monotonic() + 60 * options.kill_minutes
    for thread in threads:
        thread.join()
    rss[-1].append(process.rss)
    process.stop()
    return report(options, found, store, restarts, rss)


def talk(client: Client, until: float) -> None:
    """One client's questions, one after the other."""
    while time.monotonic() < until:
        client.ask()


def teach(client: Client, until: float, clients: int) -> None:
    """What it corrects meanwhile: of all together a correction a second, an undo every five."""
    correct = time.monotonic() + random.uniform(0, clients)
    undo = time.monotonic() + random.uniform(0, 5 * clients)
    while time.monotonic() < until:
        if time.monotonic() > correct:
            client.correct()
            correct += clients
        if time.monotonic() > undo:
            client.undo()
            undo += 5 * clients
        time.sleep(0.05)


def report(
    options: argparse.Namespace,
    found: Findings,
    store: Path,
    restarts: list[float],
    rss: list[list[int]],
) -> dict[str, Any]:
    with Journal.read(store) as journal:
        is_now = {edit.id: edit.status for edit in journal.edits()}
        epoch = journal.verify()
    lost = [id for id, status in found.acknowledged.items() if is_now.get(id) != status]
    return {
        "minutes": options.minutes,
        "answers": found.answers,
        "acknowledged": len(found.acknowledged),
        "lost": len(lost),
        "leaks": found.leaks,
        "stale": found.stale,
        "statuses": dict(found.statuses),
        "kills": len(restarts) - 1,
        "restart_seconds": [round(seconds, 1) for seconds in restarts],
        "rss_mb": [[round(size / 2**20) for size in life] for life in rss],
        "epoch": epoch,
    }


if __name__ == "__main__":
    main()
