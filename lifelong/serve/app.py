"""The app: settings and a way to open the model in, an ASGI application out."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from lifelong.runtime import EditableModel
from lifelong.serve import corrections, health, openai, page, problems
from lifelong.serve.guard import Guard
from lifelong.serve.keys import Keys
from lifelong.serve.metrics import Metrics
from lifelong.serve.service import Service
from lifelong.serve.sessions import Sessions
from lifelong.serve.settings import Settings


def build(settings: Settings, open_model: Callable[[], EditableModel]) -> FastAPI:
    """The server. `open_model` is called once it starts, in a thread of its own.

    What is opened is closed when the server ends.
    """
    metrics, keys, sessions = Metrics(), Keys(settings.keys), Sessions()
    service = Service(settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = service.load(open_model)
        yield
        await run_in_threadpool(loading.join)
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="lifelong",
        version=version("lifelong"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(HTTPBearer(auto_error=False))],
    )
    app.state.service, app.state.keys, app.state.sessions = service, keys, sessions
    problems.install(app)
    for routes in (openai.router, corrections.router, health.router, page.router):
        app.include_router(routes)
    app.mount("/static", page.static)
    app.add_middleware(Guard, settings=settings, keys=keys, metrics=metrics, sessions=sessions)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-lifelong-user"],
        )
    return app
