"""Requests made from the OpenAPI document: whatever comes, no 500, no traceback, no change.

`LIFELONG_FUZZ=270 pytest tests/test_serve_fuzz.py -rP` sends about 11,000, and says how many.
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from lifelong.serve.keys import Keys

EXAMPLES = int(os.environ.get("LIFELONG_FUZZ", "2"))  # of each operation, with a key and without

pytestmark = pytest.mark.timeout(300 + 10 * EXAMPLES)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """One admin's key, and nobody else's."""
    return Keys(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def secret(keys: Keys) -> str:
    return keys.make("admin")[1]


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], keys: Keys, secret: str) -> Any:
    many = {"requests_a_minute": 10**6, "corrections_a_minute": 10**6, "corrections_a_day": 10**6}
    return serve(keys=keys._path, max_tokens=2, **many)


def for_each(server: Any, check: Callable[[Any], int]) -> None:
    """Call `check`, which gives the status, with requests to every operation, valid and not."""
    few = settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    schema = schemathesis.openapi.from_dict(server.app.openapi())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 15
    statuses: Counter[int] = Counter()
    for operation in operations:
        few(given(operation.as_strategy())(lambda case: statuses.update([check(case)])))()
    print(f"{statuses.total():,} requests, by status: {dict(sorted(statuses.items()))}")  # noqa: T201


def sent(case: Any, server: Any, **headers: str) -> Any:
    if isinstance(case.body, dict) and "model" in case.body:
        case.body |= {"model": "tiny", "max_tokens": 2, "max_completion_tokens": None, "n": 1}
    response = case.call(base_url=server.url, headers=headers, timeout=60)
    assert "Traceback" not in response.text
    assert "/lifelong/" not in response.text  # no paths of ours
    if response.status_code >= 400:
        assert response.json()["error"]["message"], case.as_curl_command()
    return response


def test_no_request_breaks_it(server: Any, secret: str) -> None:
    def check(case: Any) -> int:
        response = sent(case, server, authorization=f"Bearer {secret}")
        assert response.status_code < 500, case.as_curl_command()
        return int(response.status_code)

    for_each(server, check)


def test_no_request_without_a_key_changes_anything(server: Any) -> None:
    def check(case: Any) -> int:
        response = sent(case, server, authorization="Bearer ll-guess")
        assert response.status_code in ((200, 401) if case.path.startswith("/health") else (401,))
        return int(response.status_code)

    epoch = server.model.epoch
    for_each(server, check)
    assert server.model.epoch == epoch
