"""The service's environment variables: names, defaults and meanings, and how they are read.

`python -m config.environment` writes `docs/settings.md` and `.env.example` from the tables below. A value comes from
the variable, else from the file that `<NAME>_FILE` names (for mounted secrets), else from the running stack's
`stack.json` under `AGENT_JOBS_DATA_DIR` (written by `manage.py up`), else from the default given here. `stack.json`
counts only while DATABASE_URL is unset or is the stack's own.
"""

import json
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import limits
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Variable:
    """One environment variable. `shown` is the default in words, where the value alone would not tell it."""

    name: str
    default: str
    meaning: str
    shown: str = ""


_REQUIRED = "required"
SERVICE = {
    "Servers and secrets": (
        Variable("DATABASE_URL", "", "PostgreSQL 18 or later", "the running stack's"),
        Variable(
            *("REDIS_URL", "redis://127.0.0.1:6379/0"),
            "Redis 6.2 or later, or Valkey, with a database number of its own; `rediss://` for TLS, whose certificate "
            "is verified, or `unix://`",
        ),
        Variable("AGENT_JOBS_SECRET_KEY", "", "Django's secret key: 50 random characters", _REQUIRED),
        Variable(
            *("AGENT_JOBS_TOKEN_PEPPER", ""),
            "the key under which app tokens are hashed: 50 random characters. `1:pepper,2:pepper` changes it without "
            "revoking tokens: new tokens take the highest version, old ones are checked with all. A pepper without a "
            "version is version 1",
            _REQUIRED,
        ),
        Variable(
            *("AGENT_JOBS_SEALING_KEYS", ""),
            "keys that seal stored secrets, `id:base64 of 32 bytes`, comma-separated: the first seals, all open",
            "required for Slack and webhooks",
        ),
    ),
    "Models": (
        Variable("OPENAI_API_KEY", "", "the operator's key, for organisations without their own"),
        Variable("ANTHROPIC_API_KEY", "", "the same for Anthropic"),
        Variable("GOOGLE_API_KEY", "", "the same for Google"),
        Variable(
            *("OPENAI_BASE_URL", ""),
            "the operator's server with OpenAI's API, which receives `OPENAI_API_KEY`",
            "OpenAI's",
        ),
        Variable(
            *("AGENT_JOBS_MODEL_PRICES", "{}"),
            'model prices as JSON, as `{"openai:*": {"input": "5", "output": "20"}}` per million tokens; see '
            "[Budgets](budgets.md#budgets)",
        ),
        Variable(
            *("AGENT_JOBS_REQUIRE_MODEL_PRICE", "0"),
            "`1`: hosted models without a price are refused; otherwise they cost nothing",
        ),
        Variable("AGENT_JOBS_CURRENCY", "$", "the sign before amounts in the console: the currency of the prices"),
    ),
    "HTTP": (
        Variable(
            *("AGENT_JOBS_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]"),
            "host names of the service (Prometheus needs one of them, too); others: 400, except for `/health/`",
        ),
        Variable(
            *("AGENT_JOBS_HTTPS", "0"),
            "`1` if a proxy terminates TLS: Secure `__Host-` cookies, HSTS, redirects from http (foreign APIs: 403)",
        ),
        Variable(
            *("AGENT_JOBS_TRUSTED_PROXIES", ""),
            "networks of trusted reverse proxies, whose `X-Forwarded-For` counts; set it if you have one",
        ),
        Variable(
            *("ROOT_DIALECT", ""),
            "`chadburn`, `chronos` or `executr`: this foreign API also stands at `/api/v1`, for clients that cannot "
            "change their path; see [Dialects](dialects.md#at-the-root)",
        ),
        Variable(
            *("AGENT_JOBS_RATE_ORG", "12000/minute"),
            "requests of one organisation, where it has no `requests_per_minute` of its own (`off`: no limit)",
        ),
        Variable(
            *("AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES", "0"),
            "`1`: webhooks may go to private addresses and plain http, for development only",
        ),
    ),
    "Sizes and times": (
        Variable("AGENT_JOBS_WEB_PROCESSES", "2", "web processes; each works on 16 requests at once"),
        Variable("AGENT_JOBS_WORKER_THREADS", "32", "threads of a worker process (`celery -c`)"),
        Variable(
            *("AGENT_JOBS_WORKER_MAX_MEMORY_MB", "0"),
            "memory limit of a worker process in megabytes, 512 or more; a turn that needs more fails; 0: only the "
            "system's limit",
        ),
        Variable(
            *("AGENT_JOBS_DATABASE_POOL", "0"),
            "connections in a process's pool, released during model calls; 0: one for each thread",
            "`0`; workers of `up` and Compose `16`",
        ),
        Variable(
            *("AGENT_JOBS_STOP_GRACE_SECONDS", "25"),
            "how long running turns may continue after a TERM before other workers get their jobs",
            "`25`; `up` 8",
        ),
        Variable(
            *("COMMAND_RUNNER", "off"),
            "how workers run commands of organisations that may (`manage.py allow_commands`): `off`, `sandbox` "
            "(bubblewrap; a worker that cannot give it does not start), or `trusted` (as an ordinary user); see "
            "[Runners](runners.md#commands)",
            "`off`; `up` `sandbox` where it works",
        ),
        Variable(
            *("AGENT_JOBS_RETENTION_DAYS", "90"),
            "days for which ended jobs are kept, unless the organisation sets its own",
        ),
    ),
    "Watching": (
        Variable(
            *("AGENT_JOBS_METRICS_TOKEN", ""),
            "the Bearer token for `/metrics`; empty: the page is off",
            "empty; `up` `metrics`",
        ),
        Variable(
            *("AGENT_JOBS_OTLP_ENDPOINT", ""),
            "base address of an OpenTelemetry collector (OTLP over HTTP); empty: no traces",
        ),
        Variable("AGENT_JOBS_LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR"),
        Variable("AGENT_JOBS_DATA_DIR", ".dev", "where `manage.py up` keeps its servers' files"),
    ),
}
COMPOSE = {
    "Compose only": (
        Variable(
            *("POSTGRES_PASSWORD", ""),
            "the password of the tables' owner, used by migrations only; letters and digits",
            _REQUIRED,
        ),
        Variable(
            *("POSTGRES_APP_PASSWORD", ""),
            "the password of the role `agent_jobs_app`, used by the service; letters and digits",
            _REQUIRED,
        ),
        Variable("OWNER_DATABASE_URL", "", "the owner's address for migrations, if `DATABASE_URL` is another server"),
        Variable("WEB_ADDRESS", "127.0.0.1:8000", "where the web process is published on this machine"),
    )
}
_DEFAULTS = {variable.name: variable.default for section in SERVICE.values() for variable in section}

