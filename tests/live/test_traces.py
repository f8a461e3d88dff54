"""One trace over the processes: the POST, the turn of a worker, the model's call, the delivery to Slack."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.collector import Collector, Span
from tests.fakes.slack import FakeSlack
from tests.live.processes import Service
from tests.live.stack import ROOT
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.live
CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_job_is_one_trace_from_its_post_to_slack(make_home: Callable[[], Path]) -> None:
    with (
        Collector() as collector,
        FakeSlack(team_id="T0LIVE", signing_secret="live-signing-secret") as slack,
        Service(
            make_home(),
            AGENT_JOBS_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="200",
            TEST_SLACK_API_URL=slack.api_url,
        ) as service,
    ):
        service.manage(
            *("install_slack", "--org", "acme", "--team", "T0LIVE"),
            *("--bot-token-stdin", "--signing-secret-env", "LIVE_SECRET"),
            stdin=slack.bot_token,
            LIVE_SECRET="live-signing-secret",
        )
        service.web("web")
        service.make_type("ask", "conversation", "The canary question")
        service.worker("worker")
        service.beat()
        channel = {"platform": "slack", "type": "channel", "code": "C0TRACE", "data": {"team_id": "T0LIVE"}}
        body = {"job_type_id": "ask", "target_channel": {"org_id": "acme", **channel}, "params": {}}
        posted = service.ok("POST", "/services/agent-jobs", body, headers={"traceparent": CLIENT})
        job_id = posted["data"]["job_id"]

        def spans() -> dict[str, Span]:
            return {span.name: span for span in collector.spans if span.trace_id == CLIENT.split("-")[1]}

        wanted = {"POST /services/agent-jobs", "turn", "model call", "deliver"}
        wait_for(lambda: set(spans()) >= wanted, what=f"the spans {wanted}, not {set(spans())}")
        seen = spans()
        request, turn = seen["POST /services/agent-jobs"], seen["turn"]
        call, delivery = seen["model call"], seen["deliver"]
        assert request.parent_id == CLIENT.split("-")[2]
        assert turn.parent_id == request.span_id
        assert call.parent_id == delivery.parent_id == turn.span_id
        assert (request.process, turn.process, delivery.process) == ("web", "worker", "worker")
        assert (
            turn.attributes
            | {
                "job.id": job_id,
                "runner": "conversation",
                "lane": "agents",
                "attempt": 1,
            }
            == turn.attributes
        )
        assert delivery.attributes | {"job.id": job_id, "platform": "slack", "attempt": 1} == delivery.attributes
        assert request.attributes["http.response.status_code"] == 201
        assert b"canary" not in collector.raw
        assert service.token.encode() not in collector.raw


def test_without_the_setting_nothing_that_traces_is_loaded() -> None:
    """redis-py loads the metrics of OpenTelemetry for itself where they are installed."""
    program = """
import sys, django
django.setup()
from infra import tracing
import agent_jobs.tasks, agent_jobs.api.urls, channels_integration.tasks
with tracing.span("x") as span:
    assert span is None and tracing.current() == ""
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "AGENT_JOBS_OTLP_ENDPOINT": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout.strip() == "[]", done.stderr
