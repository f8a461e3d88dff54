"""Traces by OpenTelemetry, where a setting names a collector: one from a POST over a worker's turn to the delivery.

A span's address (`traceparent`) is kept in the rows of the job and of its messages, for that is the way that the work
goes from process to process. Spans hold ids, names and numbers, never what anybody said. Without OTLP_ENDPOINT nothing
that traces is imported, and a span costs the look at one setting.

What the SDK reads from its own variables (OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_*, …) holds.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from django.conf import settings

MAX_LENGTH = 55
_SANE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_making = threading.Lock()


@contextmanager
def span(name: str, *, parent: str = "", kind: str = "internal", **attributes: Any) -> Iterator[Any]:
    """A span around what is done in the block, below `parent` (a traceparent) or else the one around it.

    Yields the span, or None where nothing is traced; what the block raises is noted in it, by its class alone.
    """
    if not settings.OTLP_ENDPOINT:
        yield None
        return
    from opentelemetry import trace

    options: dict[str, Any] = {"kind": trace.SpanKind[kind.upper()], "attributes": attributes}
    if _SANE.fullmatch(parent):
        options["context"] = _context_of(parent)
    with _tracer(os.getpid()).start_as_current_span(
        name, record_exception=False, set_status_on_exception=False, **options
    ) as made:
        try:
            yield made
        except Exception as error:
            made.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
            raise


def past_span(name: str, *, seconds: float, **attributes: Any) -> None:
    """A span that has just ended and took so long, below the one around it."""
    if not settings.OTLP_ENDPOINT:
        return
    ended = time.time_ns()
    made = _tracer(os.getpid()).start_span(name, start_time=ended - int(seconds * 1e9), attributes=attributes)
    made.end(ended)


def current() -> str:
    """The traceparent of the span around us; '' where there is none."""
    if not settings.OTLP_ENDPOINT:
        return ""
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _context_of(traceparent: str) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _tracer(pid: int) -> Any:
    with _making:
        return _tracer_of(pid, settings.OTLP_ENDPOINT)


@lru_cache(maxsize=4)
def _tracer_of(pid: int, endpoint: str) -> Any:
    """Made at the first span of a process, so after its fork: spans are sent in batches by a thread of its own."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    process = str(settings.DATABASES["default"]["OPTIONS"].get("application_name", ""))
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "agent-jobs"}
    resource = Resource.create({**named, "process.pid": pid, "agent_jobs.process": process})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return provider.get_tracer("agent_jobs")
