"""Which prompts the gates of `memprompt` and `language-patch` let through. Nothing is generated.

    python tests/benchmarks/gates.py [--show] [DATA]

Word questions of MemPrompt: one feedback is recorded for each of the 15 ways in which they are put,
or for one way of each of the five tasks; the others ask with other words in the slot. Conditions
and messages of conditions.txt, which were written for this: the threshold was chosen with those
under `tuned` (one in two hundred unrelated pairs reaches it) and tried on those under `held out`.
All conditions are live at once, so a message may be let through by any, and its own should be best.
Both also meet ordinary sentences of WikiText-2. Prints a JSON object each.
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from scope_routes import DATA, memory, routes, share

from lifelong.encoder import SentenceEncoder, load_encoder
from lifelong.train.data import lines
from store import Edit

CONDITIONS = Path(__file__).with_name("conditions.txt")
ASKED = 40  # a template
SENTENCES = 500


def main(data: Path) -> None:
    """Print the rates."""
    encoder = load_encoder("minilm")
    texts = json.loads((data / "wikitext-2/me-ppl.json").read_text())
    plain = [record["Text"].strip() for record in texts[:SENTENCES]]
    for ways in (15, 5):
        print(json.dumps(words_figures(encoder, data, ways, plain)), flush=True)
    for title, topics in parts():
        print(json.dumps({"part": title, **condition_figures(encoder, topics, plain)}), flush=True)


def words_figures(
    encoder: SentenceEncoder, data: Path, ways: int, plain: Sequence[str]
) -> dict[str, float]:
    """MemPrompt's questions, with and without the marks around the argument."""
    asked: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in lines(data / "memprompt/word-tasks.jsonl"):
        asked[record["type"], template(record["ques"])].append(record["ques"])
    tasks = sorted(asked)
    taught = (
        tasks if ways == 15 else [next(t for t in tasks if t[0] == kind) for kind in kinds(tasks)]
    )
    edits = [
        Edit(asked[task][0], f"this is about {task[0]}", method="memprompt") for task in taught
    ]
    with memory(encoder, edits) as router:
        same, bare, other = list[bool](), list[bool](), list[bool]()
        for task in tasks:
            some = asked[task][1 : ASKED + 1]
            for marked, found in ((True, same), (False, bare)):
                texts = some if marked else [re.sub(r"[<>] ?", "", text) for text in some]
                fired = [
                    route.hits[0].id if route.hits else None for route in routes(router, texts)
                ]
                if task in taught:
                    found += [id == taught.index(task) + 1 for id in fired]
                elif marked:
                    other += [id is not None for id in fired]
        ordinary = [bool(route.hits) for route in routes(router, plain)]
    return {
        "feedback": len(edits),
        "n": len(same),
        "same question, other word": share(same),
        "... unmarked": share(bare),
        "questions put otherwise": share(other),
        "sentences": share(ordinary),
    }


def template(question: str) -> str:
    """The question without its argument."""
    return re.sub(r"<.*?>", "<>", question.lower())


def kinds(tasks: Sequence[tuple[str, str]]) -> list[str]:
    """The kinds of task, each once."""
    return sorted({kind for kind, _ in tasks})


def parts() -> Iterator[tuple[str, list[tuple[list[str], list[str]]]]]:
    """(title, (conditions, messages) a topic) for each part of conditions.txt."""
    for part in CONDITIONS.read_text().split("\n\n"):
        title, *rows = part.strip().splitlines()
        cells = [row.split(" | ") for row in rows]
        yield title.strip("# "), [(first.split("; "), rest) for first, *rest in cells]


def condition_figures(
    encoder: SentenceEncoder, topics: Sequence[tuple[list[str], list[str]]], plain: Sequence[str]
) -> dict[str, float]:
    """One condition a topic, then the other."""
    right, any_other, alone, ordinary = list[bool](), list[bool](), list[bool](), list[bool]()
    for which in (0, 1):
        edits = [
            Edit(f"If {conditions[which]}", "answer in one word", method="language-patch")
            for conditions, _ in topics
        ]
        with memory(encoder, edits) as router:
            for at, (_, messages) in enumerate(topics, 1):
                fired = [
                    route.hits[0].id if route.hits else None for route in routes(router, messages)
                ]
                right += [id == at for id in fired]
                any_other += [id not in (None, at) for id in fired]
                alone += [id is None for id in fired]
                for message, id in zip(messages, fired, strict=True):
                    if "--show" in sys.argv and id != at:
                        print(
                            "  ",
                            edits[at - 1].prompt,
                            "|",
                            message,
                            "->",
                            id and edits[id - 1].prompt,
                        )
            ordinary += [bool(route.hits) for route in routes(router, plain)]
    return {
        "conditions": len(topics),
        "n": len(right),
        "own condition": share(right),
        "another": share(any_other),
        "none": share(alone),
        "sentences": share(ordinary),
    }


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    main(Path(given[0]) if given else DATA)
