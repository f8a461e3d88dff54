"""Checks who looks at a page, and for which organisation. Every page and action of an organisation passes here.

The organisation is in the path. For somebody who is no member of it the page is a 404, like one that does not exist. A
member may read everything but tokens and audit, and change nothing; an admin may change everything. These are the
rights of the scopes READ and ADMIN in the API.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode

from agent_jobs.console import clock, frame
from agent_jobs.console.templatetags.console import sentence
from agent_jobs.errors import AgentJobsError, Conflict, Forbidden, Invalid, NotFound, QuotaReached
from agent_jobs.specs import Actor
from agent_jobs.tenants import members
from channels_integration.errors import InvalidField, UnknownChannel

# The browser's time zone. A script writes it, so the first page of a browser may still be in UTC.
ZONE_COOKIE = "zone"
_STATUSES: tuple[tuple[type[AgentJobsError], int], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (Invalid, HTTPStatus.BAD_REQUEST),
    (Conflict, HTTPStatus.CONFLICT),
    (QuotaReached, HTTPStatus.TOO_MANY_REQUESTS),
)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of one person to the pages of one organisation."""

    request: HttpRequest
    user_pk: int
    username: str
    full_name: str
    org_id: str
    org_name: str
    role: str
    memberships: Sequence[members.MemberOf]
    zone: ZoneInfo
    now: datetime

    @property
    def is_admin(self) -> bool:
        return self.role == members.ADMIN

    @property
    def actor(self) -> Actor:
        return Actor("user", self.username, getattr(self.request, "request_id", ""))

    @property
    def name(self) -> str:
        return self.full_name or self.username

    @property
    def initials(self) -> str:
        return initials(self.name)

    @property
    def city(self) -> str:
        """`Berlin` for Europe/Berlin, `UTC` for UTC."""
        return self.zone.key.rpartition("/")[2].replace("_", " ")

    @property
    def offset(self) -> str:
        """The zone's offset now, as `UTC+1`."""
        return clock.offset(self.now.astimezone(self.zone))

    @property
    def page_number(self) -> int:
        text = self.request.GET.get("page", "")
        return min(max(int(text), 1), 1_000) if text.isascii() and text.isdigit() and len(text) < 6 else 1

    def url(self, name: str, *arguments: object, **query: Any) -> str:
        """The address of another page of this organisation: `visit.url("job", job_id, tab="steps")`."""
        address = reverse(f"console:{name}", args=[self.org_id, *arguments])
        stated = {key: value for key, value in query.items() if value not in (None, "")}
        return f"{address}?{urlencode(stated, doseq=True)}" if stated else address

    def render(
        self,
        template: str,
        context: Mapping[str, Any] | None = None,
        *,
        here: str = "",
        status: int = HTTPStatus.OK,
        is_refused: bool = False,
    ) -> HttpResponse:
        """A whole page. `here` is the name of the page in the navigation that is the current one.

        `is_refused`: it is a form that was sent and has to be mended.
        """
        status = HTTPStatus.BAD_REQUEST if is_refused else status
        values = {"visit": self, "frame": frame.of(self, here), **(context or {})}
        return render(self.request, f"console/{template}", values, status=status)

    def part(self, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200) -> HttpResponse:
        """A fragment, without the frame."""
        return render(self.request, f"console/{template}", {"visit": self, **(context or {})}, status=status)

    def dialog(
        self, template: str, context: Mapping[str, Any], *, here: str, page: str = "dialog.html"
    ) -> HttpResponse:
        """A dialog over the page, or a page of its own without script."""
        if self.request.headers.get("HX-Request"):
            return self.part(template, context)
        return self.render(page, {**context, "dialog": f"console/{template}"}, here=here)

    def ask(
        self,
        title: str,
        text: str,
        verb: str = "",
        *,
        here: str,
        back: str,
        keep: str = "Leave it as it is",
        is_danger: bool = False,
        facts: Sequence[tuple[str, str]] = (),
        has_reason: bool = False,
        hidden: Mapping[str, str] = MappingProxyType({}),
    ) -> HttpResponse:
        """The question before an action: its answer is a POST to the same address.

        `verb` is on the button that does it; without one there is none. `facts` say what is hit. `hidden` is sent with
        the answer.
        """
        question = {
            "title": title,
            "text": text,
            "verb": verb,
            "back": back,
            "keep": keep,
            "is_danger": is_danger,
            "facts": facts,
            "has_reason": has_reason,
            "hidden": hidden,
        }
        return self.dialog("parts/question_dialog.html", {"question": question}, here=here)

    def said(self, title: str, text: str = "", *, address: str, link: str = "", target: str = "") -> HttpResponse:
        """Redirect after an action that was done. The next page shows a toast, with a link to `target`."""
        messages.success(self.request, "\n".join((title, text, link, target)))
        return self.go(address)

    def refused(self, title: str, text: str = "", *, address: str) -> HttpResponse:
        """Redirect after an action that was not done. Its toast stays until it is closed."""
        messages.error(self.request, "\n".join((title, text)))
        return self.go(address)

    def go(self, address: str) -> HttpResponse:
        """Redirect; a script that asked for a part of a page goes there itself."""
        if self.request.headers.get("HX-Request"):
            return HttpResponse(status=HTTPStatus.NO_CONTENT, headers={"HX-Redirect": address})
        return redirect(address)

    def back(self, default: str) -> str:
        """The page that a form names in `next`, if it is one of ours."""
        stated = self.request.POST.get("next", "")
        prefix = reverse("console:overview", args=[self.org_id])
        is_ours = url_has_allowed_host_and_scheme(stated, None) and stated.startswith(prefix)
        return stated if is_ours else default


