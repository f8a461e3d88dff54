"""Every setting of the service, read once. `config.environment` has the environment variables and their defaults.

A value without a variable is nothing that an operator turns; tests override it (`tests/quick_settings.py`).
"""

import ipaddress
import json
import os
import re
import secrets
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from config.environment import BASE_DIR, STACK, env, env_choice, env_flag, env_int, env_list, env_rate
from config.environment import DATA_DIR as DATA_DIR
from infra import time_zones as time_zones  # pins the time zone database before anything reads a zone

# --- Core ------------------------------------------------------------------------------------------------------
_is_deployed = bool(env("DATABASE_URL")) and not STACK


def _secret(name: str) -> str:
    """A secret that must be set where a database is, and is generated where there is nothing to protect."""
    value = env(name)
    if value:
        return value
    if _is_deployed:
        raise ImproperlyConfigured(f"{name} must be set (or {name}_FILE must name a file that holds it)")
    return secrets.token_urlsafe(48)


SECRET_KEY = _secret("AGENT_JOBS_SECRET_KEY")
ALLOWED_HOSTS = env_list("AGENT_JOBS_ALLOWED_HOSTS")
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
APPEND_SLASH = False

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "django_htmx",
    "channels_integration",
    "agent_jobs",
    "agent_jobs.console",
]
MIDDLEWARE = [
    "agent_jobs.api.middleware.TlsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "agent_jobs.api.middleware.RequestIdMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
# Without `collectstatic` (the dev stack, the tests) WhiteNoise serves straight from the apps' folders.
WHITENOISE_USE_FINDERS = True

# --- PostgreSQL: the truth -------------------------------------------------------------------------------------
DATABASE_URL = env("DATABASE_URL")
DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(DATABASE_URL or "postgres://nowhere.invalid/agent_jobs", conn_max_age=None)
}
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
_database_options = DATABASES["default"].setdefault("OPTIONS", {})
_database_options.setdefault("connect_timeout", 5)
# Detects a dead connection (cable, firewall, lost host) in 25 s when waiting for an answer, and in 15 s when sending.
# The kernel's own defaults are 2 hours and 15 minutes.
for _name, _value in {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}.items():
    _database_options.setdefault(_name, _value)
_database_options.setdefault("application_name", os.environ.get("PGAPPNAME", "agent-jobs"))
# Only statements that ask for it are prepared (`infra.prepared_sql`). Django's default, None, disables preparing.
_database_options.setdefault("prepare_threshold", 1_000_000_000)
# Server-side limits, so that no session holds a lock for longer than a lease. Each is a start-up option of the
# connection and the same for all tenants, so none can leak from one to the next.
_database_options.setdefault(
    "options",
    "-c statement_timeout=30s -c lock_timeout=5s -c idle_in_transaction_session_timeout=30s"
    # Plan a prepared statement once per connection; by default PostgreSQL plans its first five runs anew.
    " -c plan_cache_mode=force_generic_plan -c jit=off -c client_connection_check_interval=1s",
)

# With a pool, a thread returns its connection while a model thinks: for workers with far more threads than that.
if _pool_size := env_int("AGENT_JOBS_DATABASE_POOL"):
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    _database_options["pool"] = {"min_size": 2, "max_size": max(_pool_size, 4), "timeout": 10}

# --- Redis: the doorbell ---------------------------------------------------------------------------------------
REDIS_URL = env("REDIS_URL")

# --- HTTP ------------------------------------------------------------------------------------------------------
# The longest request body, where a view has no `max_body_bytes` of its own.
MAX_BODY_BYTES = 256 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["agent_jobs.api.auth.AppTokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["agent_jobs.api.auth.HasScope"],
    "DEFAULT_PARSER_CLASSES": ["agent_jobs.api.parsing.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "agent_jobs.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "DATETIME_FORMAT": "%Y-%m-%dT%H:%M:%S.%fZ",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Agent Jobs API",
    "DESCRIPTION": "Posts, watches and cancels agent jobs. Requests carry an app token: `Authorization: Bearer ajt_…`.",
    "VERSION": "1.0.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": [],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "agent_jobs.api.docs.put_under_headings",
    ],
    "TAGS": [
        {"name": name}
        for name in ("Jobs", "Activities", "Catalogue", "Channels", "Webhooks", "Usage", "Administration", "Health")
    ],
}
# The foreign API (`agent_jobs.dialects`) that is mounted at the root as well; empty: none.
ROOT_DIALECT = env_choice("ROOT_DIALECT", "", "chadburn", "chronos", "executr")
# Request limits in a moving window: per token, per organisation (Org.requests_per_minute overrides it), and per address
# or IPv6 /64 for requests without a valid token and for forged events.
RATE_TOKEN = "6000/minute"  # noqa: S105  # a rate, not a secret
RATE_ORG = env_rate("AGENT_JOBS_RATE_ORG")
RATE_ADDRESS = "60/minute"
# Networks of the reverse proxies in front of the web processes. Only their X-Forwarded-For is trusted.
TRUSTED_PROXIES = env_list("AGENT_JOBS_TRUSTED_PROXIES")
for _network in TRUSTED_PROXIES:
    try:
        ipaddress.ip_network(_network)
    except ValueError:
        raise ImproperlyConfigured(f"AGENT_JOBS_TRUSTED_PROXIES must hold networks, not {_network!r}") from None
