"""The format of every log line (ours, Django's, Celery's, granian's): JSON for machines or text for people.

Code binds the subject of a line (request, organisation, token, job, task) to the context as soon as it is known. Every
later line then carries it. No code should log a secret. As a last defence, the final step before writing masks
everything that looks like one.
"""

import logging
import re
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.types import Processor

REDACTED = "[redacted]"
_SECRETS = re.compile(
    r"""
    ajt_[a-z]{2,8}_[0-9A-Za-z]{20,}                        # app tokens; a public id is shorter, and may be seen
    | xox[a-z]{1,2}-[0-9A-Za-z-]{6,} | xapp-[0-9A-Za-z-]{6,}  # Slack
    | whsec_[0-9A-Za-z+/=]{6,}                             # webhooks
    | (?:sk|pk|rk)-[0-9A-Za-z_-]{16,}                      # providers of models
    | eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*  # JWTs
    | (?<=://)[^/\s:@"']*:[^/\s@"']+(?=@)                  # the account in an address
    | (?i:(?<=bearer\s)|(?<=basic\s))[^\s"',]{6,}
    | (?i:(?<=authorization:\s)|(?<=cookie:\s)|(?<=x-slack-signature:\s))[^"'\r\n]+
    """,
    re.VERBOSE,
)
_SECRET_NAMES = re.compile(
    r"(?i)(?:^|_|-)(?:authorization|cookie|password|passwd|secret|pepper|signature|api_?key|credentials?)(?:$|_|-)"
)
_Line = MutableMapping[str, Any]


def formatter(kind: str, secrets: tuple[str, ...] = ()) -> logging.Formatter:
    """For `logging.config.dictConfig`: `kind` is json or console, `secrets` are values to mask in every line."""
    known = [secret for secret in secrets if len(secret) >= 8]
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]

    def render(logger: Any, name: str, line: _Line) -> str:
        text = str(_as_json(logger, name, line)) if kind == "json" else _as_text(line)
        text = _SECRETS.sub(REDACTED, text)
        for secret in known:
            text = text.replace(secret, REDACTED)
        return text

    return ProcessorFormatter(
        foreign_pre_chain=first,
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            without_secret_names,
            render,
        ],
    )


def without_secret_names(logger: Any, name: str, line: _Line) -> _Line:
    """A structlog processor that masks values whose key names a secret, whatever they look like."""
    for key in line:
        if _SECRET_NAMES.search(key):
            line[key] = REDACTED
    return line


_as_json = structlog.processors.JSONRenderer(ensure_ascii=False, sort_keys=False)


def _as_text(line: _Line) -> str:
    """`INFO agent_jobs.access request method=GET status=200 …`, and the traceback below."""
    line.pop("timestamp", None)
    level, logger, event = str(line.pop("level", "")).upper(), line.pop("logger", ""), line.pop("event", "")
    exception = line.pop("exception", None)
    facts = "".join(f" {key}={value}" for key, value in line.items())
    return f"{level} {logger} {event}{facts}" + (f"\n{exception}" if exception else "")