# Called with a Visit and what is captured from the path; served with the request and the organisation's id instead.
View = Callable[..., HttpResponseBase]


def page(view: View) -> View:
    """Decorates the view of a page that members may read. Allows only GET."""
    return _guarded(view, methods=("GET", "HEAD"), needs_admin=False)


def admin_page(view: View) -> View:
    """Decorates the view of a page that only admins may see. Allows only GET."""
    return _guarded(view, methods=("GET", "HEAD"), needs_admin=True)


def action(view: View) -> View:
    """Decorates an action that only admins may do. Allows only POST."""
    return _guarded(view, methods=("POST",), needs_admin=True)


def own_action(view: View) -> View:
    """Decorates an action by which people change something of their own. Allows only POST."""
    return _guarded(view, methods=("POST",), needs_admin=False)


def form(view: View) -> View:
    """Decorates the view of a form that only admins may see and send. Allows GET and POST."""
    return _guarded(view, methods=("GET", "HEAD", "POST"), needs_admin=True)


def initials(name: str) -> str:
    words = [word for word in name.replace(".", " ").replace("_", " ").split() if word[0].isalnum()]
    return (words[0][0] + words[-1][0] if len(words) > 1 else name[:2]).upper()


def zone_of(request: HttpRequest) -> ZoneInfo:
    try:
        return ZoneInfo(request.COOKIES.get(ZONE_COOKIE, "")[:64] or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def _guarded(view: View, *, methods: tuple[str, ...], needs_admin: bool) -> View:
    @functools.wraps(view)
    def served(request: HttpRequest, org_id: str, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = _answer(view, request, org_id, methods, needs_admin, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return served


def _answer(
    view: View,
    request: HttpRequest,
    org_id: str,
    methods: tuple[str, ...],
    needs_admin: bool,
    *args: Any,
    **kwargs: Any,
) -> HttpResponseBase:
    if not request.user.is_authenticated:
        return redirect(f"{reverse('console:sign_in')}?{urlencode({'next': request.get_full_path()})}")
    visit = _visit(request, org_id)
    if visit is None:
        return missing(request)
    if request.method not in methods:
        return problem(visit, HTTPStatus.METHOD_NOT_ALLOWED, "This address does not take that", "")
    if needs_admin and not visit.is_admin:
        text = f"It takes the role admin in {visit.org_name}; you are a member there, and may read."
        return problem(visit, HTTPStatus.FORBIDDEN, "You may not do this", text)
    try:
        return view(visit, *args, **kwargs)
    except UnknownChannel as error:
        return problem(visit, HTTPStatus.NOT_FOUND, "There is no such channel", error.message)
    except InvalidField as error:
        return problem(visit, HTTPStatus.BAD_REQUEST, "This cannot be done", f"{error.field}: {error.message}")
    except AgentJobsError as error:
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
        if status is None:
            raise
        if status == HTTPStatus.NOT_FOUND or getattr(error, "denied", None):
            return missing(request, visit)
        return problem(visit, status, "This cannot be done", sentence(error.message))


def missing(request: HttpRequest, visit: Visit | None = None) -> HttpResponse:
    """The 404 page. It is the same for what does not exist and for what belongs to another organisation."""
    context = {"visit": visit, "title": "There is nothing here"}
    return render(request, "console/missing.html", context, status=HTTPStatus.NOT_FOUND)


def problem(visit: Visit, status: int, title: str, text: str) -> HttpResponse:
    """Show an error: as a page, or as a toast if the request was for a part of a page."""
    context = {"title": title, "text": text, "is_error": True}
    if getattr(visit.request, "htmx", False):
        return visit.part("parts/toast.html", context, status=status)
    return visit.render("problem.html", context, status=status)


def _visit(request: HttpRequest, org_id: str) -> Visit | None:
    user: Any = request.user
    memberships = members.of_user(user.pk)
    found = next((each for each in memberships if each.org_id == org_id), None)
    if found is None:
        return None
    return Visit(
        request=request,
        user_pk=user.pk,
        username=user.get_username(),
        full_name=user.get_full_name(),
        org_id=found.org_id,
        org_name=found.org_name,
        role=found.role,
        memberships=memberships,
        zone=zone_of(request),
        now=datetime.now(UTC),
    )
