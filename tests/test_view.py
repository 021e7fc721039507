"""Answers and streams: one text whichever way it is asked for, and no error gets lost."""

from collections.abc import Callable, Sequence
from threading import Event
from threading import enumerate as enumerate_threads
from typing import Any

import pytest
import torch
from transformers import StoppingCriteriaList

from lifelong import view as view_module
from lifelong.errors import MessagesRefused, NoChatTemplate, Stalled
from lifelong.match import says
from lifelong.prompt import Prompt
from lifelong.runtime import EditableModel
from lifelong.view import MAX_NEW_TOKENS, Answer, Stream, View

MakeModel = Callable[..., EditableModel]

QUESTIONS = ["Who runs Acme?", "Where is Globex?"]  # in scope, out of scope


@pytest.fixture
def taught(model: EditableModel) -> EditableModel:
    model.edit("Who runs Acme?", "Dana Ruiz")
    return model


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kwargs", [{}, {"max_new_tokens": 9}, {"repetition_penalty": 1.5}])
def test_a_stream_is_the_answer_in_pieces(
    taught: EditableModel, question: str, kwargs: dict[str, Any]
) -> None:
    whole = taught.chat(question, **kwargs)
    stream = taught.chat(question, stream=True, **kwargs)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces).strip() == whole.text
    assert stream.answer == whole


def test_a_stream_knows_its_edits_and_what_was_read_so_far(taught: EditableModel) -> None:
    stream = taught.chat("Who runs Acme?", stream=True)
    assert [hit.id for hit in stream.answer.edits] == [1]
    assert stream.answer.text == ""
    first = next(stream)
    assert stream.answer.text == first.strip()
    rest = "".join(stream)
    assert says(first + rest, "Dana Ruiz")
    with pytest.raises(StopIteration):
        next(stream)


def test_a_stream_keeps_the_route_it_began_with(taught: EditableModel) -> None:
    whole = taught.chat("Who runs Acme?")
    stream = taught.chat("Who runs Acme?", stream=True)
    first = next(stream)
    taught.undo(1)
    assert (first + "".join(stream)).strip() == whole.text
    assert stream.answer.epoch == whole.epoch
    assert taught.chat("Who runs Acme?").edits == ()


class Broken(Exception):
    """Raised while a reply is made."""