WEB_PROCESSES = env_int("AGENT_JOBS_WEB_PROCESSES", minimum=1)
# How many requests a web process works on at once.
WEB_THREADS = 16
# Event streams and long-polls hold no thread. Limits per process, per organisation in a process, and for the time that
# one may stay open before its client has to ask again.
STREAMS = 500
STREAMS_PER_ORG = 250
STREAM_SECONDS = 3600


# --- Browsers: cookies, headers, logins ------------------------------------------------------------------------
# Set it behind a proxy that terminates TLS (named in TRUSTED_PROXIES, so that its X-Forwarded-Proto counts).
HTTPS = env_flag("AGENT_JOBS_HTTPS")
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^health/"]  # asked from inside, without TLS
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0  # the browsers' preload list requires a year
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
# Browsers accept cookies with this prefix only from this very host, over TLS.
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = ("__Host-session", "__Host-csrf") if HTTPS else ("session", "csrf")
SESSION_ENGINE = "agent_jobs.console.sessions"
SESSION_COOKIE_AGE = 30 * 60
SESSION_LONGEST_SECONDS = 8 * 3600
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        **{key: ["'self'"] for key in ("script-src", "style-src", "font-src", "connect-src", "form-action")},
        "img-src": ["'self'", "data:"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}
AUTHENTICATION_BACKENDS = [
    "agent_jobs.api.login_limits.LimitedByAddress",
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in {
        "UserAttributeSimilarityValidator": {},
        "MinimumLengthValidator": {"min_length": 12},
        "CommonPasswordValidator": {},
        "NumericPasswordValidator": {},
    }.items()
]
# Five wrong passwords for one name from one address lock that pair for 15 minutes. `api.login_limits` has the limit of
# an address.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "agent_jobs.api.login_limits.client_address"
AXES_LOCKOUT_CALLABLE = "agent_jobs.console.signing_in.locked_out"
AXES_VERBOSE = False
CSRF_FAILURE_VIEW = "agent_jobs.console.signing_in.stale_form"
SILENCED_SYSTEM_CHECKS = [
    # This host cannot promise that its subdomains use TLS only, now and for good.
    "security.W005",
    "security.W021",
]


# --- Tenants, tokens, secrets ----------------------------------------------------------------------------------
def _token_peppers() -> dict[int, str]:
    """Peppers by version: `1:one,2:two`. A pepper without a version is version 1."""
    name, stated = "AGENT_JOBS_TOKEN_PEPPER", _secret("AGENT_JOBS_TOKEN_PEPPER")
    if not re.match(r"\d+:", stated):
        return {1: stated}
    peppers: dict[int, str] = {}
    for item in stated.split(","):
        version, _, pepper = item.strip().partition(":")
        if not (version.isascii() and version.isdigit() and 0 < int(version) < 2**15) or not pepper:
            raise ImproperlyConfigured(f"{name} must be one pepper or version:pepper[,version:pepper…], as 1:x,2:y")
        if int(version) in peppers:
            raise ImproperlyConfigured(f"{name} names the version {version} twice")
        peppers[int(version)] = pepper
    return peppers


# The highest version hashes new tokens; all versions are tried for existing ones.
TOKEN_PEPPERS = _token_peppers()
# `id:key[,id:key…]`, each key 32 bytes in base64; the first one seals, all of them open.
SEALING_KEYS = env("AGENT_JOBS_SEALING_KEYS")
IDEMPOTENCY_KEY_HOURS = 48

# --- Models: the operator's own keys, for organisations without one ----------------------------------------------
MODEL_KEYS = {
    "openai": env("OPENAI_API_KEY"),
    "anthropic": env("ANTHROPIC_API_KEY"),
    "google": env("GOOGLE_API_KEY"),
}
# OPENAI_BASE_URL sends OpenAI's calls to the operator's own server with the same API.
MODEL_ADDRESSES = {"openai": env("OPENAI_BASE_URL")}

# --- Channels --------------------------------------------------------------------------------------------------
SLACK_API_URL = "https://slack.com/api/"
# Lets webhook channels point at this machine and at private networks, over plain http: for development and tests.
ALLOW_PRIVATE_ADDRESSES = env_flag("AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES")
# A delivery of unknown outcome is looked up in the history this long after the attempt, and never resent before.
DELIVERY_GRACE_SECONDS = 30

