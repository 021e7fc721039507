"""Many replies at once: each is what it would be alone, whoever joins or leaves meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import pytest
import torch

from lifelong.batching import Batching, Piece, Sampling, Text, Ticket
from lifelong.errors import Busy, EmptyPrompt, PromptTooLong
from lifelong.methods import METHODS
from lifelong.methods.grace import Grace
from lifelong.prompt import Prompt
from lifelong.runtime import EditableModel
from lifelong.view import View

CHIEF = "Who is the chief of Acme?"
QUESTIONS = ["Hello there", "What is the time, and where?", "A", "Sing me a long song of the sea."]


@pytest.fixture
def batching(model: EditableModel) -> Iterator[Batching]:
    """The loop around `model`, three rows at a time."""
    loop = model.batching(most=3)
    yield loop
    loop.close()


class Heard:
    """A listener, and what it was told."""

    def __init__(self, batching: Batching, view: View, question: str, **sampling: Any) -> None:
        self._queue: SimpleQueue[Piece | Exception] = SimpleQueue()
        sampling = {"max_tokens": 12} | sampling
        prompt = view.prompt(question)
        self.ticket: Ticket = batching.ask(view, prompt, Sampling(**sampling), self._queue.put)

    def pieces(self) -> Iterator[Piece]:
        while True:
            piece = self._queue.get(timeout=30)
            if isinstance(piece, Exception):
                raise piece
            yield piece
            if piece.finish:
                return

    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces())


def alone(model: EditableModel, question: str, tokens: int = 12) -> str:
    return model.chat(question, max_new_tokens=tokens).text


def test_an_edit_inside_the_model_acts_on_its_row_only(
    model: EditableModel, batching: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "grace", Grace(layer=2, steps=4, most=torch.inf))
    before = alone(model, CHIEF)
    model.edit(CHIEF, "Jo", subject="Acme", method="grace")
    questions = [QUESTIONS[0], CHIEF, QUESTIONS[1]]
    heard = [Heard(batching, model.view(), question) for question in questions]
    replies = [one.text().strip() for one in heard]
    assert replies == [alone(model, question) for question in questions]
    assert replies[1] != before


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-38, 1e-6, 1.1e-5])
def test_the_colder_the_likelier(
    model: EditableModel, batching: Batching, temperature: float
) -> None:
    model.edit(CHIEF, "Jane")
    for question in (QUESTIONS[0], CHIEF):
        heard = Heard(batching, model.view(), question, temperature=temperature)
        assert heard.text().strip() == alone(model, question)


def test_every_reply_is_what_it_is_alone(
    every_family: EditableModel, lengths: Sequence[int]
) -> None:
    model = every_family
    loop = model.batching(most=3)
    view = model.view()
    asked = [Heard(loop, view, q, max_tokens=n) for q, n in zip(QUESTIONS, lengths, strict=True)]
    replies = [heard.text() for heard in asked]
    loop.close()
    assert [r.strip() for r in replies] == [
        alone(model, q, n) for q, n in zip(QUESTIONS, lengths, strict=True)
    ]


@pytest.fixture
def every_family(make_model: Callable[..., EditableModel], family: str) -> EditableModel:
    """A twin of each family that takes corrections."""
    return make_model(family)


@pytest.fixture(params=[(3, 14, 5, 9), (9, 2, 12, 4)])
def lengths(request: pytest.FixtureRequest) -> Sequence[int]:
    """Rows leave at different times, so one of four joins three that are under way."""
    return tuple(request.param)


def test_an_edit_shapes_its_own_row_only(model: EditableModel, batching: Batching) -> None:
    edit = model.edit(CHIEF, "Jane")
    taught = Heard(batching, model.view(), CHIEF, max_tokens=24)
    other = Heard(batching, model.view(), QUESTIONS[0])
    base = Heard(batching, model.view(edits=False), CHIEF)
    assert "Jane" in taught.text()
    assert [hit.id for hit in taught.ticket.route.hits] == [edit.id]
    assert other.text().strip() == alone(model, QUESTIONS[0])
    with model.disable_edits():
        assert base.text().strip() == alone(model, CHIEF)


def test_an_edit_changes_the_next_request_and_no_running_one(
    model: EditableModel, batching: Batching
) -> None:
    before = alone(model, CHIEF, 200)
    running = Heard(batching, model.view(), CHIEF, max_tokens=200)
    pieces = running.pieces()
    said = next(pieces).text
    model.edit(CHIEF, "Jane")
    later = Heard(batching, model.view(), CHIEF, max_tokens=24)
    assert "Jane" in later.text()
    assert (said + "".join(piece.text for piece in pieces)).strip() == before


def test_weights_change_between_batches_only(
    make_model: Callable[..., EditableModel],
) -> None:
    model = make_model()
    loop, epoch = model.batching(), model.epoch
    before = alone(model, QUESTIONS[0], 60)
    running = Heard(loop, model.view(), QUESTIONS[0], max_tokens=60)
    next(running.pieces())
    model.edit("The chief of Acme is", "Jane", subject="Acme", method="rome")
    now = Heard(loop, model.view(), QUESTIONS[0], max_tokens=60)
    then = Heard(loop, model.at(epoch), QUESTIONS[0], max_tokens=60)
    now_text, then_text = now.text().strip(), then.text().strip()
    loop.close()
    assert then_text == before
    assert now_text == alone(model, QUESTIONS[0], 60)
    assert model.written
    assert now.ticket.state.key != then.ticket.state.key


def test_draws_are_a_rows_own(model: EditableModel, batching: Batching) -> None:
    def drawn(seed: int) -> str:
        return Heard(batching, model.view(), "Hello", temperature=1.0, top_p=0.9, seed=seed).text()

    alone_, other = drawn(7), drawn(8)
    crowd = [
        Heard(batching, model.view(), q, temperature=1.0, top_p=0.9, seed=s)
        for q, s in [("Bye now, friend", 1), ("Hello", 7), ("x", 2)]
    ]
    assert [heard.text() for heard in crowd][1] == alone_
    assert alone_ != other


def test_a_reply_ends_before_its_stop_string(model: EditableModel, batching: Batching) -> None:
    whole = Heard(batching, model.view(), "Hello", max_tokens=40).text()
    stop = whole[5:8]
    heard = list(Heard(batching, model.view(), "Hello", max_tokens=40, stop=(stop,)).pieces())
    assert "".join(piece.text for piece in heard) == whole[: whole.index(stop)]
    assert heard[-1].finish == "stop"
    absent = Heard(batching, model.view(), "Hello", max_tokens=40, stop=(stop + "\u2603",))
    assert absent.text() == whole  # what was kept back is told in the end


def test_penalties_make_a_reply_less_repetitive(model: EditableModel, batching: Batching) -> None:
    def kinds(**penalties: float) -> int:
        return len(set(Heard(batching, model.view(), "Hi", max_tokens=40, **penalties).text()))

    assert kinds(presence_penalty=2.0, frequency_penalty=2.0) > kinds()


def test_who_cancels_makes_room(model: EditableModel, batching: Batching) -> None:
    crowd = [Heard(batching, model.view(), q, max_tokens=2000) for q in QUESTIONS[:3]]
    for heard in crowd:
        next(heard.pieces())
        heard.ticket.cancel()
    assert Heard(batching, model.view(), "Hello").text().strip() == alone(model, "Hello")
    assert batching.drain(10)


def test_one_rows_fault_is_no_others(model: EditableModel, batching: Batching) -> None:
    def deaf(piece: Piece | Exception) -> None:
        if isinstance(piece, Piece):
            raise RuntimeError("deaf")

    view = model.view()
    batching.ask(view, view.prompt("Hi"), Sampling(40), deaf)
    assert Heard(batching, view, "Hello").text().strip() == alone(model, "Hello")


def test_what_cannot_be_answered_is_refused(model: EditableModel, batching: Batching) -> None:
    with pytest.raises(PromptTooLong, match="max_tokens"):
        Heard(batching, model.view(), "Hello", max_tokens=1_000_000)
    view = model.view()
    with pytest.raises(EmptyPrompt):
        batching.ask(view, Prompt(""), Sampling(4), print)
    running = Heard(batching, view, "Hello", max_tokens=1900)
    next(running.pieces())
    batching.close()
    with pytest.raises(Busy):
        list(running.pieces())
    with pytest.raises(Busy):
        Heard(batching, model.view(), "Hello")


def test_characters_are_told_whole(model: EditableModel) -> None:
    text = Text(model.tokenizer, ())
    tokens = model.tokenizer.encode("a\u00e9\U0001f600b", add_special_tokens=False)
    told = [text.add(token) for token in tokens]
    assert [piece for piece in told if piece] == ["a", "\u00e9", "\U0001f600", "b"]
