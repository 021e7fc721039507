"""Who may do what: keys, roles, tenants, origins, limits; and what a caller never learns."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from lifelong.errors import BadSetting
from lifelong.serve.keys import Caller, Keys, caller_of
from lifelong.serve.limits import Allowance, Buckets

CHIEF = "Who is the chief of Acme?"
SAID = {"prompt": CHIEF, "target": "Jane"}
ROLES = ("chat", "correct", "review", "admin")

Client = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """A file of keys."""
    return Keys(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def secrets(keys: Keys) -> dict[str, str]:
    """A key of every role in tenant `a` and in `b`, and the operator's."""
    made = {f"{r}@{t}": keys.make(r, tenant=t)[1] for r in ROLES for t in "ab"}  # type: ignore[arg-type]
    return made | {"operator": keys.make("admin")[1]}


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], keys: Keys, secrets: dict[str, str]) -> Any:
    """A server that has keys."""
    return serve(keys=keys._path, quorum=3)


@pytest.fixture
def client(server: Any, secrets: dict[str, str]) -> Iterator[Client]:
    """`client("review@a", user="ann")`: an HTTP client with that key; edits go afterwards."""
    made: list[httpx.Client] = []

    def make(key: str | None, user: str | None = None, **headers: str) -> httpx.Client:
        if key is not None:
            headers["authorization"] = f"Bearer {secrets.get(key, key)}"
        if user is not None:
            headers["x-lifelong-user"] = user
        made.append(httpx.Client(base_url=server.url, headers=headers, timeout=60))
        return made[-1]

    yield make
    for one in made:
        one.close()
    server.forget()


def asked(http: httpx.Client, question: str = CHIEF, tokens: int = 32) -> Any:
    turns = [{"role": "user", "content": question}]
    body = {"model": "tiny", "messages": turns, "max_tokens": tokens}
    return http.post("/v1/chat/completions", json=body).json()


def text(http: httpx.Client) -> str:
    return str(asked(http)["choices"][0]["message"]["content"])


def code(response: httpx.Response) -> tuple[int, str | None]:
    return response.status_code, response.json()["error"]["code"]


# -- keys ----------------------------------------------------------------------------------------


