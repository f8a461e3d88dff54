"""A collector of OpenTelemetry on loopback: takes OTLP over HTTP and keeps the spans."""

import gzip
import threading
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fakes.loopback import LoopbackFake, LoopbackHandler


@dataclass(frozen=True)
class Span:
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    process: str
    pid: int
    is_error: bool
    attributes: dict[str, Any]


class Collector(LoopbackFake):
    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        self._lock = threading.Lock()
        super().__init__()
        self.url = self._server.url

    def _handler(self) -> type[LoopbackHandler]:
        collector = self

        class Handler(LoopbackHandler):
            def do_POST(self) -> None:
                body = self.read()
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    collector.take(body)
                self.send(200 if self.path == "/v1/traces" else 404)

        return Handler

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            self.raw += body
            for group in request.resource_spans:
                resource = _plain(group.resource.attributes)
                for scope in group.scope_spans:
                    for span in scope.spans:
                        self.spans.append(
                            Span(
                                span.name,
                                span.trace_id.hex(),
                                span.span_id.hex(),
                                span.parent_span_id.hex(),
                                resource["agent_jobs.process"],
                                resource["process.pid"],
                                span.status.code == 2,
                                _plain(span.attributes),
                            )
                        )


def _plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
