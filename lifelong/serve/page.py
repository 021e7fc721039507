"""The page for reviewers: what waits, every edit and its history, a chat to try, the curves.

Rendered here, brought up to date in place by htmx; it loads nothing from anywhere else.
"""

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BeforeValidator
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from lifelong.alarms import alarms_of
from lifelong.errors import LifelongError
from lifelong.serve.keys import Caller, Keys
from lifelong.serve.problems import TOLD, Problem, problem_of
from lifelong.serve.promotion import wider
from lifelong.serve.service import Service, need
from lifelong.serve.sessions import Sessions
from lifelong.view import Answer
from store import Audience, Edit, Reading, Status, StoreError


class _Route(APIRoute):
    """Who opens a page is told in a page why it cannot be shown; what a page asks for, in JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own, with that around it."""
        handle = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await handle(request)
            except TOLD as exc:
                headers = request.headers
                if "hx-request" in headers or "text/html" not in headers.get("accept", ""):
                    raise
                problem = problem_of(exc)
                return _render(request, "problem.html", problem.status, problem=problem)

        return shown


router = APIRouter(include_in_schema=False, route_class=_Route)
static = StaticFiles(directory=Path(__file__).parent / "static")

_PAGE = 50  # edits
_TOKENS = 64  # of a reply that is tried
_STATUSES = get_args(Status)
_MEASURES = ("accuracy", "generality", "locality", "reply_perplexity", "false_fires")

