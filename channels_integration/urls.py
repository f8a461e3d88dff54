"""The addresses for platforms' signed events and pressed buttons. The API serves everything else about channels.

Every signature is checked, whatever came from that address before: all apps of a platform share its addresses.
The messages' owner decides how often a sender may fail.
"""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from channels_integration import inbound, message_owner
from infra import database

MAX_BODY_BYTES = 1024 * 1024


@csrf_exempt
def slack_events(request: HttpRequest, installation_id: UUID | None = None) -> HttpResponse:
    return _heard(request, is_press=False, installation_id=installation_id)


@csrf_exempt
def slack_interactions(request: HttpRequest) -> HttpResponse:
    return _heard(request, is_press=True)


def _heard(request: HttpRequest, *, is_press: bool, installation_id: UUID | None = None) -> HttpResponse:
    if request.method != "POST":
        answer = _refused(405, "method_not_allowed", "only POST is understood here")
        answer["Allow"] = "POST"
        return answer
    if request.headers.get("Transfer-Encoding"):
        # The web process reads a body by its length only.
        return _refused(411, "length_required", "a Content-Length is required")
    length = request.headers.get("Content-Length") or "0"
    if not length.isascii() or not length.isdigit():
        return _refused(400, "invalid_length", "the Content-Length is not a number")
    if int(length) > MAX_BODY_BYTES:
        return _refused(413, "too_large", f"at most {MAX_BODY_BYTES} bytes are read")
    try:
        heard = inbound.receive(
            "slack",
            headers=request.headers,
            body=request.body,
            is_press=is_press,
            installation_id=installation_id,
        )
    except database.Error as error:
        if not database.is_unavailable(error):
            raise
        if not database.is_of_one_statement(error):
            database.drop_session_after_request()
        answer = _refused(503, *database.for_clients(error))
        answer["Retry-After"] = "5"
        return answer
    if heard.status == 401:
        message, seconds = message_owner.get().count_forgery(request)
        if seconds:
            answer = _refused(429, "throttled", message)
            answer["Retry-After"] = str(seconds)
            return answer
    return JsonResponse(dict(heard.answer), status=heard.status)


def _refused(status: int, code: str, message: str) -> JsonResponse:
    return JsonResponse({"code": code, "message": message}, status=status)


urlpatterns = [
    path("channels/slack/events", slack_events, name="slack-events"),
    path("channels/slack/events/<uuid:installation_id>", slack_events, name="slack-events-of-one"),
    path("channels/slack/interactions", slack_interactions, name="slack-interactions"),
]
