"""The routes by which users correct and reviewers decide: corrections, feedback, retention."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request

from lifelong.serve.keys import Caller
from lifelong.serve.promotion import Outcome
from lifelong.serve.service import Service, need, shown
from lifelong.serve.wire import (
    Approval,
    CorrectionChange,
    CorrectionIn,
    FeedbackIn,
    Reasoned,
)
from store import Edit, Status

router = APIRouter(prefix="/v1", tags=["corrections"])

Id = Annotated[int, Path(ge=1, lt=2**53)]
Idempotency = Annotated[str | None, Header(max_length=200)]


def made(edit: Edit) -> dict[str, Any]:
    """What a verb answers."""
    return {"id": edit.id, "epoch": edit.epoch, "status": edit.status}


def _here(request: Request) -> tuple[Service, Caller]:
    return request.app.state.service, request.state.caller


@router.post("/corrections", status_code=201)
def correct(
    said: CorrectionIn, request: Request, idempotency_key: Idempotency = None
) -> dict[str, Any]:
    """From now on, asked `prompt` in any words, the model says `target` to whoever says so."""
    service, caller = _here(request)
    fields = said.model_dump(exclude={"evidence", "trace_id"})
    trace = {"evidence": said.evidence, "trace_id": said.trace_id}
    return made(service.correct(caller, fields, source="api", key=idempotency_key, trace=trace))


@router.get("/corrections")
def list_(
    request: Request,
    status: Status | None = None,
    q: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    before: Annotated[int | None, Query(ge=1, lt=2**53)] = None,
) -> dict[str, Any]:
    """The corrections that the caller may know of, the newest first, from below id `before`."""
    service, caller = _here(request)
    found = service.edits(caller, limit=limit + 1, before=before, status=status, words=q)
    data = [shown(edit, caller) for edit in found[:limit]]
    return {"object": "list", "data": data, "has_more": len(found) > limit}


@router.get("/corrections/{id}")
def get(id: Id, request: Request) -> dict[str, Any]:
    """One correction."""
    service, caller = _here(request)
    return shown(service.get(caller, id), caller)


@router.get("/corrections/{id}/history")
def history(id: Id, request: Request) -> dict[str, Any]:
    """What happened to it, in order."""
    service, caller = _here(request)
    return {"object": "list", "data": [asdict(e) for e in service.history(caller, id)]}


@router.patch("/corrections/{id}")
def change(id: Id, said: CorrectionChange, request: Request) -> dict[str, Any]:
    """Another answer to the same question: a new correction, in the place of the old."""
    service, caller = _here(request)
    return made(service.change(caller, id, said.target))


@router.delete("/corrections/{id}")
def delete(id: Id, request: Request) -> dict[str, Any]:
    """The same as undo: the journal forgets nothing; `:erase` wipes the text."""
    service, caller = _here(request)
    return made(service.undo(caller, id))


@router.post("/corrections/{id}:undo")
def undo(id: Id, request: Request, said: Reasoned = Reasoned()) -> dict[str, Any]:  # noqa: B008
    """Every answer is as if it had not been made."""
    service, caller = _here(request)
    return made(service.undo(caller, id, said.reason))


@router.post("/corrections/{id}:redo")
def redo(id: Id, request: Request, said: Reasoned = Reasoned()) -> dict[str, Any]:  # noqa: B008
    """It is back."""
    service, caller = _here(request)
    return made(service.redo(caller, id, said.reason))


@router.post("/corrections/{id}:erase")
def erase(id: Id, request: Request, said: Reasoned = Reasoned()) -> dict[str, Any]:  # noqa: B008
    """Its text is wiped for good, and that of what follows from it; what stood is undone."""
    service, caller = _here(request)
    erased = service.erase(caller, id, said.reason)
    return {"id": id, "epoch": service.model.epoch, "erased": [edit.id for edit in erased]}


@router.post("/corrections/{id}:approve")
def approve(id: Id, request: Request, said: Approval = Approval()) -> dict[str, Any]:  # noqa: B008
    """It goes live, or reaches further, unless the canary finds that it breaks something."""
    service, caller = _here(request)
    outcome = service.approve(caller, id, target=said.target, reach=said.reach, reason=said.reason)
    return made(outcome.edit) | {"canary": _canary(outcome)}


@router.post("/corrections/{id}:reject")
def reject(id: Id, request: Request, said: Reasoned = Reasoned()) -> dict[str, Any]:  # noqa: B008
    """What waits shall not go live."""
    service, caller = _here(request)
    return made(service.reject(caller, id, said.reason))


@router.post("/feedback", status_code=201)
def feedback(
    said: FeedbackIn, request: Request, idempotency_key: Idempotency = None
) -> dict[str, Any]:
    """Thumbs up is counted; down with the right answer corrects; down without one is looked at."""
    service, caller = _here(request)
    need(caller, "correct")
    trace = {"trace_id": said.trace_id, "by": said.source}
    if said.rating == "up":
        result: dict[str, Any] = {"id": None, "epoch": service.model.epoch, "status": "noted"}
    elif said.correction is None:
        complaint = service.complain(
            caller, said.question, said.answer, key=idempotency_key, trace=trace
        )
        result = made(complaint)
    else:
        fields = {"prompt": said.question, "target": said.correction}
        trace["evidence"] = f"instead of: {said.answer[:500]}"
        edit = service.correct(caller, fields, source="feedback", key=idempotency_key, trace=trace)
        result = made(edit)
    service.metrics.feedback.labels(said.rating).inc()
    return result


@router.get("/retention")
def retention(
    request: Request, limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000
) -> dict[str, Any]:
    """The monitor's readings, the oldest first: how well all that was taught is kept."""
    service, caller = _here(request)
    data = [
        {"id": r.id, "epoch": r.epoch, "time": r.time, **r.body}
        for r in service.readings(caller)[-limit:]
    ]
    return {"object": "list", "data": data}


@router.post("/retention", status_code=201)
def read(request: Request) -> dict[str, Any]:
    """Take a reading now; it takes its time."""
    service, caller = _here(request)
    need(caller, "admin")
    reading = service.model.check()
    return {"id": reading.id, "epoch": reading.epoch, "time": reading.time, **reading.body}


def _canary(outcome: Outcome) -> dict[str, Any]:
    return {
        "before": str(outcome.before),
        "after": str(outcome.after),
        "breach": outcome.breach,
    }
