"""What is asked of what is *not* so, and questions that hope for a yes. Nothing is generated.

    python tests/benchmarks/denials.py [--show]

Probes about four edited facts each. `denied` shall not fire; `hoped` shall fire, and the reply
begin with the word in front ("yes" where the target is proposed, "no" where the old answer is).
"""

import json
import sys
from collections.abc import Sequence

from scope_routes import memory, share

from lifelong.encoder import load_encoder
from lifelong.phrase import yes_or_no
from lifelong.router import Router
from store import Edit

FACTS = (
    ("Acme", "Who runs Acme?", "Jane Roe", "John Doe", "run by"),
    ("Mount Ambris", "Where is Mount Ambris?", "Chile", "Peru", "located in"),
    ("The Glass Orchard", "Who wrote The Glass Orchard?", "Ruth Amsel", "Ida Brand", "written by"),
    ("Kestrel 9", "Which company makes the Kestrel 9?", "Danfield", "Honda", "made by"),
)
DENIED = (
    "{s} was never {done}",
    "{s} is not {done}",
    "{s} isn't {done}",
    "{s} is no longer {done}",
    "{s} has never been {done}",
    "What was {s} never {done}?",
    "By whom or what was {s} not {done}?",
    "It is not true that {s} is {done}",
)
HOPED = (
    ("Is it not true that {s} is {done} {new}?", "Yes"),
    ("Isn't {s} {done} {new}?", "Yes"),
    ("Is {s} not {done} {new}?", "Yes"),
    ("{s} is {done} {new}, isn't it?", "Yes"),
    ("Is it not true that {s} is {done} {old}?", "No"),
    ("Isn't {s} {done} {old}?", "No"),
    ("Is {s} not {done} {old}?", "No"),
    ("{s} is {done} {old}, isn't it?", "No"),
)


def main() -> None:
    """Print the shares."""
    edits = [Edit(prompt, new, subject=s, old=old) for s, prompt, new, old, _ in FACTS]
    with memory(load_encoder("minilm"), edits) as router:
        print_shares(edits, router)


def print_shares(edits: Sequence[Edit], router: Router) -> None:
    """Of what is denied, and of questions that hope for a yes."""
    denied, hoped, agree = list[bool](), list[bool](), list[bool]()
    for at, (s, _, new, old, done) in enumerate(FACTS):
        for form, verdict in (*((form, "") for form in DENIED), *HOPED):
            asked = form.format(s=s, done=done, new=new, old=old)
            (route,) = router.route([asked])
            if "--show" in sys.argv and bool(route.hits) != bool(verdict):
                print("  ", asked, [round(hit.score, 2) for hit in (*route.hits, *route.near)])
            if verdict:
                hoped.append(bool(route.hits))
                agree.append(yes_or_no(asked, edits[at]) == verdict)
            else:
                denied.append(bool(route.hits))
    print(json.dumps({"denied": len(denied), "fire": share(denied)}))
    print(json.dumps({"hoped": len(hoped), "fire": share(hoped), "right word": share(agree)}))


if __name__ == "__main__":
    main()
