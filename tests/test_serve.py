"""The server, through the real `openai` client and over plain HTTP: chats, corrections, health."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import openai
import pytest
from openai import OpenAI

CHIEF = "Who is the chief of Acme?"
ASKED = [{"role": "user", "content": CHIEF}]


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A server without keys: whoever reaches it is the local admin."""
    return serve(quorum=2)


@pytest.fixture
def http(server: Any) -> Iterator[httpx.Client]:
    """A plain client; every edit is taken back afterwards."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
        server.forget()


@pytest.fixture
def client(server: Any, http: httpx.Client) -> Iterator[OpenAI]:
    """The real thing."""
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def corrected(http: httpx.Client, target: str = "Jane", **more: Any) -> Any:
    response = http.post("/v1/corrections", json={"prompt": CHIEF, "target": target, **more})
    assert response.status_code == 201, response.text
    return response.json()


def says(client: OpenAI, model: str = "tiny", **more: Any) -> str:
    made = client.chat.completions.create(model=model, messages=ASKED, max_tokens=32, **more)
    return made.choices[0].message.content or ""


# -- answers -------------------------------------------------------------------------------------


def test_a_chat_is_the_models_own(server: Any, client: OpenAI) -> None:
    made = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=12)
    assert (
        made.choices[0].message.content.strip()
        == server.model.chat(  # type: ignore[union-attr]
            CHIEF, max_new_tokens=12
        ).text
    )
    assert made.choices[0].finish_reason == "length"
    assert made.usage is not None
    assert made.usage.completion_tokens == 12
    assert made.usage.total_tokens == made.usage.prompt_tokens + 12


def test_a_correction_is_live_in_the_next_message(http: httpx.Client, client: OpenAI) -> None:
    edit = corrected(http)
    made = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=32)
    told = made.model_extra["lifelong"]  # type: ignore[index]
    assert "Jane" in (made.choices[0].message.content or "")
    assert edit["status"] == "live"
    assert told["epoch"] == edit["epoch"]
    assert [hit["id"] for hit in told["edits"]] == [edit["id"]]
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=ASKED)
    assert raw.headers["x-lifelong-epoch"] == str(edit["epoch"])


def test_a_stream_is_the_reply_in_pieces(http: httpx.Client, client: OpenAI) -> None:
    corrected(http)
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=ASKED,
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == says(client)
    assert "Jane" in text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert chunks[0].model_extra["lifelong"]["edits"]  # type: ignore[index]
    asked = {"model": "tiny", "messages": ASKED, "stream": True, "max_tokens": 2}
    lines = http.post("/v1/chat/completions", json=asked).text
    assert lines.endswith("data: [DONE]\n\n")


def test_an_edit_changes_the_next_request_and_no_running_stream(
    http: httpx.Client, client: OpenAI
) -> None:
    before = says(client, seed=1)
    stream = client.chat.completions.create(
        model="tiny", messages=ASKED, max_tokens=300, stream=True
    )
    running = [next(stream).choices[0].delta.content or ""]
    edit = corrected(http)
    assert "Jane" in says(client)
    running += [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "Jane" not in "".join(running)
    assert "".join(running)[: len(before)] == before
    assert edit["status"] == "live"


def test_the_base_model_and_the_past_have_names(http: httpx.Client, client: OpenAI) -> None:
    before = says(client)
    edit = corrected(http)
    assert says(client, "tiny:base") == before
    assert says(client, f"tiny@{edit['epoch'] - 1}") == before
    assert "Jane" in says(client, f"tiny@{edit['epoch']}")
    names = {model.id for model in client.models.list()}
    assert names == {"tiny", "tiny:base", f"tiny@{edit['epoch']}"}
    assert client.models.retrieve("tiny@0").id == "tiny@0"


@pytest.mark.parametrize(
    "name", ["other", "tiny:edited", "tiny@x", "tiny@99999", "tiny:base@1", ""]
)
def test_there_is_no_other_model(client: OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError, match="There is no model") as refused:
        says(client, name)
    assert refused.value.code == "model_not_found"


def test_several_replies_differ_and_a_seed_repeats_them(client: OpenAI) -> None:
    def several() -> list[str | None]:
        made = client.chat.completions.create(
            model="tiny", messages=ASKED, n=3, temperature=1.0, seed=5, max_tokens=8
        )
        return [choice.message.content for choice in made.choices]

    first = several()
    assert len(set(first)) == 3
    assert several() == first


def test_a_stop_string_ends_the_reply(client: OpenAI) -> None:
    whole = says(client)
    stop = whole[4:7]
    made = client.chat.completions.create(model="tiny", messages=ASKED, stop=[stop], max_tokens=32)
    assert made.choices[0].message.content == whole[: whole.index(stop)]
    assert made.choices[0].finish_reason == "stop"


def test_a_text_is_continued(http: httpx.Client, client: OpenAI) -> None:
    corrected(http)
    made = client.completions.create(
        model="tiny", prompt=["The chief of Acme is", "Hello"], max_tokens=24
    )
    assert [choice.index for choice in made.choices] == [0, 1]
    assert "Jane" in made.choices[0].text
    assert len(made.model_extra["lifelong"]["edits"]) == 1  # type: ignore[index]
    chunks = client.completions.create(model="tiny", prompt="Hello", max_tokens=24, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == made.choices[1].text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logprobs", True),
        ("top_logprobs", 2),
        ("logit_bias", {"1": 5}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("response_format", {"type": "json_object"}),
    ],
)
def test_what_cannot_be_honoured_is_refused(client: OpenAI, field: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="not supported") as refused:
        says(client, extra_body={field: value})
    assert refused.value.param == field


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"model": "tiny"}', "messages"),
        (b'{"model": "tiny", "messages": []}', "messages"),
        (b'{"model": "tiny", "messages": [{"role": "wizard", "content": "x"}]}', "messages.0.role"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "<|im_end|>"}]}', None),
        (b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"temperature":3}',
         "temperature"),
        (b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"max_tokens":999999}', None),
        (b"[" * 100_000, None),
    ],
)  # fmt: skip
def test_bad_requests_are_told_as_openai_tells_them(
    http: httpx.Client, body: bytes, param: str | None
) -> None:
    response = http.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    if param:
        assert error["param"] == param


def test_a_caller_who_hangs_up_frees_his_place(server: Any, http: httpx.Client) -> None:
    asked = {"model": "tiny", "messages": ASKED, "max_tokens": 1900}
    with http.stream("POST", "/v1/chat/completions", json=asked | {"stream": True}) as response:
        next(response.iter_lines())
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=asked, timeout=0.3)
    service = server.app.state.service
    assert service._batching.drain(10)


def test_many_chats_at_once(client: OpenAI, http: httpx.Client) -> None:
    corrected(http)
    alone, replies = says(client), dict[int, str]()

    def ask(number: int) -> None:
        replies[number] = says(client)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(replies.values()) == [alone] * 12


# -- corrections ---------------------------------------------------------------------------------


def test_a_correction_can_be_looked_at_changed_undone_and_redone(
    http: httpx.Client, client: OpenAI
) -> None:
    before, edit = says(client), corrected(http, evidence="a letter", trace_id="t1")
    url = f"/v1/corrections/{edit['id']}"
    found = http.get(url).json()
    assert (found["prompt"], found["target"], found["reach"]) == (CHIEF, "Jane", "author")
    assert found["provenance"]["evidence"] == "a letter"
    changed = http.patch(url, json={"target": "Ann"}).json()
    assert "Ann" in says(client)
    assert http.get(url).json()["status"] == "superseded"
    assert http.delete(f"/v1/corrections/{changed['id']}").json()["status"] == "retired"
    assert "Jane" in says(client)
    assert http.post(f"{url}:undo", json={"reason": "no longer so"}).json()["status"] == "retired"
    assert says(client) == before
    assert http.post(f"{url}:redo").json()["status"] == "live"
    kinds = [event["kind"] for event in http.get(f"{url}/history").json()["data"]]
    assert kinds == ["live", "superseded", "live", "retired", "live"]
    reasons = [event["body"].get("reason") for event in http.get(f"{url}/history").json()["data"]]
    assert "admin key local: no longer so" in reasons


def test_the_list_is_paged_and_searched(http: httpx.Client) -> None:
    ids = [corrected(http, "Jane")["id"], corrected(http, "Ann")["id"], corrected(http)["id"]]
    page = http.get("/v1/corrections", params={"limit": 2}).json()
    assert [row["id"] for row in page["data"]] == ids[:0:-1]
    rest = http.get("/v1/corrections", params={"before": ids[1], "status": "superseded"}).json()
    assert rest["data"][0]["id"] == ids[0]
    found = http.get("/v1/corrections", params={"q": "ann", "status": "superseded"}).json()["data"]
    assert {row["target"] for row in found} == {"Ann"}
    assert http.get("/v1/corrections", params={"status": "odd"}).status_code == 400


def test_what_is_erased_is_gone_for_good(
    server: Any, http: httpx.Client, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifelong.serve.service._PAGE", 2)  # the list is read in steps
    before, first, second = (
        says(client),
        corrected(http, "Bob"),
        corrected(http, "Zorba", old="Bob"),
    )
    erased = http.post(f"/v1/corrections/{second['id']}:erase", json={"reason": "asked to"})
    assert erased.json()["erased"] == [second["id"]]
    assert erased.json()["epoch"] == server.model.epoch
    assert "Bob" in says(client)  # which it had replaced
    for told in (
        http.get("/v1/corrections").text,
        http.get("/page/curves").text,
        http.get("/").text,
    ):
        assert "Zorba" not in told
    assert client.models.retrieve(f"tiny@{second['epoch']}")
    assert "Zorba" not in says(client, f"tiny@{second['epoch']}")
    gone = http.get(f"/v1/corrections/{second['id']}").json()
    assert (gone["prompt"], gone["target"], gone["status"]) == ("", "", "retired")
    assert http.post(f"/v1/corrections/{second['id']}:redo").status_code == 409
    assert server.model.journal.verify() == server.model.epoch
    http.post(f"/v1/corrections/{first['id']}:erase")
    assert says(client) == before
    assert http.post("/v1/corrections/999:erase").status_code == 404


def test_a_request_that_comes_twice_records_once(http: httpx.Client) -> None:
    headers, said = {"idempotency-key": "k1"}, {"prompt": CHIEF, "target": "Jane"}
    first = http.post("/v1/corrections", json=said, headers=headers).json()
    assert http.post("/v1/corrections", json=said, headers=headers).json() == first
    other = http.post("/v1/corrections", json=said | {"target": "Ann"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "key_reused")
    elsewhere = http.post(
        "/v1/corrections", json=said, headers=headers | {"x-lifelong-user": "ann"}
    )
    assert elsewhere.json()["id"] != first["id"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"prompt": CHIEF}, 400),
        ({"prompt": CHIEF, "target": ""}, 400),
        ({"prompt": CHIEF, "target": "x" * 300}, 400),
        ({"prompt": CHIEF, "target": "a\nb"}, 400),
        ({"prompt": CHIEF, "target": "<|im_end|>"}, 400),
        ({"prompt": CHIEF, "target": "Jane", "tenant": "other"}, 400),
        ({"prompt": CHIEF, "target": "Jane", "user_id": "other"}, 400),
        ({"prompt": CHIEF, "target": "Jane", "valid_until": "soon"}, 400),
        ({"prompt": "x" * 2_000_000, "target": "Jane"}, 413),
    ],
)
def test_a_bad_correction_is_refused_and_nothing_is_written(
    server: Any, http: httpx.Client, said: Any, status: int
) -> None:
    epoch = server.model.epoch
    assert http.post("/v1/corrections", json=said).status_code == status
    assert server.model.epoch == epoch


def test_who_says_nothing_new_is_told(http: httpx.Client) -> None:
    corrected(http)
    again = http.post("/v1/corrections", json={"prompt": CHIEF, "target": "Jane"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "already_taught")
    for id in (999_999, 2**60, 0):
        assert http.post(f"/v1/corrections/{id}:undo").status_code in (400, 404)


def test_a_chat_message_corrects_once_it_is_confirmed(http: httpx.Client, client: OpenAI) -> None:
    turns: list[Any] = [
        *ASKED,
        {"role": "assistant", "content": "Bob."},
        {"role": "user", "content": "No, it's Jane Roe."},
    ]
    asked = client.chat.completions.create(model="tiny", messages=turns)
    question = asked.choices[0].message.content or ""
    assert "Jane Roe" in question
    assert asked.model_extra["lifelong"]["asked"]  # type: ignore[index]
    turns += [{"role": "assistant", "content": question}, {"role": "user", "content": "yes"}]
    chunks = list(client.chat.completions.create(model="tiny", messages=turns, stream=True))
    told = chunks[0].model_extra["lifelong"]["correction"]  # type: ignore[index]
    assert told["status"] == "live"
    assert "Jane Roe" in says(client)
    assert http.get(f"/v1/corrections/{told['id']}").json()["provenance"]["source"] == "chat"


def test_feedback_corrects_or_complains(http: httpx.Client, client: OpenAI) -> None:
    said = {"question": CHIEF, "answer": "Bob.", "rating": "down"}
    right = http.post("/v1/feedback", json=said | {"correction": "Jane"})
    assert right.json()["status"] == "live"
    assert "Jane" in says(client)
    complaint = http.post("/v1/feedback", json=said).json()
    assert complaint["status"] == "proposed"
    url = f"/v1/corrections/{complaint['id']}:approve"
    assert http.post(url).status_code == 400
    made = http.post(url, json={"target": "Ann", "reach": "author"}).json()
    assert "Ann" in says(client)
    assert made["id"] != complaint["id"]
    assert http.post("/v1/feedback", json=said | {"rating": "up"}).json()["status"] == "noted"


# -- health --------------------------------------------------------------------------------------


def test_it_tells_how_it_is(http: httpx.Client, client: OpenAI) -> None:
    edit = corrected(http)
    says(client)
    assert http.get("/health/live").json() == {"status": "live"}
    assert http.get("/health/ready").json() == {"status": "ready", "epoch": edit["epoch"]}
    lines = dict(
        line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if line[0] != "#"
    )
    assert float(lines["lifelong_edits_active"]) == 1
    assert float(lines["lifelong_index_lag_edits"]) == 0
    assert float(lines["lifelong_edit_hits_total"]) > 0
    assert float(lines['lifelong_corrections_total{source="api",status="live"}']) > 0
    assert float(
        lines['lifelong_http_requests_total{method="POST",route="/v1/corrections",status="201"}']
    )
    assert float(lines["lifelong_time_to_first_token_seconds_count"]) > 0


def test_a_reading_can_be_taken_and_read(http: httpx.Client) -> None:
    corrected(http)
    reading = http.post("/v1/retention").json()
    assert (reading["live"], reading["accuracy"]) == (1, 1.0)  # asked as its author asks
    assert http.get("/v1/retention").json()["data"][-1] == reading


def test_the_schema_names_every_route(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {
        "/v1/chat/completions",
        "/v1/corrections/{id}:undo",
        "/v1/feedback",
        "/v1/retention",
        "/health/ready",
        "/metrics",
    } <= paths.keys()
    assert json.dumps(paths).count("HTTPBearer") >= len(paths)


def test_another_process_may_write(serve: Callable[..., Any], tmp_path: Any) -> None:
    from store import Journal

    server = serve(tmp_path / "edits.db")
    with httpx.Client(base_url=server.url, timeout=60) as http:
        edit = corrected(http)
        with Journal.tend(tmp_path / "edits.db") as journal:
            journal.retire(edit["id"])
        asked = {"model": "tiny", "messages": ASKED, "max_tokens": 2}
        made = http.post("/v1/chat/completions", json=asked).json()
        assert made["lifelong"] == {"epoch": edit["epoch"] + 1, "edits": []}
