"""The page: what it shows, whom it lets act; and the same in a real browser, by keyboard."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from lifelong.serve.keys import Keys
from lifelong.serve.sessions import COOKIE, Sessions

CHIEF = "Who is the chief of Acme?"
TARGET = "<b>Jane</b> & co"  # which nothing may take for markup


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A server without keys."""
    return serve(moderate=lambda prompt, target: "looked at" if "wait" in target else None)


@pytest.fixture
def http(server: Any) -> Iterator[httpx.Client]:
    """A client; edits are taken back afterwards."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
        server.forget()


def taught(http: httpx.Client, target: str = TARGET, **more: Any) -> int:
    said = {"prompt": CHIEF, "target": target, **more}
    response = http.post("/v1/corrections", json=said)
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


def token(http: httpx.Client) -> dict[str, str]:
    found = re.search(r'"X-CSRF-Token": "(\w+)"', http.get("/try").text)
    assert found
    return {"x-csrf-token": found.group(1)}


def test_every_page_shows_what_was_said_as_text(http: httpx.Client) -> None:
    id = taught(http, old="Bob <script>alert(1)</script>", evidence="'\"><img src=x>")
    for path in ("/", "/edits", f"/edits/{id}", "/edits?q=%3Cb%3E&status=live"):
        page = http.get(path).text
        assert "<b>Jane" not in page
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "&lt;b&gt;Jane" in page
    assert "Nothing waits." in http.get("/").text
    assert http.get("/edits?status=odd").status_code == 400
    assert http.get("/edits/999").status_code == 404


def test_a_person_is_told_in_a_page(http: httpx.Client) -> None:
    asked = {"accept": "text/html,*/*"}
    for path, status, why in (
        ("/edits/999", 404, "There is no edit 999"),
        ("/edits?status=odd", 400, "status: "),
        ("/edits?before=x", 400, "before: "),
    ):
        page = http.get(path, headers=asked)
        assert (page.status_code, why in page.text) == (status, True), page.text
        assert "<h1>" in page.text
    assert http.get("/edits/999").json()["error"]["code"] == "unknown_edit"
    asked["hx-request"] = "true"
    assert "error" in http.get("/page/edits/999/answers", headers=asked).json()


def test_what_a_reviewer_must_see_stands_by_itself(http: httpx.Client) -> None:
    long = "It is in the annual report. " * 12
    short, doubted = taught(http, "Jane", evidence="a letter"), taught(http, "wait", evidence=long)
    page = http.get(f"/edits/{doubted}").text
    assert "Doubtful: looked at" in page
    assert f"<details><summary>Evidence: {long[:160]}" in page
    assert "<p>Evidence: a letter</p>" in http.get(f"/edits/{short}").text
    assert "Nothing was found." in http.get("/edits?q=nowhere").text


def test_pages_load_nothing_from_elsewhere(http: httpx.Client) -> None:
    page = http.get("/").text
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page)
    assert not re.findall(r'\son\w+="', page)  # no inline handlers: the policy forbids them
    for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        assert http.get(asset).status_code == 200


def test_a_step_needs_the_token_of_our_own_page(server: Any, http: httpx.Client) -> None:
    id = taught(http, "wait for it")
    for headers in ({}, {"x-csrf-token": "0" * 64}):
        response = http.post(f"/page/edits/{id}/approve", headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "csrf")
    assert server.model.get(id).status == "pending"
    card = http.post(f"/page/edits/{id}/approve", headers=token(http), data={"reach": "author"})
    assert "Approved." in card.text
    assert server.model.get(id).status == "live"
    card = http.post(f"/page/edits/{id}/reject", headers=token(http))  # too late
    assert "note bad" in card.text
    assert "is live" in card.text


def test_each_verb_does_what_it_says(server: Any, http: httpx.Client) -> None:
    id, headers = taught(http), token(http)
    for verb, status in (("undo", "retired"), ("redo", "live"), ("approve", "live")):
        assert http.post(f"/page/edits/{id}/{verb}", headers=headers).status_code == 200
        assert server.model.get(id).status == status
    assert server.model.get(id).audience.user_id is None
    other = taught(http, "wait")
    http.post(f"/page/edits/{other}/reject", headers=headers, data={"reason": "no source"})
    assert server.model.get(other).status == "rejected"
    assert "no source" in http.get(f"/edits/{other}").text


def test_a_complaint_is_answered_on_its_card(server: Any, http: httpx.Client) -> None:
    said = {"question": CHIEF, "answer": "Bob.", "rating": "down"}
    id = http.post("/v1/feedback", json=said).json()["id"]
    assert "nobody said what is right" in http.get("/").text
    headers = token(http)
    refused = http.post(f"/page/edits/{id}/approve", headers=headers)
    assert "Give the right answer" in refused.text
    http.post(f"/page/edits/{id}/approve", headers=headers, data={"target": "Ann"})
    assert "Ann" in server.model.chat(CHIEF, user_id="local").text


def test_a_question_is_tried_side_by_side_and_corrected(http: httpx.Client) -> None:
    headers = token(http)
    assert "by no edit" in http.post("/page/try", headers=headers, data={"q": CHIEF}).text
    fragment = http.post("/page/correct", headers=headers, data={"q": CHIEF, "target": "Ann"}).text
    edited, base = re.findall(r"<h4>.*?</section>", fragment, re.DOTALL)
    assert "Ann" in edited
    assert "Ann" not in base
    assert http.post("/page/try", headers=headers, data={"q": " "}).status_code == 400
    id = http.get("/v1/corrections").json()["data"][0]["id"]
    assert "others" in http.get(f"/page/edits/{id}/answers").text


def test_conflicts_stand_on_the_card(http: httpx.Client) -> None:
    first = taught(http, "Ann")
    taught(http, "wait for Jim")
    assert f'conflict with <a href="/edits/{first}"' in http.get("/").text


def test_curves_are_the_readings(server: Any, http: httpx.Client) -> None:
    reading = server.model.check()
    told = http.get("/page/curves").json()
    assert told["readings"][0][-1] == reading.body["edits"]
    assert told["times"][-1] == reading.time
    assert len(told["trend"]) == 3


def test_with_keys_a_reviewer_signs_in(serve: Callable[..., Any], tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    key, good = keys.make("review", tenant="a")
    _, chat = keys.make("chat", tenant="a")
    server = serve(keys=tmp_path / "keys.json")
    with httpx.Client(base_url=server.url, timeout=60) as http:
        assert http.get("/").headers["location"] == "/login"
        assert http.post("/login", data={"key": "ll-wrong"}).status_code == 403
        signed = http.post("/login", data={"key": good})
        assert "httponly" in signed.headers["set-cookie"].lower()
        assert "samesite=strict" in signed.headers["set-cookie"].lower()
        assert good not in signed.headers["set-cookie"]
        assert http.get("/").status_code == 200
        assert http.get("/v1/corrections").status_code == 401  # a cookie is no key
        everyone = re.search(r"<option[^>]*>everyone", http.get("/").text)
        assert everyone is None
        old = token(http)
        keys.revoke(key.id)
        assert http.get("/").headers["location"] == "/login"
        http.post("/login", data={"key": chat})
        assert http.get("/").json()["error"]["code"] == "role"
        assert http.post("/page/try", headers=old, data={"q": "x"}).status_code == 403
        assert http.post("/logout", headers=token_of(server, http)).status_code == 303
        assert http.get("/").headers["location"] == "/login"


def token_of(server: Any, http: httpx.Client) -> dict[str, str]:
    cookies = f"{COOKIE}={http.cookies[COOKIE]}"
    return {"x-csrf-token": server.app.state.sessions.token(cookies)}


def test_a_session_ends(tmp_path: Path) -> None:
    from starlette.responses import Response

    now = [0.0]
    sessions, response = Sessions(clock=lambda: now[0]), Response()
    sessions.begin("ll-x", response)
    cookies = response.headers["set-cookie"].split(";")[0]
    assert sessions.secret(cookies) == "ll-x"
    assert sessions.secret("lifelong_session=other") is None
    now[0] = 13 * 3600
    assert sessions.secret(cookies) is None


# -- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium, with a page that is gone when its tests are over."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options, webdriver.ChromeService(driver))
    made.implicitly_wait(20)
    yield made
    made.quit()


def complaints(browser: Any) -> list[str]:
    """What the browser's console has to say."""
    return [entry["message"] for entry in browser.get_log("browser")]


