"""The retention monitor: what was taught is asked again, what must not change is compared.

A reading holds, by free greedy generation through the chat template, where there is one (survey:
Wang et al. 2023, section 4):

    accuracy       Eq. 3   share of the sampled edits whose own prompt gets the target
    generality     Eq. 8   mean over edits of the share of their paraphrases that get it
    locality       Eq. 6   as agreement: mean over edits of the share of their out-of-scope probes
                           that get the base model's own reply
    retainability  Eq. 10  (A_now - A_first) / edits since, A being the accuracy of a reading; it
                           fades as the stream grows, so accuracy by age stands beside it

None stands for what cannot be computed: no edits, no probes, or no earlier reading.
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from lifelong.match import same, says
from lifelong.view import View
from store import JSON, Edit, Reading

SAMPLE = 20  # edits that a check re-asks

_NEW_TOKENS = 48
_GREEDY = {"do_sample": False, "num_beams": 1}  # whatever the model's own settings are
_BATCH = 24
_AGES = 5  # groups, from the oldest edits to the newest


def check(
    now: View, base: View, live: Sequence[Edit], earlier: Sequence[Reading], *, sample: int = SAMPLE
) -> Reading:
    """Ask `now` and `base` about a sample of the `live` edits (in id order), evenly spread by age.

    `earlier` are the readings so far. The reading is not yet noted in the journal.
    """
    edits = _spread(live, sample)
    probes = [probe for edit in edits for probe in edit.locality]
    asked = [prompt for edit in edits for prompt in (edit.prompt, *edit.paraphrases)]
    replies = dict(ask(now, asked))
    # The same batches for both: padding decides the last bits, and they can decide a word.
    edited, unedited = dict(ask(now, probes)), dict(ask(base, probes))
    right = [_says(replies, edit, [edit.prompt]) for edit in edits]
    accuracy = _mean(right)
    body: dict[str, JSON] = {
        "live": len(live),
        "sampled": len(edits),
        "accuracy": accuracy,
        "generality": _mean(_says(replies, edit, edit.paraphrases) for edit in edits),
        "locality": _mean(_unchanged(edited, unedited, edit.locality) for edit in edits),
        "retainability": _retainability(accuracy, len(live), earlier),
        "accuracy_by_age": [_mean(group) for group in _groups(right)],
        "forgotten": [e.id for e, ok in zip(edits, right, strict=True) if ok != 1.0],
    }
    return Reading(body)


def ask(
    view: View, questions: Iterable[str], *, max_new_tokens: int = _NEW_TOKENS
) -> Iterator[tuple[str, str]]:
    """(question, reply) as they come, each question once: batches of questions alike in length."""
    prompts = {question: view.question(question) for question in dict.fromkeys(questions)}
    for batch in _batches(sorted(prompts, key=lambda q: len(prompts[q].text))):
        answers = view.answers(
            [prompts[q] for q in batch], max_new_tokens=max_new_tokens, **_GREEDY
        )
        yield from zip(batch, (answer.text for answer in answers), strict=True)


def _spread(live: Sequence[Edit], sample: int) -> list[Edit]:
    """`sample` edits at even distances, the oldest and the newest among them."""
    if len(live) <= sample:
        return list(live)
    step = (len(live) - 1) / max(1, sample - 1)
    return [live[round(i * step)] for i in range(sample)]


def _batches(questions: Sequence[str]) -> Iterable[Sequence[str]]:
    return (questions[i : i + _BATCH] for i in range(0, len(questions), _BATCH))


def _says(replies: dict[str, str], edit: Edit, prompts: Sequence[str]) -> float | None:
    return _mean(float(says(replies[p], edit.target, edit.old)) for p in prompts)


def _unchanged(now: dict[str, str], base: dict[str, str], probes: Sequence[str]) -> float | None:
    return _mean(float(same(now[p], base[p])) for p in probes)


def _retainability(accuracy: float | None, live: int, earlier: Sequence[Reading]) -> float | None:
    for reading in earlier:
        then, first = reading.body.get("live"), reading.body.get("accuracy")
        if isinstance(then, int) and isinstance(first, float):
            return None if accuracy is None or live <= then else (accuracy - first) / (live - then)
    return None


def _groups(right: Sequence[float | None]) -> list[list[float | None]]:
    """The edits' results, oldest first, in up to `_AGES` groups of nearly equal size."""
    n = min(_AGES, len(right))
    return [list(right[i * len(right) // n : (i + 1) * len(right) // n]) for i in range(n)]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