DATA_DIR = Path(os.environ.get("AGENT_JOBS_DATA_DIR", BASE_DIR / _DEFAULTS["AGENT_JOBS_DATA_DIR"])).resolve()


def _running_stack() -> dict[str, str]:
    """The environment that `manage.py up` wrote for its processes; {} if no stack was ever started."""
    try:
        stack: dict[str, str] = json.loads((DATA_DIR / "stack.json").read_text())["environment"]
    except (FileNotFoundError, PermissionError, NotADirectoryError, ValueError, KeyError):
        return {}
    stated = os.environ.get("DATABASE_URL")
    return stack if stated in (None, "", stack.get("DATABASE_URL")) else {}


STACK = _running_stack()


# --- Reading -----------------------------------------------------------------------------------------------------
def env(name: str) -> str:
    """The value of a variable. KeyError if the tables do not have it."""
    default = _DEFAULTS[name]
    value = os.environ.get(name)
    if value:
        return value
    if path := os.environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE names {path}, which cannot be read: {error.strerror}") from None
    return STACK.get(name, default)


def env_flag(name: str) -> bool:
    value = env(name).lower()
    if value not in {"0", "1", "true", "false", "yes", "no", "on", "off"}:
        raise ImproperlyConfigured(f"{name} must be 1 or 0, not {value!r}")
    return value in {"1", "true", "yes", "on"}


def env_int(name: str, *, minimum: int = 0) -> int:
    value = env(name)
    if not value.isascii() or not value.isdigit() or int(value) < minimum:
        raise ImproperlyConfigured(f"{name} must be a whole number of at least {minimum}, not {value!r}")
    return int(value)


def env_choice(name: str, *choices: str) -> str:
    value = env(name).lower()
    if value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value


def env_rate(name: str) -> str:
    """A rate such as `600/minute`; `off` for no limit."""
    value = env(name).lower()
    try:
        if value == "off" or limits.parse(value).amount > 0:
            return value
    except ValueError:
        pass
    raise ImproperlyConfigured(f"{name} must be a rate as 600/minute, or off, not {value!r}")


def env_list(name: str) -> list[str]:
    return [item.strip() for item in env(name).split(",") if item.strip()]


# --- Documents ---------------------------------------------------------------------------------------------------
def documents() -> dict[Path, str]:
    """The text of each generated file. Written by `python -m config.environment`, checked by a test."""
    page = [
        "# Settings\n",
        "Every setting is an environment variable; `NAME_FILE` may name a file that holds the value. This page and\n"
        "`.env.example` are written by `python -m config.environment`, from the tables in that module.",
    ]
    example = [
        "# Copy this file to .env for Compose. What is commented out shows its default. docs/settings.md says more.",
        "# NAME_FILE=/run/secrets/name gives any variable of the service by file instead.",
    ]
    for section, variables in (SERVICE | COMPOSE).items():
        page.append(f"\n## {section}\n\n| Variable | Default | Meaning |\n|---|---|---|")
        example.append(f"\n# --- {section} ---")
        for variable in variables:
            default = variable.shown or (f"`{variable.default}`" if variable.default else "")
            page.append(f"| `{variable.name}` | {default} | {variable.meaning} |")
            mark = "" if variable.shown.startswith(_REQUIRED) else "# "
            example.append(textwrap.fill(variable.meaning, 118, initial_indent="# ", subsequent_indent="# "))
            example.append(f"{mark}{variable.name}={variable.default}")
    return {
        BASE_DIR / "docs" / "settings.md": "\n".join(page) + "\n",
        BASE_DIR / ".env.example": "\n".join(example) + "\n",
    }


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text)
