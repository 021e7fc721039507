"""Is it alive, is it ready, how is it doing."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from lifelong.serve.service import Service, need

router = APIRouter(tags=["operation"])


@router.get("/health/live")
async def live() -> dict[str, str]:
    """The process answers; nothing else is asked."""
    return {"status": "live"}


@router.get("/health/ready")
def ready(request: Request) -> dict[str, Any]:
    """The model is loaded, the journal takes commits, the index is up to date; 503 otherwise."""
    service: Service = request.app.state.service
    return service.ready()


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Figures for Prometheus; with keys, for reviewers."""
    service: Service = request.app.state.service
    need(request.state.caller, "review")
    service.refresh_metrics()
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
