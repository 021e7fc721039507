"""`lifelong chat`: talk with the model, correct it, ask it why.

"No, it's Jane Roe" proposes a correction of the answer before; a "yes" records it.
What is no longer so leaves the conversation: a reply that was corrected, and every reply that a
correction shaped once that correction is undone. Else the model would repeat it from there.
"""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text
from typer import BadParameter, echo

import lifelong
from lifelong.cli.ask import reasons
from lifelong.cli.setup import Setup, table, tell
from lifelong.errors import BadEdit, LifelongError
from lifelong.extract import Fact, denied
from lifelong.refer import Turn as Said
from lifelong.refer import guessed, in_full
from store import Reach, StoreError

_REMEMBERED = 20  # turns of the conversation that the model reads again
_YES = frozenset("y yes yes. yes!".split())
_NO = frozenset("n no no. no!".split())
_EVERYONE: Mapping[str, Any] = {}
_REACH: Mapping[str, Reach] = {"me": "author", "team": "tenant", "all": "everyone"}
_HELP = """\
/correct ANSWER  the last answer should have said ANSWER
/undo [ID]       take a correction back: this one, or the last
/redo [ID]       bring it back
/for me|team|all who gets the last correction
/wrong           the last answer is wrong; somebody else shall say what is right
/why             which correction shapes the answer to the last question
/edits           the corrections that are live
/base            the last question, answered without any correction
/help            this
/quit            leave; so do Ctrl-D and Ctrl-C"""


def chat(setup: Setup) -> None:
    """Talk with the model and correct it; `/help` shows how."""
    if setup.json:
        raise BadParameter("a chat is for people; scripts take `lifelong ask --json`")
    with suppress(KeyboardInterrupt), setup.open() as model:
        live = len(model.list("live", **setup.asker))
        _note(f"{setup.model}, live corrections: {live}. /help shows what you can do.")
        Chat(model, setup.asker).listen(_lines())


@dataclass(frozen=True)
class Turn:
    """A question and its answer; None once the answer no longer holds."""

    question: str
    answer: "lifelong.Answer | None"

    def without(self, id: int) -> "Turn":
        """The turn when edit `id` is gone."""
        shaped = self.answer and any(hit.id == id for hit in self.answer.edits)
        return replace(self, answer=None) if shaped else self


