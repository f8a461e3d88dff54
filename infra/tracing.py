"""OpenTelemetry traces, if a setting names a collector: one trace from a POST through a worker's turn to the delivery.

The rows of a job and its messages keep a span's address (`traceparent`), because processes hand work on through rows.
Spans hold ids, names and numbers, never message texts. Without OTLP_ENDPOINT nothing is imported for tracing, and a
span costs one look at a setting.

The SDK's own variables apply (OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_*, …).
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
    """A span around the block, below `parent` (a traceparent) or else below the current span.

    Yields the span, or None without tracing. Records the class of an exception, nothing else of it.
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
    """A span that has just ended after `seconds`, below the current span."""
    if not settings.OTLP_ENDPOINT:
        return
    ended = time.time_ns()
    made = _tracer(os.getpid()).start_span(name, start_time=ended - int(seconds * 1e9), attributes=attributes)
    made.end(ended)


def current() -> str:
    """The current span's traceparent; '' if there is none."""
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
    """Created at the first span of a process, hence after its fork: its own thread sends spans in batches."""
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