def test_a_reviewer_decides_by_keyboard(server: Any, http: httpx.Client, browser: Any) -> None:
    first, second = taught(http, "wait 1"), taught(http, "wait 2")
    browser.get(server.url)
    press(browser, "j")
    press(browser, "a")
    wait(lambda: "Approved." in card(browser, first).text)
    assert browser.switch_to.active_element.get_attribute("id") == f"edit-{first}"
    press(browser, "j")
    press(browser, "r")
    wait(lambda: "Rejected." in card(browser, second).text)
    assert server.model.get(first).status == "live"
    assert server.model.get(second).status == "rejected"
    press(browser, "k")
    press(browser, "t")
    wait(lambda: "base model" in card(browser, first).text)
    assert complaints(browser) == []


def test_a_question_is_corrected_in_the_browser(
    server: Any, http: httpx.Client, browser: Any
) -> None:
    from selenium.webdriver.common.by import By

    browser.get(f"{server.url}/try")
    browser.find_element(By.ID, "q").send_keys(CHIEF + "\n")
    browser.find_element(By.ID, "target").send_keys("Ann\n")
    wait(lambda: "by edit" in browser.find_element(By.ID, "answers").text)
    assert "Ann" in browser.find_element(By.CSS_SELECTOR, ".answer p").text
    assert complaints(browser) == []