class Chat:
    """One conversation."""

    def __init__(
        self, model: "lifelong.EditableModel", asker: Mapping[str, Any] = _EVERYONE
    ) -> None:
        self._model = model
        self._asker = asker
        self._earlier: list[Turn] = []
        self._last: Turn | None = None
        self._made: list[int] = []  # edits of this chat, the newest last
        self._undone: list[int] = []
        self._proposed: Fact | None = None  # until the next line
        self._commands: dict[str, Callable[[str], None]] = {
            "correct": self._correct,
            "undo": self._undo,
            "redo": self._redo,
            "for": self._for,
            "wrong": self._wrong,
            "why": self._why,
            "edits": self._edits,
            "base": self._base,
            "help": lambda _: _note(_HELP),
        }

    def listen(self, lines: Iterable[str]) -> None:
        """Answer line after line, until `/quit` or the end; an error is told, and on it goes."""
        for line in map(str.strip, lines):
            if line in ("/quit", "!quit"):
                break
            try:
                self._hear(line)
            except (LifelongError, StoreError) as error:
                tell(error)

    def _hear(self, line: str) -> None:
        proposed, self._proposed = self._proposed, None
        if line.startswith(("/", "!")):
            name, _, rest = line[1:].partition(" ")
            if name not in self._commands:
                raise BadEdit(f"There is no command {line[0]}{name}.", "/help shows them.")
            self._commands[name](rest.strip())
        elif line:
            self._talk(line, proposed)

    def _talk(self, line: str, proposed: Fact | None) -> None:
        if proposed and line.lower() in _YES:
            return self._record(proposed.prompt, proposed.target)
        if proposed and line.lower() in _NO:
            return _note("Nothing was recorded.")
        if self._last and self._last.answer:
            self._proposed = denied(line, self._in_full())
        if self._proposed:
            corrected = f"{self._proposed.prompt} -> {self._proposed.target}"
            return _note(f"Record it ({corrected})? yes, no, or go on.")
        earlier = self._turns()
        self._earlier, self._last = earlier, Turn(line, self._answer(earlier, line))

    def _turns(self) -> list[Turn]:
        turns = [*self._earlier, *([self._last] if self._last else [])]
        return [turn for turn in turns if turn.answer][-_REMEMBERED:]

    def _answer(self, earlier: Iterable[Turn], question: str) -> "lifelong.Answer":
        stream = self._model.chat(_messages(earlier, question), stream=True, **self._asker)
        with closing(stream):
            for piece in stream:
                echo(piece, nl=False)
        echo()
        return stream.answer

    def _question(self) -> str:
        if self._last is None:
            raise BadEdit("Nothing was asked yet.", "Ask something first.")
        return self._last.question

    def _in_full(self) -> str:
        """The last question with the name of whom it is about, where earlier turns have that."""
        turns = [Said(turn.question, turn.answer.text) for turn in self._earlier if turn.answer]
        return in_full(self._question(), turns, guessed)

    def _correct(self, target: str) -> None:
        self._record(self._in_full(), target)

    def _record(self, prompt: str, target: str) -> None:
        edit = self._model.edit(prompt, target, provenance={"source": "chat"}, **self._asker)
        self._made.append(edit.id)
        self._last = Turn(self._question(), None)
        about = f", about {edit.subject}" if edit.subject else ""
        _note(f"Edit {edit.id} is live{about}. Ask again, in any words.")

    def _undo(self, id: str) -> None:
        edit = self._model.undo(_number(id, self._made))
        self._earlier = [turn.without(edit.id) for turn in self._earlier]
        self._last = self._last and self._last.without(edit.id)
        _move(edit.id, self._made, self._undone)
        _note(f"Edit {edit.id} is {edit.status}: {edit.prompt} -> {edit.target}")

    def _redo(self, id: str) -> None:
        edit = self._model.redo(_number(id, self._undone))
        _move(edit.id, self._undone, self._made)
        _note(f"Edit {edit.id} is {edit.status}: {edit.prompt} -> {edit.target}")

    def _for(self, whom: str) -> None:
        if whom not in _REACH:
            raise BadEdit(f"{whom!r} is nobody.", "Say /for me, /for team or /for all.")
        edit = self._model.promote(_number("", self._made), _REACH[whom])
        _note(f"Edit {edit.id} is {edit.status} for {_REACH[whom]}.")

    def _wrong(self, _: str) -> None:
        question = self._question()
        said = self._last.answer.text if self._last and self._last.answer else ""
        edit = self._model.wrong(question, said, **self._asker)
        _note(f"Complaint {edit.id} waits: lifelong review shows it.")

    def _why(self, _: str) -> None:
        asked = _messages(self._earlier, self._question())
        _note(reasons(self._model.explain(asked, **self._asker)))

    def _edits(self, _: str) -> None:
        rows = [
            (edit.id, edit.prompt, edit.target) for edit in self._model.list("live", **self._asker)
        ]
        Console().print(table(("id", "prompt", "target"), rows))

    def _base(self, _: str) -> None:
        question = self._question()
        with self._model.disable_edits():
            self._answer(self._earlier, question)


def _messages(earlier: Iterable[Turn], question: str) -> list[dict[str, str]]:
    """The conversation as the model reads it: the turns that hold, then the question."""
    messages = []
    for turn in earlier:
        if turn.answer:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer.text.strip()})
    return [*messages, {"role": "user", "content": question}]


def _number(given: str, latest: list[int]) -> int:
    if given.isdecimal():
        return int(given)
    if given or not latest:
        what = f"{given!r} is no edit's number." if given else "This chat has none left."
        raise BadEdit(what, "Name one by its number: /edits shows them.")
    return latest[-1]


def _move(id: int, source: list[int], target: list[int]) -> None:
    source[:] = [other for other in source if other != id]
    target.append(id)


def _note(text: str) -> None:
    Console().print(Text(text, "dim"), soft_wrap=True)


def _lines() -> Iterator[str]:
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  arrow keys and history for `input`, where there is one
        with suppress(EOFError):
            while True:
                yield input("> ")
    else:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        yield from sys.stdin
