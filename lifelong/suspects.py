"""Which edits explain that questions get wrong replies?

A reply names the edits that shaped it: one that shaped another edit's reply, or a reply that was
to stay as it was, is a suspect at once. What no edit shaped is asked again of the past: undo is
exact, so `at(epoch)` answers as the model did, and halving finds the epoch from which on most of
the questions go wrong. The edit that arrived then is a suspect.
"""

from collections import Counter
from collections.abc import Collection, Sequence

from lifelong.match import says
from lifelong.monitor import Budget, Monitor, Result, answers
from lifelong.view import View
from store import Journal

SHOWN = 5

_ASKED_AGAIN = 8  # questions, one batch


def suspects(monitor: Monitor, failed: Sequence[Result], budget: Budget) -> tuple[int, ...]:
    """The ids of the edits that explain most of what `failed`, the likeliest first."""
    blame: Counter[int] = Counter()
    unexplained = []
    for result in failed:
        others = [hit.id for hit in result.answer.edits if _intrudes(result, hit.id)]
        blame.update(others)
        if not others:
            unexplained.append(result)
    if some := unexplained[-_ASKED_AGAIN:]:  # of the newest, whose arrival is not long ago
        epoch = _onset(monitor, some, budget)
        blame.update(dict.fromkeys(_arrived(monitor.journal, epoch), len(unexplained)))
    return tuple(id for id, _ in blame.most_common(SHOWN))


def _intrudes(result: Result, id: int) -> bool:
    return result.measure == "locality" or id != result.edit.id


def _onset(monitor: Monitor, failed: Sequence[Result], budget: Budget) -> int:
    """The first epoch at which most of `failed` go wrong, as far as the budget goes."""
    fine, wrong = 0, monitor.journal.epoch
    while wrong - fine > 1 and not budget.over:
        middle = (fine + wrong) // 2
        if _mostly_wrong(monitor, failed, middle, budget):
            wrong = middle
        else:
            fine = middle
    return wrong


def _mostly_wrong(monitor: Monitor, failed: Sequence[Result], epoch: int, budget: Budget) -> bool:
    """Whether most of the questions that made sense at `epoch` went wrong then."""
    there = set(monitor.journal.live_ids(epoch))
    asked = [r for r in failed if r.measure == "locality" or r.edit.id in there]
    then, right = monitor.at(epoch), list[bool]()
    for audience in dict.fromkeys(result.edit.audience for result in asked):
        some = [result for result in asked if result.edit.audience == audience]
        right += _right(monitor, then(audience), some, budget)
    return sum(right) * 2 < len(right)


def _right(
    monitor: Monitor, view: View, asked: Sequence[Result], budget: Budget
) -> Collection[bool]:
    """Whether each question had the right reply in this view, as far as the budget goes."""
    replies = dict(answers(view, [result.question for result in asked], budget))
    apart = [r.question for r in asked if r.measure == "locality" and r.question in replies]
    right = monitor.unchanged(view, {question: replies[question] for question in apart}, budget)
    right |= {
        r.question: says(replies[r.question].text, r.edit.target, r.edit.old)
        for r in asked
        if r.measure != "locality" and r.question in replies
    }
    return right.values()


def _arrived(journal: Journal, epoch: int) -> list[int]:
    """Whose event it is, and because of whom it happened."""
    event = journal.history(since=epoch - 1)[0]
    return [event.edit_id, *([event.cause] if event.cause not in (None, event.edit_id) else [])]
