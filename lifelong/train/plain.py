"""Writes `plain.txt`, the text that second moments are measured on where nobody names another.

    python -m lifelong.train.plain OUT

SmolLM2-135M-Instruct (Apache-2.0) wrote it: samples behind openings of many kinds, seed 0.
What a language model says by itself is what its weights answer to.
"""

import sys
from itertools import product
from pathlib import Path

import torch

from lifelong.lm import LM
from lifelong.models import load_model
from lifelong.prompt import Prompt, pad_left

SUBJECTS = (
    "the city", "the river", "the company", "the novel", "the film", "the war", "the church",
    "the language", "the painter", "the football club", "the species", "the island", "the album",
    "the university", "the engine", "the theorem",
)  # fmt: skip
OPENINGS = (
    "The history of {} begins",
    "In {}, there are",
    "He wrote that {}",
    "{} is located in",
    "{} was founded by",
    "According to the report on {},",
    "Question: What is known about {}?\nAnswer:",
    "After several years, {}",
)
TOKENS = 320  # a sample
BATCH = 64


def main() -> None:
    """Sample and write, one sample a line."""
    lm = LM.of(*load_model("smollm2-135m"))
    opened = [opening.format(subject) for opening, subject in product(OPENINGS, SUBJECTS)]
    texts = [text[:1].upper() + text[1:] for text in opened]
    torch.manual_seed(0)
    with Path(sys.argv[1]).open("w", encoding="utf-8") as out:
        for start in range(0, len(texts), BATCH):
            ids, mask = pad_left(lm, [Prompt(text) for text in texts[start : start + BATCH]])
            said = lm.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=mask,
                do_sample=True,
                top_p=0.95,
                min_new_tokens=TOKENS,
                max_new_tokens=TOKENS,
            )
            for text in lm.tokenizer.batch_decode(said, skip_special_tokens=True):
                out.write(" ".join(text.split()) + "\n")


if __name__ == "__main__":
    main()