def test_a_key_is_kept_as_a_hash_in_a_file_of_its_owner(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    key, secret = keys.make("chat")
    assert secret not in (tmp_path / "keys.json").read_text()
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0
    assert keys.find(secret) == key
    assert Keys(tmp_path / "keys.json").find(secret) == key
    assert keys.find(secret[:-1]) is None
    keys.revoke(key.id)
    assert keys.find(secret) is None


def test_a_key_ends_when_its_time_is_over(tmp_path: Path) -> None:
    keys, now = Keys(tmp_path / "keys.json"), datetime.now(UTC)
    _, good = keys.make("chat", expires=(now + timedelta(hours=1)).isoformat())
    _, over = keys.make("chat", expires=(now - timedelta(seconds=1)).isoformat())
    assert keys.find(good)
    assert keys.find(over) is None


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    with pytest.raises(BadSetting, match="role"):
        keys.make("king")  # type: ignore[arg-type]
    for time in ("soon", "2027-01-01T00:00:00"):
        with pytest.raises(BadSetting, match="is no time"):
            keys.make("chat", expires=time)
    with pytest.raises(BadSetting, match="no key"):
        keys.revoke("x")
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(BadSetting, match="no keys"):
        keys.all()


def test_who_has_nothing_to_prove(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    assert caller_of(keys, None, None, trusting=True) == Caller("local")
    assert caller_of(keys, None, None, trusting=False) is None
    keys.revoke(keys.make("admin")[0].id)
    assert caller_of(keys, None, None, trusting=True) is None  # the last key left nobody in


def test_without_keys_a_proxy_brings_nobody_in(local: Any) -> None:
    for name in ("x-forwarded-for", "forwarded", "x-real-ip"):
        response = httpx.get(f"{local.url}/v1/models", headers={name: "10.0.0.1"}, timeout=60)
        assert code(response) == (401, "invalid_api_key")


def test_no_caller_makes_up_a_label(local: Any) -> None:
    httpx.request("BREW", f"{local.url}/coffee-a", timeout=60)
    metrics = httpx.get(f"{local.url}/metrics", timeout=60).text
    assert 'lifelong_http_requests_total{method="other",route="none"' in metrics
    assert "BREW" not in metrics
    assert "coffee" not in metrics


def _routes(server: Any) -> list[tuple[str, str]]:
    paths = server.app.openapi()["paths"]
    return [(m.upper(), p.replace("{id}", "1")) for p, ms in paths.items() for m in ms]


def test_without_a_good_key_nothing_is_done(server: Any, client: Client, keys: Keys) -> None:
    epoch, past = server.model.epoch, datetime.now(UTC) - timedelta(seconds=1)
    expired = f"Bearer {keys.make('admin', expires=past.isoformat())[1]}"
    for authorization in (None, "Bearer ll-wrong", "Basic x", expired):
        headers = {} if authorization is None else {"authorization": authorization}
        for method, path in _routes(server):
            response = client(None, **headers).request(method, path, json=SAID)
            if path.startswith("/health/"):
                assert response.status_code == 200
            else:
                assert code(response) == (401, "invalid_api_key"), (method, path)
                assert response.headers["www-authenticate"] == "Bearer"
    assert server.model.epoch == epoch


@pytest.mark.parametrize(
    ("method", "path", "body", "role"),
    [
        ("POST", "/v1/corrections", SAID, "correct"),
        ("POST", "/v1/feedback", {"question": "q", "answer": "a", "rating": "up"}, "correct"),
        ("POST", "/v1/corrections/{id}:approve", {}, "review"),
        ("POST", "/v1/corrections/{id}:reject", {}, "review"),
        ("POST", "/v1/corrections/{id}:erase", {}, "admin"),
        ("GET", "/v1/retention", None, "review"),
        ("GET", "/metrics", None, "review"),
        ("POST", "/v1/retention", None, "admin"),
    ],
)
def test_each_step_needs_its_role(
    client: Client, method: str, path: str, body: Any, role: str
) -> None:
    made = client("correct@a", "ann").post("/v1/corrections", json=SAID | {"target": "X"}).json()
    path = path.format(id=made["id"])
    for other in ROLES[: ROLES.index(role)]:
        response = client(f"{other}@a", "ann").request(method, path, json=body)
        assert code(response) == (403, "role")
    response = client(f"{role}@a", "bob").request(method, path, json=body)
    assert response.status_code in (200, 201, 409), response.text


def test_a_chat_key_cannot_correct_by_talking(client: Client) -> None:
    turns = [
        {"role": "user", "content": CHIEF},
        {"role": "assistant", "content": "Bob."},
        {"role": "user", "content": "No, it's Jane Roe."},
    ]
    body = {"model": "tiny", "messages": turns, "max_tokens": 2}
    made = client("chat@a").post("/v1/chat/completions", json=body).json()
    assert "correction" not in made["lifelong"]
    assert "asked" not in made["lifelong"]


# -- audiences -----------------------------------------------------------------------------------


def test_a_correction_is_its_authors_until_it_is_promoted(client: Client) -> None:
    ann, bob = client("correct@a", "ann"), client("correct@a", "bob")
    before = text(bob)
    id = ann.post("/v1/corrections", json=SAID).json()["id"]
    assert "Jane" in text(ann)
    assert text(bob) == before
    outcome = client("review@a").post(f"/v1/corrections/{id}:approve").json()
    assert outcome["canary"]["breach"] is None
    assert "Jane" in text(bob)
    assert text(client("correct@b", "bob")) == before
    assert code(client("review@a").post(
        f"/v1/corrections/{id}:approve", json={"reach": "everyone"}
    )) == (403, "reach")  # fmt: skip
    client("operator").post(f"/v1/corrections/{id}:approve", json={"reach": "everyone"})
    assert "Jane" in text(client("chat@b"))


def test_nothing_of_another_tenant_can_be_learnt(client: Client) -> None:
    ann, bob = client("correct@a", "ann"), client("admin@b", "ann")  # the name is no way in
    id = ann.post("/v1/corrections", json=SAID | {"evidence": "secret"}).json()["id"]
    other = client("correct@a", "eve")
    for spy in (bob, other):
        listed = spy.get("/v1/corrections").text + spy.get("/v1/corrections?q=Jane").text
        assert "Jane" not in listed
        assert asked(spy)["lifelong"]["edits"] == []
        assert "Jane" not in text(spy)
        for method, verb in [("GET", ""), ("GET", "/history"), ("PATCH", ""), ("DELETE", ""),
                             ("POST", ":undo"), ("POST", ":redo")]:  # fmt: skip
            response = spy.request(method, f"/v1/corrections/{id}{verb}", json={"target": "X"}
                                   if method == "PATCH" else None)  # fmt: skip
            assert code(response) == (404, "unknown_edit")
    for verb in (":approve", ":reject", ":erase"):
        assert code(bob.post(f"/v1/corrections/{id}{verb}")) == (404, "unknown_edit")
    metrics = bob.get("/metrics").text
    assert not any(word in metrics for word in ("Jane", "Acme", "ann", 'tenant="'))
    assert ann.get(f"/v1/corrections/{id}").json()["provenance"]["evidence"] == "secret"


@pytest.mark.parametrize("page", [1, 2, 200])
def test_the_list_is_what_each_may_know_of(
    server: Any, client: Client, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr("lifelong.serve.service._PAGE", page)
    names = [(f"{role}@{tenant}", user) for role in ("correct", "review") for tenant in "ab"
             for user in ("ann", "bob")]  # fmt: skip
    for n, (key, user) in enumerate(names[:4] * 2):
        client(key, user).post("/v1/corrections", json=SAID | {"prompt": f"Who is {n}?"})
    client("operator", "ann").post("/v1/corrections", json=SAID)
    ids = [edit.id for edit in server.model.journal.live()]
    server.model.promote(ids[0], "tenant")
    server.model.promote(ids[1], "everyone")
    server.model.undo(ids[2])
    for key, user in (*names, ("chat@a", "ann"), ("operator", "ann")):
        http = client(key, user)
        seen = {id for id in ids if http.get(f"/v1/corrections/{id}").status_code == 200}
        listed = [e["id"] for e in http.get("/v1/corrections").json()["data"] if e["id"] in ids]
        assert listed == sorted(seen, reverse=True)
        pages = [http.get("/v1/corrections", params={"limit": 1}).json()]
        while pages[-1]["has_more"]:
            after = {"limit": 1, "before": pages[-1]["data"][0]["id"]}
            pages.append(http.get("/v1/corrections", params=after).json())
        assert [e["id"] for p in pages for e in p["data"] if e["id"] in ids] == listed


def test_who_gets_a_correction_learns_nothing_of_its_author(client: Client) -> None:
    id = client("correct@a", "ann").post("/v1/corrections", json=SAID).json()["id"]
    client("review@a").post(f"/v1/corrections/{id}:approve")
    seen = client("chat@a", "bob").get(f"/v1/corrections/{id}").json()
    assert seen["target"] == "Jane"
    assert not {"provenance", "user_id", "tenant", "old"} & seen.keys()
    assert code(client("correct@a", "bob").post(f"/v1/corrections/{id}:undo")) == (403, "not_yours")


def test_a_key_that_is_one_persons_is_nobody_elses(client: Client, keys: Keys) -> None:
    _, secret = keys.make("correct", tenant="a", user="zoe")
    id = client(secret, "ann").post("/v1/corrections", json=SAID).json()["id"]
    assert client("review@a").get(f"/v1/corrections/{id}").json()["user_id"] == "zoe"


def test_enough_users_promote_and_one_user_cannot(server: Any, client: Client) -> None:
    first = client("correct@a", "u1").post("/v1/corrections", json=SAID).json()["id"]
    for _ in range(4):  # the same user again and again
        client("correct@a", "u1").post("/v1/corrections", json=SAID | {"target": "Jim"})
        client("correct@a", "u1").post("/v1/corrections", json=SAID)
    client("correct@a", "u2").post("/v1/corrections", json=SAID)
    client("correct@b", "u3").post("/v1/corrections", json=SAID)
    _settle(server)
    assert "Jane" not in text(client("chat@a", "u9"))
    client("correct@a", "u4").post("/v1/corrections", json=SAID)
    client("correct@a", "u5").post("/v1/corrections", json=SAID)
    _settle(server)
    assert "Jane" in text(client("chat@a", "u9"))
    assert "Jane" not in text(client("chat@b", "u9"))
    assert server.model.get(first).tenant == "a"


def _settle(server: Any) -> None:
    """Wait for the promotions that are under way."""
    server.app.state.service._promotion._thread.submit(int).result()


def test_two_reviewers_at_once_do_it_once(client: Client) -> None:
    id = client("correct@a", "ann").post("/v1/feedback", json={
        "question": CHIEF, "answer": "Bob", "rating": "down"}).json()["id"]  # fmt: skip
    both = [client("review@a", name) for name in ("r1", "r2")]
    codes: list[int] = []

    def reject(http: httpx.Client) -> None:
        codes.append(http.post(f"/v1/corrections/{id}:reject").status_code)

    threads = [threading.Thread(target=reject, args=(http,)) for http in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200, 409]


# -- sources, sizes, rates -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:8000"}, 403),
        ({}, 201),
    ],
)
def test_foreign_pages_and_names_are_refused_without_keys_too(
    serve: Callable[..., Any], headers: dict[str, str], status: int, local: Any
) -> None:
    epoch = local.model.epoch
    response = httpx.post(f"{local.url}/v1/corrections", json=SAID, headers=headers, timeout=60)
    assert response.status_code == status
    assert local.model.epoch == epoch + (status == 201)
    if status == 403:
        assert "access-control-allow-origin" not in response.headers


@pytest.fixture(scope="module")
def local(serve: Callable[..., Any]) -> Any:
    """A server without keys, with little patience."""
    return serve(corrections_a_minute=5, requests_a_minute=40, body_bytes=2_000)


def test_its_own_pages_may_ask(local: Any) -> None:
    response = httpx.get(f"{local.url}/v1/models", headers={"origin": local.url}, timeout=60)
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_body_may_not_be_long_however_it_comes(local: Any) -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 100

    for content in (b"x" * 4_000, drip()):
        response = httpx.post(f"{local.url}/v1/corrections", content=content, timeout=60)
        assert code(response) == (413, "too_large")


def test_a_flood_is_held_back(local: Any) -> None:
    with httpx.Client(base_url=local.url, timeout=60) as http:
        http.headers["x-lifelong-user"] = "flood"
        said = [http.post("/v1/corrections", json={"prompt": f"q {n}?", "target": "x"})
                for n in range(8)]  # fmt: skip
        assert [r.status_code for r in said[:5]] == [201] * 5
        assert code(said[-1]) == (429, "quota")
        assert int(said[-1].headers["retry-after"]) >= 1
        codes = [http.get("/v1/models").status_code for _ in range(60)]
        assert 200 in codes
        assert codes[-1] == 429
        http.headers["x-lifelong-user"] = "another"
        assert http.get("/v1/models").status_code == 200


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    bucket = Buckets(2, 10, clock=lambda: now[0])
    assert [bucket.take("a"), bucket.take("a")] == [0.0, 0.0]
    assert bucket.take("a") == pytest.approx(5.0)
    assert bucket.take("b") == 0.0
    now[0] = 5.0
    assert bucket.take("a") == 0.0


def test_the_users_of_a_key_have_a_limit_together() -> None:
    allowance = Allowance(2, 60, users=3)
    taken = [allowance.take(Caller(f"u{n}", key="k")) for n in range(8)]
    assert [wait > 0 for wait in taken] == [False] * 6 + [True] * 2
    assert allowance.take(Caller("u0", key="other")) == 0.0


def test_a_request_id_goes_through_and_no_newline_with_it(client: Client) -> None:
    http = client("chat@a")
    assert http.get("/v1/models", headers={"x-request-id": "r-1"}).headers["x-request-id"] == "r-1"
    odd = http.get("/v1/models", headers={"x-request-id": "a b<script>"}).headers["x-request-id"]
    assert odd.isalnum()


def test_an_error_of_ours_tells_nothing_of_itself(
    server: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(server.app.state.service, "edits", broken)
    response = client("chat@a").get("/v1/corrections")
    assert code(response) == (500, "internal_error")
    assert "42" not in response.text


def test_a_store_that_becomes_read_only_refuses_corrections_and_chats_go_on(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve(tmp_path / "edits.db")
    with httpx.Client(base_url=server.url, timeout=60) as http:
        http.post("/v1/corrections", json=SAID)
        server.model.journal._file.rows("PRAGMA query_only = ON")
        refused = http.post("/v1/corrections", json=SAID | {"target": "Ann"})
        assert code(refused) == (503, "store_read_only")
        assert int(refused.headers["retry-after"]) >= 1
        assert http.get("/health/ready").status_code == 503
        assert http.get("/health/live").status_code == 200
        assert "Jane" in text(http)
        server.model.journal._file.rows("PRAGMA query_only = OFF")
        assert http.get("/health/ready").status_code == 200


def test_until_the_model_is_there_it_says_so(tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    from lifelong.errors import ModelMissing
    from lifelong.serve.app import build
    from lifelong.serve.settings import Settings

    def missing() -> Any:
        raise ModelMissing("There is no such model.", "Name another.")

    app = build(Settings(keys=tmp_path / "keys.json"), missing)
    with TestClient(app, base_url="http://localhost") as http:
        assert http.get("/health/live").status_code == 200
        while "loaded" in http.get("/health/ready").text:
            pass
        for path in ("/health/ready", "/v1/models"):
            response = http.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (
                503,
                "model_not_ready",
            )
        assert "cannot be used" in json.dumps(http.get("/v1/models").json())
