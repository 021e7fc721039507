"""Which follow-ups fire: questions that leave to the turn before whom they are about.

    python tests/benchmarks/follow_ups.py [--show]

The conversations are in follow_ups.txt, written for it. Those under `first` were written before
any of them was tried, and two rules of `lifelong/refer.py` were changed after a look at them; for
those under `later` none was. Prints one JSON object for the follow-ups that ask for an edited fact,
`due`, and one for the others, of each part: the share that reach their edit, that fire at all, and
that fire at all without the turn before. Nothing is generated.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from scope_routes import memory, share

from lifelong.encoder import load_encoder
from lifelong.prompt import Prompt
from lifelong.router import Router
from store import Edit

TALKS = Path(__file__).with_suffix(".txt")


def main() -> None:
    """Print the shares."""
    facts, *parts = (rows(part) for part in TALKS.read_text().split("\n\n"))
    edits = [Edit(prompt, target, subject=subject) for subject, prompt, target in facts]
    with memory(load_encoder("minilm"), edits) as router:
        for name, talks in zip(("first", "later"), parts, strict=True):
            for due in (True, False):
                mine = [talk for talk in talks if (talk[3] != "-") == due]
                print(json.dumps({"part": name, "due": due, **figures(router, mine)}))


def rows(part: str) -> list[list[str]]:
    """The fields of each line behind the first."""
    return [[field.strip() for field in line.split("|")] for line in part.splitlines()[1:]]


def figures(router: Router, talks: Sequence[Sequence[str]]) -> dict[str, float]:
    """Shares; shows what went wrong, if asked to."""
    said = [fired(router, asked, reply, question) for asked, reply, question, _ in talks]
    for talk, target in zip(talks, said, strict=True):
        if "--show" in sys.argv and (target or "-") != talk[3]:
            print("  ", talk, "->", target)
    return {
        "n": len(talks),
        "reach their edit": share([t == talk[3] for t, talk in zip(said, talks, strict=True)]),
        "fire": share([target is not None for target in said]),
        "fire alone": share([fired(router, "", "", talk[2]) is not None for talk in talks]),
    }


def fired(router: Router, asked: str, reply: str, question: str) -> str | None:
    """The target of the edit that fires for the last question."""
    said = [("user", asked), ("assistant", reply), ("user", question)]
    messages = tuple({"role": role, "content": text} for role, text in said if text)
    prompt = router.referred(Prompt(question, messages))
    (route,) = router.route([prompt.question])
    return route.hits[0].edit.target if route.hits else None


if __name__ == "__main__":
    main()