_templates = Environment(
    loader=PackageLoader("lifelong.serve"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

Id = int
Verb = Literal["approve", "reject", "undo", "redo"]


# -- pages ---------------------------------------------------------------------------------------


@router.get("/")
def queue(request: Request) -> Response:
    """What waits for a decision, and what is live for its author only."""
    service, caller = _reviewer(request)
    waiting, readings = service.waiting(caller), service.readings(caller)
    own = service.edits(caller, limit=_PAGE, status="live", private=True)
    return _render(
        request,
        "queue.html",
        waits=len(waiting),
        waiting=[_card(service, caller, e) for e in waiting[:_PAGE]],
        own=[_card(service, caller, e) for e in own],
        live=service.model.journal.counts().get("live", 0),
        epoch=service.model.epoch,
        alarms=alarms_of(readings[-1]) if readings else [],
        last=readings[-1] if readings else None,
    )


@router.get("/edits")
def edits(
    request: Request,
    status: Annotated[Status | None, BeforeValidator(lambda given: given or None)] = None,
    q: Annotated[str, Query(max_length=200)] = "",
    before: Annotated[int | None, Query(ge=1, lt=2**53)] = None,
) -> Response:
    """Every edit, by status and words."""
    service, caller = _reviewer(request)
    found = service.edits(caller, limit=_PAGE + 1, before=before, status=status, words=q)
    return _render(
        request,
        "edits.html",
        edits=found[:_PAGE],
        more=found[_PAGE - 1].id if len(found) > _PAGE else None,
        before=before,
        status=status,
        q=q,
        statuses=_STATUSES,
    )


@router.get("/edits/{id:int}")
def edit(request: Request, id: Id) -> Response:
    """One edit: what it says, who said so, what became of it."""
    service, caller = _reviewer(request)
    found = service.get(caller, id)
    events = service.history(caller, id)
    card = _card(service, caller, found)
    return _render(request, "edit.html", card=card, edit=found, events=events)


@router.get("/try")
def try_(request: Request, q: Annotated[str, Query(max_length=2_000)] = "") -> Response:
    """A question, answered with the edits and without."""
    _reviewer(request)
    return _render(request, "try.html", q=q)


@router.get("/readings")
def readings(request: Request) -> Response:
    """The curves, and the same in figures."""
    service, caller = _reviewer(request)
    found = service.readings(caller)
    return _render(
        request,
        "readings.html",
        readings=found[::-1][:_PAGE],
        alarms=alarms_of(found[-1]) if found else [],
        measures=_MEASURES,
    )


@router.get("/login")
def login(request: Request) -> Response:
    """Where a key is asked for."""
    return _render(request, "login.html", wrong=False)


@router.post("/login")
async def sign_in(request: Request) -> Response:
    """Sign in with a key; the cookie stands for it from now on."""
    secret = (await _form(request)).get("key", "").strip()
    keys: Keys = request.app.state.keys
    sessions: Sessions = request.app.state.sessions
    if keys.find(secret) is None:
        return _render(request, "login.html", 403, wrong=True)
    response = RedirectResponse("/", 303)
    sessions.begin(secret, response, secure=request.url.scheme == "https")
    return response


# -- what the pages ask for ----------------------------------------------------------------------


@router.post("/logout")
async def sign_out(request: Request) -> Response:
    """The cookie stands for nothing any more."""
    await _ours(request)
    response = RedirectResponse("/login", 303)
    request.app.state.sessions.end(request.headers.get("cookie", ""), response)
    return response


@router.post("/page/edits/{id:int}/{verb}")
async def step(request: Request, id: Id, verb: Verb) -> Response:
    """Approve, reject, undo or redo; the edit's card as it is then."""
    form = await _ours(request)
    return await run_in_threadpool(_step, request, id, verb, form)


@router.get("/page/edits/{id:int}/answers")
def answers(request: Request, id: Id) -> Response:
    """What the edit's own question is answered for its author, for the others, by the base."""
    service, caller = _reviewer(request)
    found = service.get(caller, id)
    audience = found.audience
    asked = {
        "author": (audience, True),
        "others": (Audience(None, audience.tenant), True),
        "base model": (Audience(), False),
    }
    replies = {
        name: _answer(service, found.prompt, whom, edits=on) for name, (whom, on) in asked.items()
    }
    return _render(request, "answers.html", replies=replies, q=found.prompt, form=False)


@router.post("/page/try")
async def ask(request: Request) -> Response:
    """A question side by side: as the reviewer gets it, and as the base model answers."""
    form = await _ours(request)
    return await run_in_threadpool(_try, request, form.get("q", ""))


@router.post("/page/correct")
async def correct(request: Request) -> Response:
    """The right answer to what was tried, live for the reviewer; then the question again."""
    form = await _ours(request)

    def record() -> Response:
        service, caller = _reviewer(request)
        said = {"prompt": form.get("q", ""), "target": form.get("target", "")}
        service.correct(caller, said, source="page")
        return _try(request, said["prompt"])

    return await run_in_threadpool(record)


@router.get("/page/curves")
def curves(request: Request) -> Response:
    """The readings and the last day, in columns."""
    service, caller = _reviewer(request)
    found = service.readings(caller)
    told = {
        "readings": [_column(found, name) for name in ("edits", *_MEASURES)],
        "ages": [_ages(reading) for reading in found],
        "times": [reading.time for reading in found],
        "trend": service.trend.columns(),
    }
    return JSONResponse(told)


# -- within --------------------------------------------------------------------------------------


def _reviewer(request: Request) -> tuple[Service, Caller]:
    caller: Caller = request.state.caller
    need(caller, "review")
    return request.app.state.service, caller


async def _ours(request: Request) -> Mapping[str, str]:
    """The form, if it comes from a page of ours. Raises Problem (403)."""
    sessions: Sessions = request.app.state.sessions
    token = request.headers.get("x-csrf-token") or (await _form(request)).get("csrf", "")
    if not sessions.is_ours(request.headers.get("cookie", ""), token):
        raise Problem(403, "This page is too old: load it again.", code="csrf")
    return await _form(request)


async def _form(request: Request) -> Mapping[str, str]:
    body = (await request.body()).decode("utf-8", "replace")
    return {name: values[-1] for name, values in parse_qs(body, max_num_fields=20).items()}


def _step(request: Request, id: Id, verb: Verb, form: Mapping[str, str]) -> Response:
    service, caller = _reviewer(request)
    note, reason, done = "", form.get("reason", "")[:500], True
    try:
        if verb == "approve":
            reach: Any = form.get("reach") or None
            outcome = service.approve(
                caller, id, target=form.get("target") or None, reach=reach, reason=reason
            )
            id, done = outcome.edit.id, outcome.breach is None
            note = f"Taken back: {outcome.breach}." if outcome.breach else "Approved."
        else:
            getattr(service, verb)(caller, id, reason)
            note = {"reject": "Rejected.", "undo": "Undone.", "redo": "Back again."}[verb]
    except (LifelongError, StoreError, Problem) as exc:  # told on the card it belongs to
        note, done = str(exc), False
    card = _card(service, caller, service.get(caller, id))
    return _render(request, "card.html", card=card, note=note, done=done)


def _try(request: Request, question: str) -> Response:
    service, caller = _reviewer(request)
    service.check_text(question)
    if not question.strip():
        raise Problem(400, "Ask something first.", param="q")
    replies = {
        "with corrections": _answer(service, question, caller.audience),
        "base model": _answer(service, question, caller.audience, edits=False),
    }
    return _render(request, "answers.html", replies=replies, q=question, form=True)


def _answer(service: Service, question: str, whom: Audience, *, edits: bool = True) -> Answer:
    view = service.model.view(whom.user_id, whom.tenant, edits=edits)
    return view.answers([view.question(question)], max_new_tokens=_TOKENS, do_sample=False)[0]


def _card(service: Service, caller: Caller, edit: Edit) -> dict[str, Any]:
    """What a reviewer needs to decide about an edit."""
    open_ = edit.status in ("pending", "proposed", "live")
    conflicts = service.model.conflicts(edit.id) if open_ and edit.target else []
    mine = [c for c in conflicts if caller.sees(c.edit)]
    return {
        "edit": edit,
        "conflicts": mine,
        "verbs": _verbs(edit),
        "reaches": _reaches(caller),
        "reach": wider(edit),
    }


def _verbs(edit: Edit) -> tuple[str, ...]:
    if edit.status in ("pending", "proposed"):
        return ("approve", "reject")
    if edit.status == "live":
        return ("approve", "undo") if edit.user_id is not None else ("undo",)
    if edit.status == "superseded":
        return ("undo",)
    return ("redo",) if edit.status in ("retired", "quarantined") else ()


def _reaches(caller: Caller) -> tuple[str, ...]:
    return ("author", "tenant") if caller.tenant is not None else ("author", "tenant", "everyone")


def _column(readings: list[Reading], name: str) -> list[Any]:
    return [reading.body.get(name) for reading in readings]


def _ages(reading: Reading) -> list[Any]:
    ages = reading.body.get("accuracy_by_age")
    return ages if isinstance(ages, list) else []


def _render(request: Request, name: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    sessions: Sessions = request.app.state.sessions
    page = _templates.get_template(name).render(
        caller=getattr(request.state, "caller", None),
        csrf=sessions.token(request.headers.get("cookie", "")),
        path=request.url.path,
        model=request.app.state.service.settings.model_id,
        **({"note": "", "done": True} | values),
    )
    return HTMLResponse(page, status)
