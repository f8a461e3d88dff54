"""Builds the request of one attempt of a webhook job, and its record without secrets."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent_jobs.errors import PermanentError
from agent_jobs.runners import prompts, webhook_work
from agent_jobs.runners.base import Run
from agent_jobs.work import MASK
from infra.egress import standard_webhooks
from infra.redaction import Blotter
from infra.storable_text import storable

# Shorter secrets would blot ordinary words.
_LEAST_SECRET = 4
_LEAST_WORD = 8


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None


def build(run: Run) -> WebhookRequest:
    """The request with its secrets in clear.

    Raises PermanentError (`template_invalid`) if a template fails, leads to another host or makes an invalid header,
    and (`body_too_large`); and RetryableError (`busy`) if no sandbox process becomes free for a template.
    """
    work = run.work
    params = None if work.get("verbatim") else run.params
    url = _rendered("work.url", work["url"], params)
    if webhook_work.origin(url) != webhook_work.fixed_origin(work["url"]):
        raise PermanentError("work.url: a placeholder would lead to another host", code="template_invalid")
    body, kind = _body(work, params)
    headers = {} if kind is None else {"Content-Type": kind}
    for name, value in work.get("headers", {}).items():
        if not webhook_work.is_secret_header(name):
            value = _rendered(f"work.headers.{name}", value, params).strip()
            if complaint := webhook_work.value_complaint(value):
                raise PermanentError(f"work.headers.{name}: {complaint}", code="template_invalid")
        _put(headers, name, value)
    for name, value in (_told_headers(run) | _auth_headers(work)).items():
        _put(headers, name, value)
    if secret := work.get("sign_with"):
        key, text = webhook_work.signing_key(secret), (body or b"").decode()
        signature = standard_webhooks.headers(run.job_id, text, [key], now=datetime.now(UTC))
        headers |= {name.title(): value for name, value in signature.items()}
    return WebhookRequest(work.get("method", "POST"), url, headers, body)


def record(request: WebhookRequest, work: Mapping[str, Any], blotter: Blotter) -> dict[str, Any]:
    """The whole request, as the task's report shows it."""
    hidden = {name.lower() for name in _auth_headers(work)}
    headers = {
        name: MASK if name.lower() in hidden or webhook_work.is_secret_header(name) else blotter.blotted(value)
        for name, value in request.headers.items()
    }
    body = (request.body or b"").decode("utf-8", "replace")
    return {
        "method": request.method,
        "url": storable(blotter.blotted(request.url)),
        "headers": storable(headers),
        "body": storable(blotter.blotted(body)),
    }


def blotter_of(work: Mapping[str, Any]) -> Blotter:
    """Redacts the work's secrets, also without the word before them (`Bearer …`)."""
    values: set[str] = set()
    for path in webhook_work.RULES.secret_paths(work):
        value: Any = work
        for key in path:
            value = value[key]
        words = [word for word in str(value).split()[1:] if len(word) >= _LEAST_WORD]
        values.update(text for text in (str(value), *words) if len(text) >= _LEAST_SECRET)
    return Blotter(values)


def _rendered(field: str, text: str, params: Mapping[str, Any] | None) -> str:
    """Without params, the text as it is."""
    if params is None or not webhook_work.is_template(text):
        return text
    try:
        return prompts.render(text, params)
    except PermanentError as error:
        said = error.message.removeprefix("start_prompt: ")
        raise PermanentError(f"{field}: {said}", code="template_invalid") from None


def _body(work: Mapping[str, Any], params: Mapping[str, Any] | None) -> tuple[bytes | None, str | None]:
    """The body, and the content type that says what it is; None without a body."""
    if "body" not in work:
        return None, None
    filled = _filled("work.body", work["body"], params)
    is_text = isinstance(filled, str)
    body = (filled if is_text else json.dumps(filled, ensure_ascii=False)).encode("utf-8", "replace")
    if len(body) > webhook_work.MAX_BODY_BYTES:
        most = f"{webhook_work.MAX_BODY_BYTES:,}"
        raise PermanentError(f"work.body: has {len(body):,} bytes; at most {most} are allowed", code="body_too_large")
    return body, "text/plain; charset=utf-8" if is_text and not _is_json(body) else "application/json"


def _filled(field: str, value: Any, params: Mapping[str, Any] | None) -> Any:
    if isinstance(value, str):
        return _rendered(field, value, params)
    if isinstance(value, Mapping):
        return {key: _filled(f"{field}.{key}", inner, params) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(f"{field}.{number}", inner, params) for number, inner in enumerate(value)]
    return value


def _is_json(body: bytes) -> bool:
    if body.lstrip()[:1] not in (b"{", b"["):
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _told_headers(run: Run) -> dict[str, str]:
    """Headers that name the job, the attempt and its time: `X-Agent-Jobs-Job-ID: …`.

    A work with a `header_prefix` imitates another scheduler, which calls a schedule a job and a job an execution.
    """
    prefix = run.work.get("header_prefix")
    at = run.fire_at or run.scheduled_at
    times = {"Scheduled-Time": _stamp(at)} if at else {}
    if prefix:
        ids = {"Job-ID": run.schedule_id or run.job_id, "Execution-ID": run.job_id}
    else:
        ids = {"Job-ID": run.job_id, "Execution-ID": run.task_id, "Schedule-ID": run.schedule_id}
    told = {**ids, **times, "Attempt": str(run.failed_attempts + 1)}
    return {f"{prefix or webhook_work.DEFAULT_PREFIX}-{name}": value for name, value in told.items() if value}


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _auth_headers(work: Mapping[str, Any]) -> dict[str, str]:
    auth: Mapping[str, Any] = work.get("auth", {})
    match auth.get("type"):
        case "basic":
            pair = base64.b64encode(f"{auth['username']}:{auth['password']}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        case "bearer":
            return {"Authorization": f"Bearer {auth['token']}"}
        case "api_key":
            return {auth.get("header", webhook_work.DEFAULT_API_KEY_HEADER): auth["key"]}
    return {}


def _put(headers: dict[str, str], name: str, value: str) -> None:
    """Set a header, in place of one of the same name in another case."""
    for known in [known for known in headers if known.lower() == name.lower()]:
        del headers[known]
    headers[name] = value
