"""`/metrics` for Prometheus: needs the token METRICS_TOKEN; without that setting, 404.

App tokens do not open it: the numbers cover all organisations together and are for operators.
"""

import hmac
import logging

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from agent_jobs import prometheus_page
from agent_jobs.api import errors
from agent_jobs.reads import gauges

logger = logging.getLogger(__name__)


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    if not settings.METRICS_TOKEN:
        return errors.handler404(request)
    if not _is_known(request.META.get("HTTP_AUTHORIZATION", "")):
        answer = errors.plain(401, "unauthenticated", "the metrics token is required, as Bearer", request)
        answer["WWW-Authenticate"] = 'Bearer realm="metrics"'
        return answer
    try:
        values = [(gauge.name, gauge.value, gauge.labels) for gauge in gauges.read()]
    except (DatabaseError, InterfaceError) as error:
        logger.warning("metrics without gauges, database unavailable: %s", str(error).strip())
        values = None
    return HttpResponse(
        prometheus_page.page(values), content_type=prometheus_page.CONTENT_TYPE, headers={"Cache-Control": "no-store"}
    )


def _is_known(header: str) -> bool:
    scheme, _, token = header.partition(" ")
    stated = token.encode("utf-8", "replace")
    return hmac.compare_digest(stated, settings.METRICS_TOKEN.encode()) and scheme.lower() == "bearer"