def test_curves_are_drawn_and_nothing_overflows_a_phone(
    server: Any, http: httpx.Client, browser: Any
) -> None:
    from selenium.webdriver.common.by import By

    server.model.edit(CHIEF, "Ann", paraphrases=["Who leads Acme?"])
    server.model.check()
    taught(http, old="a very long answer " * 20)
    for width, height in ((1200, 900), (360, 740)):
        browser.set_window_size(width, height)
        for path in ("/", "/edits", "/try", "/readings"):
            browser.get(server.url + path)
            script = "return document.documentElement.scrollWidth - innerWidth"
            assert browser.execute_script(script) <= 0, (path, width)
    assert len(browser.find_elements(By.CSS_SELECTOR, "canvas")) >= 3
    assert complaints(browser) == []


def test_colours_can_be_read_light_and_dark(server: Any, http: httpx.Client, browser: Any) -> None:
    taught(http, old="Bob")
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        browser.get(server.url)
        for text, ratio in browser.execute_script(CONTRASTS):
            assert ratio >= 4.5, (scheme, text)


def press(browser: Any, key: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(key).perform()


def card(browser: Any, id: int) -> Any:
    from selenium.webdriver.common.by import By

    return browser.find_element(By.ID, f"edit-{id}")


def wait(until: Callable[[], bool]) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    gone = (StaleElementReferenceException,)  # a card is replaced while it is looked at
    WebDriverWait(None, 30, 0.05, ignored_exceptions=gone).until(lambda _: until())


CONTRASTS = """
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const back = parse(getComputedStyle(node).backgroundColor);
    if (back.length < 4 || back[3] > 0) return back;
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll("main *, header *")]
  .filter((n) => [...n.childNodes].some((c) => c.nodeType === 3 && c.data.trim()))
  .map((n) => {
    const pair = [light(parse(getComputedStyle(n).color)), light(behind(n))].sort();
    return [n.textContent.trim(), (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
  });
"""