# --- Running ---------------------------------------------------------------------------------------------------
# The length of a lease of workers and executors. `worker.lease_keeper` renews those of a worker process.
LEASE_SECONDS = 30
HEARTBEAT_SECONDS = LEASE_SECONDS / 3  # two may fail before a lease lapses
# How long running turns may continue after a TERM; then other workers get them.
STOP_GRACE_SECONDS = env_int("AGENT_JOBS_STOP_GRACE_SECONDS")
# Days for which ended jobs are kept, unless the organisation has its own number.
RETENTION_DAYS = env_int("AGENT_JOBS_RETENTION_DAYS", minimum=1)
WORKER_THREADS = env_int("AGENT_JOBS_WORKER_THREADS", minimum=16)
# How workers run commands of organisations: off, sandbox or trusted.
COMMAND_RUNNER = env_choice("COMMAND_RUNNER", "off", "sandbox", "trusted")
# A process with a longer turn is replaced, because Python cannot stop a thread.
TURN_SECONDS = 900
# Memory limit of each worker process; 0 leaves it to the operator's own limits. Its threads alone need some 300 MB.
WORKER_MAX_MEMORY_MB = env_int("AGENT_JOBS_WORKER_MAX_MEMORY_MB")
if 0 < WORKER_MAX_MEMORY_MB < 512:
    raise ImproperlyConfigured("AGENT_JOBS_WORKER_MAX_MEMORY_MB must be 0 or at least 512")


# --- Prices of models ------------------------------------------------------------------------------------------
def _model_prices() -> dict[str, tuple[Decimal, ...]]:
    """Prices per million tokens of input, of output and, if stated, of cached input, by the model's name, `provider:*`
    or `*`.
    """
    name, text = "AGENT_JOBS_MODEL_PRICES", env("AGENT_JOBS_MODEL_PRICES")
    try:
        table = json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be JSON: {error}") from None
    if not isinstance(table, dict):
        raise ImproperlyConfigured(f'{name} must be an object, as {{"openai:*": {{"input": "0.25", "output": "2"}}}}')
    prices = {}
    for model, price in table.items():
        if not re.fullmatch(r"[a-z]+(:\S+)?|\*", model):
            raise ImproperlyConfigured(f"{name} must name models as provider:model, provider:* or *, not {model!r}")
        if not isinstance(price, dict) or set(price) - {"cached_input"} != {"input", "output"}:
            raise ImproperlyConfigured(
                f"{name} must have an input and an output, perhaps a cached_input, and nothing else, for {model}"
            )
        kinds = ("input", "output", "cached_input")
        prices[model] = tuple(_price(name, model, price[kind]) for kind in kinds if kind in price)
    return prices


def _price(name: str, model: str, value: Any) -> Decimal:
    try:
        price = Decimal(value) if isinstance(value, str | int | Decimal) and not isinstance(value, bool) else None
    except InvalidOperation:
        price = None
    if price is None or not price.is_finite() or not 0 <= price <= 1_000_000:
        raise ImproperlyConfigured(f"{name} must have prices from 0 to 1000000 for {model}, not {value!r}")
    return price


MODEL_PRICES = _model_prices()
# If set, hosted models without a price may not be called; otherwise they cost nothing.
REQUIRE_MODEL_PRICE = env_flag("AGENT_JOBS_REQUIRE_MODEL_PRICE")
# The sign before amounts in the console: the currency of the price table.
CURRENCY = env("AGENT_JOBS_CURRENCY")

# --- Watching --------------------------------------------------------------------------------------------------
# `/metrics` requires this token as Bearer. Without one it answers 404.
METRICS_TOKEN = env("AGENT_JOBS_METRICS_TOKEN")
# The base address of an OTLP/HTTP collector. Without it nothing is traced, and OpenTelemetry is not imported.
OTLP_ENDPOINT = env("AGENT_JOBS_OTLP_ENDPOINT")

# --- Logging ---------------------------------------------------------------------------------------------------
LOG_LEVEL = env("AGENT_JOBS_LOG_LEVEL").upper()
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "config.logs.formatter",
            "kind": "json" if _is_deployed else "console",
            # Values to mask in every line.
            "secrets": (
                *(SECRET_KEY, METRICS_TOKEN, *TOKEN_PEPPERS.values(), *re.findall(r"[^:,]{8,}", SEALING_KEYS)),
                *MODEL_KEYS.values(),
            ),
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.request": {"level": "ERROR"},
        # Celery and granian have their own loggers, which would write in other formats.
        "celery": {"level": "WARNING", "handlers": [], "propagate": True},
        "kombu": {"level": "WARNING"},
        "_granian": {"level": "WARNING", "handlers": [], "propagate": True},
        # Below this level, providers' packages log addresses, headers and whole conversations.
        **{
            name: {"level": "WARNING"}
            for name in (
                *("anthropic", "google_genai", "google.auth", "httpcore", "httpcore2", "httpx", "httpx2", "openai"),
                *("pydantic_ai",),
            )
        },
    },
}
if STACK and LOG_LEVEL != "DEBUG":
    # In the one terminal of `manage.py up`, a line per request would hide the lines that people look for.
    LOGGING["loggers"]["agent_jobs.access"] = {"level": "WARNING"}
