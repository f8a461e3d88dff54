"""`/health/live`: this process answers. `/health/ready`: the service does work, or which part of it does not.

Both need no token and reveal nothing confidential. The database's clock decides whether a part is late.
"""

from typing import Any

from django.db import DatabaseError, InterfaceError
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from agent_jobs.api.base import JsonOnly
from agent_jobs.lifecycle import queues
from agent_jobs.reads import service_state
from infra import doorbell

LATE_SECONDS = 15


class Check(serializers.Serializer[Any]):
    ok = serializers.BooleanField()
    detail = serializers.CharField()


class Health(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["ok", "unavailable"])
    checks = serializers.DictField(child=Check(), help_text="database, migrations, redis, workers, beat")


class _Open(APIView):
    authentication_classes = ()
    permission_classes = ()
    content_negotiation_class = JsonOnly


class Live(_Open):
    @extend_schema(operation_id="health_live", summary="Does this process answer?", responses=Health)
    def get(self, request: Request) -> Response:
        return Response({"status": "ok", "checks": {}})


class Ready(_Open):
    @extend_schema(
        operation_id="health_ready", summary="Does the service do work?", responses={200: Health, 503: Health}
    )
    def get(self, request: Request) -> Response:
        checks = readiness()
        is_ready = all(check["ok"] for check in checks.values())
        body = {"status": "ok" if is_ready else "unavailable", "checks": checks}
        answer = Response(body, status=200 if is_ready else 503, headers={"Cache-Control": "no-store"})
        # Otherwise Django logs each 503 of a service that is not ready yet as an error.
        answer._has_been_logged = True  # type: ignore[attr-defined]
        return answer


def readiness() -> dict[str, dict[str, Any]]:
    """Each part by name: `{"database": {"ok": True, "detail": "answers"}, ...}`. Raises nothing."""
    bells = doorbell.waiting(queues.DUTIES_QUEUE)  # None if Redis does not answer
    redis = _check(bells is not None, "answers", "does not answer: work starts late, only by the periodic sweep")
    try:
        are_migrated = service_state.is_migrated()
        work = (
            service_state.work_lately(within_seconds=LATE_SECONDS)
            if are_migrated
            else service_state.RecentWork(False, False, False)
        )
    except (DatabaseError, InterfaceError):
        unknown = _check(False, "", "unknown while the database does not answer")
        return {
            "database": _check(False, "", "does not answer"),
            "migrations": unknown,
            "redis": redis,
            "workers": unknown,
            "beat": unknown,
        }
    return {
        "database": _check(True, "answers", ""),
        "migrations": _check(are_migrated, "applied", "not applied: run manage.py migrate"),
        "redis": redis,
        **_work(work, bells),
    }


def _work(work: service_state.RecentWork, bells: int | None) -> dict[str, dict[str, Any]]:
    """Tells why no duty is done: if doorbells pile up, there is no worker; if there are none, there is no beat."""
    has_rung = work.is_rung or bool(bells)
    return {
        "workers": _check(
            work.has_worked and (work.has_done_duties or not bells),
            f"did work in the last {LATE_SECONDS} s",
            f"did no work in the last {LATE_SECONDS} s" + (f"; {bells} doorbells wait" if bells else ""),
        ),
        "beat": _check(has_rung, "sends doorbells", f"has sent no doorbell for {LATE_SECONDS} s"),
    }


def _check(is_ok: bool, well: str, otherwise: str) -> dict[str, Any]:
    return {"ok": is_ok, "detail": well if is_ok else otherwise}
