"""Jobs that an outside program performs: an executor claims them over HTTP (`agent_jobs.executors`).

Its work says what to run and who may run it. Every key may be left out:

    {"binary_url": "https://example.com/tool", "binary_sha256": "9f86…", "arguments": ["--all"],
     "environment": {"KEY": "secret"}, "type": "render", "labels": ["gpu"]}

An executor that runs binaries claims only jobs with `binary_url`. `type` is matched with the types that an executor
states; without one, the job type's id counts. `labels` are those that an executor must have. The values of
`environment` are secrets.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from agent_jobs.errors import FieldError, Unsupported
from agent_jobs.runners.base import Done, Run
from agent_jobs.work import Path, WorkRules

NAME = "external"
LANE = "external"
MAX_LABELS = 20
MAX_LABEL = 64
MAX_TYPE = 128
MAX_URL = 2_048
MAX_ARGUMENTS = 1_000
MAX_VARIABLES = 1_000
# Linux accepts no argument and no variable of 128 KiB or more.
_MAX_ARGUMENT_BYTES = 128 * 1024 - 1
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_WORD = re.compile(r"[^\s\x00-\x1f\x7f]+")
_VARIABLE = re.compile(r"[^=\x00]{1,255}")
# Separates the parts of a placement; no part contains it.
SEPARATOR = "\x1f"
WITH_BINARY = "binary"


class ExternalRunner:
    name = NAME
    lane = LANE
    batch_size = 1
    has_conversation = False
    needs_channel = False

    def __init__(self) -> None:
        self.work: WorkRules | None = WorkRules(
            check=check, secret_paths=_secret_paths, recipient=_recipient, normalized=_normalized
        )

    def run(self, run: Run) -> Done:
        """Always raises Unsupported: executors perform these jobs, and no worker claims from this queue."""
        raise Unsupported("jobs of the external runner are performed by executors")


def placement(work: Mapping[str, Any], job_type_key: str) -> str:
    """The conditions of a claim: whether the job has a binary, its type, and the labels that an executor must have."""
    binary = WITH_BINARY if work.get("binary_url") else ""
    return SEPARATOR.join([binary, work.get("type") or job_type_key, *sorted(set(work.get("labels") or ()))])


def fits(stated: str, *, labels: Iterable[str], types: Iterable[str], binary_only: bool) -> bool:
    """Whether an executor with these labels and types may claim a job with this placement. No types: any type."""
    binary, job_type, *needed = stated.split(SEPARATOR)
    wanted = set(types)
    is_wanted = not wanted or job_type in wanted
    return is_wanted and set(needed) <= set(labels) and (binary == WITH_BINARY or not binary_only)


def check(work: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> list[FieldError]:
    """The errors of a work. It has no templates, so the params do not matter."""
    errors = [
        FieldError(f"work.{key}", "unknown_field", f"is not a key of this work; the keys are {', '.join(_RULES)}")
        for key in work
        if key not in _RULES
    ]
    for key, rule in _RULES.items():
        if key in work and (complaint := rule(work[key])):
            errors.append(FieldError(f"work.{key}", "invalid", complaint))
    for key, other in (("binary_url", "binary_sha256"), ("binary_sha256", "binary_url")):
        if key in work and other not in work:
            errors.append(FieldError(f"work.{other}", "required", f"is needed with {key}"))
    return errors


def word_complaint(value: Any, most: int) -> str:
    """The error in a type or a label; "" if there is none."""
    is_fine = isinstance(value, str) and len(value) <= most and _WORD.fullmatch(value)
    return "" if is_fine else f"must be a text of 1 to {most} characters without blanks"


def _url(value: Any) -> str:
    message = f"must be an http or https address of at most {MAX_URL} characters, without blanks"
    if not isinstance(value, str) or len(value) > MAX_URL or not _WORD.fullmatch(value):
        return message
    try:
        parts = urlsplit(value)
        is_fine = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return message
    return "" if is_fine else message


def _sha256(value: Any) -> str:
    return "" if isinstance(value, str) and _SHA256.fullmatch(value) else "must be 64 hexadecimal digits"


def _arguments(value: Any) -> str:
    is_fine = isinstance(value, list) and len(value) <= MAX_ARGUMENTS and all(map(_is_argument, value))
    return "" if is_fine else f"must be a list of at most {MAX_ARGUMENTS:,} texts, each below 128 KiB and without NUL"


def _is_argument(value: Any) -> bool:
    return (
        isinstance(value, str) and "\x00" not in value and len(value.encode("utf-8", "replace")) <= _MAX_ARGUMENT_BYTES
    )


def _environment(value: Any) -> str:
    if not isinstance(value, Mapping) or len(value) > MAX_VARIABLES:
        return f"must be an object of at most {MAX_VARIABLES:,} texts"
    for name, content in value.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            return f"{str(name)[:100]!r} is no name of a variable"
        if not _is_argument(content):
            return f"{name[:100]} must be a text below 128 KiB and without NUL"
    return ""


def _type(value: Any) -> str:
    return word_complaint(value, MAX_TYPE)


def _labels(value: Any) -> str:
    is_fine = isinstance(value, list) and len(value) <= MAX_LABELS
    if is_fine and not any(word_complaint(label, MAX_LABEL) for label in value):
        return ""
    return f"must be a list of at most {MAX_LABELS} texts of 1 to {MAX_LABEL} characters without blanks"


_RULES = {
    "binary_url": _url,
    "binary_sha256": _sha256,
    "arguments": _arguments,
    "environment": _environment,
    "type": _type,
    "labels": _labels,
}


def _secret_paths(work: Mapping[str, Any]) -> Iterable[Path]:
    return [("environment", name) for name in work.get("environment") or {}]


def _recipient(work: Mapping[str, Any]) -> Any:
    """The executors that may claim the job, and the program that they start."""
    sha256 = str(work.get("binary_sha256", "")).lower()
    return work.get("type"), work.get("labels"), sha256


def _normalized(work: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**work, "binary_sha256": work["binary_sha256"].lower()} if "binary_sha256" in work else work
