"""Performs webhook jobs: one HTTP request an attempt, without a conversation. `webhook_work` describes their work.

Network errors, time-outs, 5xx and 429 may be retried, as the job's retry policy says. Other answers that are no success
are final. The report of an attempt holds the request and the answer, without secrets.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from agent_jobs.runners import webhook_request, webhook_work
from agent_jobs.runners.base import Done, Failed, Outcome, Run
from agent_jobs.work import MASK, WorkRules
from infra.egress import addresses, exchanges, retry_after
from infra.redaction import Blotter
from infra.storable_text import storable

DEFAULT_ATTEMPT_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_MAX_ANSWER_BYTES = 64 * 1024
_MAX_RESULT_CHARACTERS = 16 * 1024
_MAX_RESULT_DEPTH = 32
_LONGEST_RETRY_AFTER_SECONDS = 24 * 3_600.0
_WITH_RETRY_AFTER = (429, 503)


class WebhookRunner:
    name = "webhook"
    lane = "webhooks"
    batch_size = 1
    has_conversation = False
    needs_channel = False
    work: WorkRules | None = webhook_work.RULES

    def run(self, run: Run) -> Outcome:
        request = webhook_request.build(run)
        blotter = webhook_request.blotter_of(run.work)
        stated = run.config.get("attempt_timeout_seconds", DEFAULT_ATTEMPT_SECONDS)
        seconds = min(float(stated), webhook_work.LONGEST_ATTEMPT_SECONDS)
        attempt = _Attempt(webhook_request.record(request, run.work, blotter), blotter, seconds)
        try:
            with addresses.asking_for(run.org_id):
                answer = exchanges.make(
                    request.method,
                    request.url,
                    body=request.body,
                    headers=request.headers,
                    seconds=seconds,
                    connect_seconds=_CONNECT_SECONDS,
                    rules=run.egress,
                    max_bytes=_MAX_ANSWER_BYTES,
                    on_start=run.on_start,
                )
        except exchanges.Refused as error:
            return attempt.failed("address_refused", f"the address {error}")
        except exchanges.NotConnected as error:
            return attempt.failed("connection_failed", str(error), is_retryable=True)
        except exchanges.NoAnswer as error:
            return attempt.broken(str(error))
        return attempt.answered(answer, run.work.get("success_codes"))


class _Attempt:
    """One request, from its sending to the outcome."""

    def __init__(self, request: Mapping[str, Any], blotter: Blotter, seconds: float) -> None:
        self._request = request
        self._blotter = blotter
        self._limit_seconds = seconds
        self._began = time.monotonic()
        self._response: Mapping[str, Any] | None = None

    def answered(self, answer: exchanges.Answer, success_codes: list[int] | None) -> Outcome:
        is_cut_at_limit = len(answer.body) >= _MAX_ANSWER_BYTES
        text = _text(answer)
        shown = f"({len(answer.body):,} bytes that are not text)" if text is None else self._blotter.blotted(text)
        reason = storable(self._blotter.blotted(answer.reason[:200]))
        self._response = {
            "status_code": answer.status,
            "reason": reason,
            "headers": self._headers(answer.headers),
            "body": storable(shown.replace("\x00", "\ufffd")),
            "is_truncated": not answer.is_whole,
        }
        if not answer.is_whole and not is_cut_at_limit:
            return self.broken("the answer broke off")
        said = f"{answer.status} {reason}".strip()
        is_success = answer.status in success_codes if success_codes else 200 <= answer.status < 300
        if is_success:
            return Done(
                result=f"{said} in {self._seconds():.2f} s",
                result_data={
                    "status_code": answer.status,
                    **_result_body(shown if text is not None and answer.is_whole else ""),
                },
                report=self._report(""),
            )
        wait = None
        if answer.status in _WITH_RETRY_AFTER:
            wait = retry_after.seconds(answer.headers.get("Retry-After", ""), at_most=_LONGEST_RETRY_AFTER_SECONDS)
        is_retryable = answer.status == 429 or answer.status >= 500
        return self.failed(f"http_{answer.status}", f"the receiver answered {said}", is_retryable, wait)

    def broken(self, message: str) -> Failed:
        """The outcome of an attempt without a whole answer: the time was over, or the connection broke."""
        if self._seconds() >= self._limit_seconds:
            message = f"no whole answer within {self._limit_seconds:g} s"
            return self.failed("attempt_timeout", message, is_retryable=True)
        return self.failed("no_answer", message, is_retryable=True)

    def failed(self, code: str, message: str, is_retryable: bool = False, retry_after: float | None = None) -> Failed:
        message = self._blotter.blotted(message)
        return Failed(code, message, is_retryable, retry_after, report=self._report(f"{code}: {message}"))

    def _report(self, error: str) -> Mapping[str, Any]:
        return {
            "request": self._request,
            "response": self._response,
            "duration_ms": round(self._seconds() * 1_000),
            "error": error or None,
        }

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        shown: dict[str, str] = {}
        size = 0
        for name, value in headers.items():
            size += len(name) + len(value)
            if size > _MAX_ANSWER_BYTES:
                break
            shown[name] = MASK if webhook_work.is_secret_header(name) else self._blotter.blotted(value)
        return dict(storable(shown))


def _result_body(text: str) -> dict[str, Any]:
    """The body for `result_data`: JSON as JSON, another text as it is. Left out if it is empty or too long."""
    text = text.strip()
    if not text or len(text) > _MAX_RESULT_CHARACTERS:
        return {}
    try:
        value = json.loads(text, parse_constant=_refuse)
        if _depth(value) <= _MAX_RESULT_DEPTH:
            return {"body": storable(value)}
    except (ValueError, RecursionError):
        pass
    return {"body": storable(text)}


def _text(answer: exchanges.Answer) -> str | None:
    """The body as text; None if it is compressed or of another kind."""
    kind, _, options = answer.headers.get("Content-Type", "").lower().partition(";")
    kind = kind.strip()
    is_packed = answer.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")
    is_text = not kind or kind.startswith("text/") or kind.endswith(("json", "xml", "x-www-form-urlencoded", "yaml"))
    if answer.body and (is_packed or not is_text):
        return None
    is_latin = any(name in options for name in ("iso-8859-1", "latin1", "windows-1252"))
    return answer.body.decode("cp1252" if is_latin else "utf-8", "replace")


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        found, depth = waiting.pop()
        deepest = max(deepest, depth)
        inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        waiting += [(one, depth + 1) for one in inner]
    return deepest
