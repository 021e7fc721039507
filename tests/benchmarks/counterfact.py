"""CounterFact as one file in ROME's fields: those records that have them first, then EasyEdit's.

    python tests/benchmarks/counterfact.py ../shared/data/counterfact > counterfact.jsonl

Only the first 700 have true paraphrases and ten neighbours each; the others have one neighbour.
`lifelong eval` reads the file, and leaves out what was there before.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Print the records."""
    folder = Path(sys.argv[1])
    print((folder / "full-fields-dev.jsonl").read_text(encoding="utf-8"), end="")
    with open(folder / "edit-dev.jsonl", encoding="utf-8") as lines:
        for line in lines:
            print(json.dumps(with_romes_fields(json.loads(line)), ensure_ascii=False))


def with_romes_fields(record: dict[str, Any]) -> dict[str, Any]:
    """A record of EasyEdit's. Its wording stands for its relation; its "rephrase" is none."""
    subject = record["subject"]
    wording = record["prompt"].replace(subject, "{}")
    rewrite = {
        "prompt": wording,
        "subject": subject,
        "relation_id": wording,
        "target_new": {"str": record["target_new"]},
        "target_true": {"str": record["ground_truth"]},
    }
    return {
        "requested_rewrite": rewrite,
        "paraphrase_prompts": [],
        "neighborhood_prompts": [record["locality_prompt"]],
    }


if __name__ == "__main__":
    main()
