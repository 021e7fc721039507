"""How fast is the server: beside `transformers serve`, beside the bare model, under corrections.

    python -m tests.benchmarks.serve_speed [--tokens 32] [--rounds 3] [--parts chats first ...]

chats        16 at once: tokens a second, here and in `transformers serve`; same model and prompts;
             and of the bare model, given all 16 as one batch, one `generate` after the other
first        one at a time: time to the first token, here and of the bare model in a loop
corrections  posted while 16 chats run: seconds until acknowledged; does the next chat know it

Prints JSON. Both servers are asked greedily, and the same number of tokens counts for both.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any

import httpx2 as httpx

from lifelong.models import resolve
from tests.benchmarks.serving import OURS, Process, chat, percentile

CLIENTS = 16
TOPICS = """rivers bridges bread clocks winter music horses paper islands glass ships stars gardens
maps coffee trains""".split()
QUESTIONS = [f"Write a few sentences about {topic}." for topic in TOPICS]
BARE = """
import sys, time, torch
from lifelong.models import load_model
model, tokenizer = load_model("smollm2-135m", progress=False)
for question in sys.stdin:
    began = time.perf_counter()
    turns = [{"role": "user", "content": question.strip()}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    read = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        model.generate(**read, max_new_tokens=1, do_sample=False)
    print(time.perf_counter() - began, flush=True)
"""

BATCH = """
import json, sys, time, torch
from lifelong.models import load_model
questions, tokens, rounds = json.loads(sys.argv[1])
model, tokenizer = load_model("smollm2-135m", progress=False)
tokenizer.padding_side = "left"
turns = [[{"role": "user", "content": question}] for question in questions]
texts = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
read = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
limits = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
rates = []
with torch.no_grad():
    model.generate(**read, **limits | {"max_new_tokens": 1, "min_new_tokens": 1})
    for _ in range(rounds):
        began = time.perf_counter()
        model.generate(**read, **limits)
        rates.append(len(questions) * tokens / (time.perf_counter() - began))
print(json.dumps(rates))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corrections", type=int, default=40)
    parts = {"chats": chats, "first": first, "corrections": corrections}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    options = parser.parse_args()
    for name in options.parts:
        print(json.dumps({"part": name, **parts[name](options)}), flush=True)


@contextmanager
def server(command: Sequence[str], ready: str = "/health/ready", **env: str) -> Iterator[Process]:
    with tempfile.TemporaryDirectory() as folder:
        env |= {"LIFELONG_STORE": f"{folder}/edits.db", "LIFELONG_KEYS": f"{folder}/keys.json"}
        env |= {"LIFELONG_PER_MINUTE": "1000000", "LIFELONG_CORRECTIONS_PER_MINUTE": "1000000"}
        process = Process.of(command, Path(folder), **env)
        process.start(ready)
        try:
            yield process
        finally:
            process.stop()


def chats(options: argparse.Namespace) -> dict[str, Any]:
    """All servers are there at once and asked in turn, so that what else runs slows all alike."""
    folder = str(resolve("smollm2-135m", progress=False))
    peer = [str(Path(sys.executable).with_name("transformers")), "serve", folder,
            "--device", "cpu", "--dtype", "float32"]  # fmt: skip
    commands = {
        "lifelong": (OURS, "/health/ready", "smollm2-135m"),
        "transformers": (peer, "/health", folder),
        "transformers_cb": ([*peer, "--continuous-batching"], "/health", folder),
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    with ExitStack() as stack:
        servers = {
            name: (stack.enter_context(server(command, ready)), model)
            for name, (command, ready, model) in commands.items()
        }
        for process, model in servers.values():
            rate(process, model, QUESTIONS[:2], 4)  # warm
        for _ in range(options.rounds):
            for name, (process, model) in servers.items():
                found[name].append(rate(process, model, QUESTIONS, options.tokens))
            print(json.dumps(found), file=sys.stderr, flush=True)
    asked = json.dumps([QUESTIONS, options.tokens, options.rounds])
    batch = subprocess.run([sys.executable, "-c", BATCH, asked], capture_output=True, check=True)
    found["bare_batch"] = json.loads(batch.stdout)
    ours = found["lifelong"]
    times = {
        name: round(median(a / b for a, b in zip(ours, theirs, strict=True)), 2)
        for name, theirs in list(found.items())[1:]
    }
    return {"tokens_a_second": {name: round(median(v), 1) for name, v in found.items()},
            "times": times, "rounds": options.rounds}  # fmt: skip


def rate(process: Process, model: str, questions: Sequence[str], tokens: int) -> float:
    """Tokens a second when every question is asked at once."""

    def ask(question: str) -> int:
        body = chat(question, model, max_tokens=tokens, max_completion_tokens=tokens)
        with httpx.Client(base_url=process.url, timeout=600) as http:
            return tokens_of(http.post("/v1/chat/completions", json=body), tokens)

    with ThreadPoolExecutor(CLIENTS) as pool:
        began = time.perf_counter()
        made = sum(pool.map(ask, questions))
        return made / (time.perf_counter() - began)


def tokens_of(reply: httpx.Response, most: int) -> int:
    """The tokens made; a peer that does not say has stopped at the limit, as these prompts do."""
    assert reply.status_code == 200, reply.text
    usage = reply.json().get("usage") or {}
    return int(usage.get("completion_tokens") or most)


def first(options: argparse.Namespace) -> dict[str, Any]:
    """Both are there at once, and every question is asked of one after the other."""
    ours, theirs = [], []
    alone = subprocess.Popen(
        [sys.executable, "-c", BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with (
        alone,
        server(OURS) as process,
        httpx.Client(base_url=process.url, timeout=600) as http,
    ):
        assert alone.stdin
        assert alone.stdout
        for question in QUESTIONS * options.rounds:
            print(question, file=alone.stdin, flush=True)
            theirs.append(float(alone.stdout.readline()))
            ours.append(first_token(http, question))
    here, there = percentile(ours[1:], 0.5), percentile(theirs[1:], 0.5)  # the first is warming up
    return {"seconds": round(here, 4), "bare": round(there, 4), "ratio": round(here / there, 2)}


def first_token(http: httpx.Client, question: str) -> float:
    body, began = chat(question, "smollm2-135m", max_tokens=4, stream=True), time.perf_counter()
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        seconds = time.perf_counter() - began
        for _ in lines:
            pass
    return seconds


def corrections(options: argparse.Namespace) -> dict[str, Any]:
    acknowledged, known, stop = [], 0, Event()

    def load(question: str) -> None:
        with httpx.Client(base_url=process.url, timeout=600) as http:
            while not stop.is_set():
                body = chat(question, "smollm2-135m", max_tokens=options.tokens)
                http.post("/v1/chat/completions", json=body)

    with server(OURS) as process, ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(load, question) for question in QUESTIONS]
        with httpx.Client(base_url=process.url, timeout=600) as http:
            time.sleep(3)
            for n in range(options.corrections):
                question = f"Who is the chief of Company {n}?"
                said = {"prompt": question, "target": f"Person {n}"}
                began = time.perf_counter()
                edit = http.post("/v1/corrections", json=said).json()
                acknowledged.append(time.perf_counter() - began)
                body = chat(question, "smollm2-135m", max_tokens=1)
                reply = http.post("/v1/chat/completions", json=body).json()
                known += edit["id"] in [hit["id"] for hit in reply["lifelong"]["edits"]]
        stop.set()
        for future in running:
            future.result()
    return {
        "acknowledged_p50": round(percentile(acknowledged, 0.5), 4),
        "acknowledged_p99": round(percentile(acknowledged, 0.99), 4),
        "known_to_the_next_chat": [known, options.corrections],
    }


if __name__ == "__main__":
    main()
