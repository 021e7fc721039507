"""`lifelong serve` and `lifelong keys`: a server, and who may use it."""

import json
import logging
import tomllib
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Context, Option, Typer

import lifelong
from lifelong.cli.setup import Setup, stderr, table, with_setup
from lifelong.errors import BadSetting, PackageMissing
from lifelong.serve.keys import Keys, Role
from lifelong.serve.settings import Heard, Settings


def _read(context: Context, path: Path | None) -> Path | None:
    """Let the file say what neither an option nor the environment says."""
    if path is not None:
        try:
            said = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise BadParameter(f"{path} cannot be read: {exc}") from exc
        known = {parameter.name for parameter in context.command.params}
        said = {name.replace("-", "_"): value for name, value in said.items()}
        if unknown := sorted(said.keys() - known):
            raise BadParameter(f"{path} has the unknown setting {unknown[0]!r}")
        context.default_map = said
    return path


KeyFile = Annotated[
    Path,
    Option("--keys", envvar="LIFELONG_KEYS", metavar="FILE", help="Where the API keys are."),
]
_KEYS = Path("lifelong.keys.json")

app = Typer(help="API keys of `lifelong serve`.", no_args_is_help=True)


def serve(
    setup: Setup,
    config: Annotated[
        Path | None,
        Option(
            envvar="LIFELONG_CONFIG",
            metavar="FILE",
            help="Settings in TOML; options and variables go first.",
            is_eager=True,
            callback=_read,
        ),
    ] = None,
    host: Annotated[str, Option(envvar="LIFELONG_HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, Option(envvar="LIFELONG_PORT", min=0, max=65535)] = 8000,
    keys: KeyFile = _KEYS,
    also_host: Annotated[
        list[str] | None,
        Option(envvar="LIFELONG_HOSTS", help="A name that this server goes by, too."),
    ] = None,
    origin: Annotated[
        list[str] | None,
        Option(envvar="LIFELONG_ORIGINS", help="A site whose pages may call: https://..."),
    ] = None,
    model_id: Annotated[
        str | None, Option(envvar="LIFELONG_MODEL_ID", help="The model's name for clients.")
    ] = None,
    rows: Annotated[int, Option(envvar="LIFELONG_ROWS", help="Replies made at once.")] = 16,
    max_tokens: Annotated[
        int, Option(envvar="LIFELONG_MAX_TOKENS", help="Of a reply, unless the client says.")
    ] = 256,
    per_minute: Annotated[
        int, Option(envvar="LIFELONG_PER_MINUTE", help="Requests of one user.")
    ] = 600,
    corrections_per_minute: Annotated[
        int, Option(envvar="LIFELONG_CORRECTIONS_PER_MINUTE", help="Corrections of one user.")
    ] = 60,
    corrections_per_day: Annotated[
        int, Option(envvar="LIFELONG_CORRECTIONS_PER_DAY", help="Corrections of one user.")
    ] = 2_000,
    users_per_key: Annotated[
        int,
        Option(envvar="LIFELONG_USERS_PER_KEY", help="Limits of how many users one key has."),
    ] = 50,
    heard: Annotated[
        Heard,
        Option(envvar="LIFELONG_HEARD", help="What becomes of a chat message that corrects."),
    ] = "confirm",
    quorum: Annotated[
        int,
        Option(envvar="LIFELONG_QUORUM", help="Users who must say the same for all to get it."),
    ] = 3,
    trusted: Annotated[
        Role | None,
        Option(envvar="LIFELONG_TRUSTED", help="The role whose corrections all get at once."),
    ] = None,
    check_minutes: Annotated[
        float | None,
        Option(envvar="LIFELONG_CHECK_MINUTES", help="Take a reading that often, unasked."),
    ] = None,
) -> None:
    """Serve chats, corrections and their review over HTTP; OpenAI clients work as they are."""
    _needs_extra()
    settings = Settings(
        host=host,
        port=port,
        model_id=model_id or Path(setup.model).name,
        keys=keys,
        hosts=Settings.hosts | set(also_host or ()),
        origins=frozenset(origin or ()),
        rows=rows,
        max_tokens=max_tokens,
        requests_a_minute=per_minute,
        corrections_a_minute=corrections_per_minute,
        corrections_a_day=corrections_per_day,
        users_a_key=users_per_key,
        heard=heard,
        quorum=quorum,
        trusted=trusted,
    )
    _run(setup, settings, check_minutes)


def _run(setup: Setup, settings: Settings, check_minutes: float | None) -> None:
    import uvicorn

    from lifelong.serve.app import build

    if not Keys(settings.keys).all():
        if not settings.is_local:
            raise BadSetting(
                f"Without keys nobody else may reach this server, and {settings.host} lets them.",
                "`lifelong keys make admin` makes the first.",
            )
        stderr().print(f"No keys in {settings.keys}: whoever uses this machine is an admin.")
    _log_as_json()
    monitoring = lifelong.Monitoring(every_minutes=check_minutes)
    app = build(settings, lambda: setup.open(monitoring))
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.drain_seconds),
    )


def make(
    setup: Setup,
    role: Annotated[Role, Argument(help="What it may do, besides what those before it may.")],
    keys: KeyFile = _KEYS,
    expires: Annotated[
        str | None, Option(help="Until when it is good: ISO 8601 with offset.")
    ] = None,
) -> None:
    """Make a key, for a --tenant or a --user of it; it is shown now and never again."""
    key, secret = Keys(keys).make(role, tenant=setup.tenant, user=setup.user, expires=expires)
    setup.show({"id": key.id, "role": key.role, "key": secret}, secret)


def list_(setup: Setup, keys: KeyFile = _KEYS) -> None:
    """The keys, without their secrets."""
    shown = ("id", "role", "tenant", "user", "expires")
    rows = [{name: asdict(key)[name] for name in shown} for key in Keys(keys).all()]
    setup.show(rows, table(shown, (row.values() for row in rows)))


def revoke(setup: Setup, id: str, keys: KeyFile = _KEYS) -> None:
    """A key is good no longer, from the next request on."""
    Keys(keys).revoke(id)
    setup.show({"id": id, "status": "revoked"}, f"Key {id} is revoked.")


for _command in (make, list_, revoke):
    app.command(_command.__name__.rstrip("_"))(with_setup(_command))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told)


def _log_as_json() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _needs_extra() -> None:
    for package in ("fastapi", "prometheus_client", "uvicorn"):
        if find_spec(package) is None:
            raise PackageMissing(f"{package} is not installed.", "pip install 'lifelong[serve]'")