def breaking(after: int) -> StoppingCriteriaList:
    calls: list[int] = []

    def criterion(ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > after:
            raise Broken
        return torch.zeros(len(ids), dtype=torch.bool)

    return StoppingCriteriaList([criterion])


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("after", [0, 4])
def test_an_error_in_the_making_reaches_the_reader(
    taught: EditableModel, question: str, after: int
) -> None:
    stream = taught.chat(question, stream=True, stopping_criteria=breaking(after))
    with pytest.raises(Broken):
        list(stream)
    assert stream.answer.text != taught.chat(question).text


def test_a_reply_that_stops_coming_is_given_up(
    taught: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "_STREAM_SECONDS", 0.05)
    stuck = Event()

    def criterion(ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        stuck.wait(10)
        return torch.ones(len(ids), dtype=torch.bool)

    stream = taught.chat("Where is Globex?", stream=True, stopping_criteria=[criterion])
    with pytest.raises(Stalled, match="no new token"):
        list(stream)
    stuck.set()


@pytest.mark.parametrize("leave", ["close", "drop", "end the program"])
def test_a_stream_that_nobody_reads_stops_making_its_reply(
    taught: EditableModel, leave: str
) -> None:
    made: list[int] = []

    def criterion(ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        made.append(ids.shape[1])
        return torch.zeros(len(ids), dtype=torch.bool)

    running = set(enumerate_threads())
    stream = taught.chat(
        "Where is Globex?", stream=True, max_new_tokens=1500, stopping_criteria=[criterion]
    )
    (thread,) = set(enumerate_threads()) - running
    next(stream)
    if leave == "end the program":
        assert not thread.daemon  # Python waits for it
    if leave == "close":
        stream.close()
        stream.close()
        assert list(stream) == []
    else:
        del stream
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert len(made) < 1000


def test_an_argument_that_generate_does_not_know_reaches_the_reader(taught: EditableModel) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        list(taught.chat("Who runs Acme?", stream=True, nonsense=1))
    with pytest.raises(ValueError, match="beam search"):
        list(taught.chat("Who runs Acme?", stream=True, num_beams=2))


def test_several_prompts_are_answered_in_one_batch_as_one_by_one(taught: EditableModel) -> None:
    view = taught.view()
    prompts = [view.prompt(question) for question in QUESTIONS] + [Prompt("Who runs Acme?")]
    together = view.answers(prompts, max_new_tokens=32)
    assert [[hit.id for hit in answer.edits] for answer in together] == [[1], [], [1]]
    assert says(together[0].text, "Dana Ruiz")
    assert together[2].text.startswith("Dana Ruiz")
    assert {answer.epoch for answer in together} == {1}


def test_a_conversation_is_routed_by_its_last_question(taught: EditableModel) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who runs Acme?"},
        {"role": "assistant", "content": "Kim."},
    ]
    other = taught.chat([*turns, {"role": "user", "content": "Where is Globex?"}])
    assert other.edits == ()
    again = taught.chat([*turns, {"role": "user", "content": "So who runs Acme?"}])
    assert [hit.id for hit in again.edits] == [1]
    assert says(again.text, "Dana Ruiz")
    assert taught.explain([*turns, {"role": "user", "content": "Hi"}]).hits == ()


def test_one_text_is_a_conversation_of_one_message(taught: EditableModel) -> None:
    for question in QUESTIONS:
        listed = taught.chat([{"role": "user", "content": question}])
        assert listed == taught.chat(question)


def test_messages_are_not_changed(taught: EditableModel) -> None:
    messages = [{"role": "system", "content": "Hm."}, {"role": "user", "content": "Who runs Acme?"}]
    before = [dict(message) for message in messages]
    taught.chat(messages)
    assert messages == before


def test_a_reply_is_as_long_as_allowed(taught: EditableModel) -> None:
    tokenizer = taught._session.lm.tokenizer
    lengths: list[int] = []
    base = taught._generate

    def counting(ids: torch.Tensor, **kwargs: Any) -> Any:
        out = base(ids, **kwargs)
        lengths.append(out.shape[1] - ids.shape[1])
        return out

    view = View(taught._session.lm, counting, taught._route)
    view.chat("Where is Globex?", eos_token_id=tokenizer.vocab_size + 1)
    view.complete("Where is Globex?", eos_token_id=tokenizer.vocab_size + 1)
    view.chat("Where is Globex?", eos_token_id=tokenizer.vocab_size + 1, max_new_tokens=7)
    assert lengths == [MAX_NEW_TOKENS, MAX_NEW_TOKENS, 7]


def test_without_a_chat_template_there_is_completion_and_no_chat(make_model: MakeModel) -> None:
    model = make_model("gpt2", template=None)
    model.edit("Acme is run by", "Dana Ruiz")
    assert model.complete("Acme is run by").text == "Dana Ruiz."
    assert model.complete("Globex is in", max_new_tokens=4).edits == ()
    for stream in (False, True):
        with pytest.raises(NoChatTemplate, match="raw prompt"):
            model.chat("Who runs Acme?", stream=stream)  # type: ignore[call-overload]


def test_messages_that_the_template_refuses_say_so(make_model: MakeModel) -> None:
    strict = "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}<assistant>"
    model = make_model(template=strict + turns)
    with pytest.raises(MessagesRefused, match="user first"):
        model.chat([{"role": "assistant", "content": "Hi"}])


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user"}],
        [{"content": "Hi"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        ["Hi"],
        [{"role": "user", "content": "Hi"}, None],
    ],
)
def test_messages_of_another_shape_are_refused(
    taught: EditableModel, messages: Sequence[Any]
) -> None:
    with pytest.raises(MessagesRefused):
        taught.chat(messages)


def test_an_answer_is_a_plain_record(taught: EditableModel) -> None:
    answer = taught.chat("Who runs Acme?")
    assert answer == Answer(answer.text, 1, answer.edits)
    assert answer.edits[0].edit == taught.get(1)
    assert isinstance(taught.chat("Who runs Acme?", stream=True), Stream)
