"""Sign-in, sign-out, the choice of an organisation, and the change of one's password.

A wrong name and a wrong password give the same answer. `settings.AXES_*` and `api.login_limits` limit the tries.
"""

from http import HTTPStatus
from typing import Any

from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from agent_jobs.api.throttling import TooManyRequests
from agent_jobs.audit import audit_log
from agent_jobs.console import visits
from agent_jobs.console.visits import Visit
from agent_jobs.tenants import members

_WRONG = "This name and password do not belong together."
_LOCKED = "Too many wrong tries. Wait a quarter of an hour, or ask an admin of your organisation."
_HURRIED = "Too many tries from this address. Wait a minute, then try again."


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """The page where people sign in. Somebody who is signed in already goes on to their organisation."""
    if request.method == "POST":
        return _signed_in(request)
    if request.user.is_authenticated:
        return _go_on(request)
    return _door(request)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("console:sign_in")


@visits.page
def password(visit: Visit) -> HttpResponse:
    user: Any = visit.request.user
    return _password_page(visit, PasswordChangeForm(user))


@visits.own_action
def change_password(visit: Visit) -> HttpResponse:
    """Changes the password and ends all other sessions of the person."""
    user: Any = visit.request.user
    filled = PasswordChangeForm(user, visit.request.POST)
    if not filled.is_valid():
        return _password_page(visit, filled, status=HTTPStatus.BAD_REQUEST)
    filled.save()
    update_session_auth_hash(visit.request, user)
    audit_log.record(
        visit.org_id, "member.password_changed", visit.username, actor=visit.actor, after={"by": "themselves"}
    )
    return visit.said("Your password is changed", "Other browsers are signed out.", address=visit.url("overview"))


def locked_out(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    """settings.AXES_LOCKOUT_CALLABLE: the answer once a name is locked for an address."""
    return _door(request, _LOCKED, status=HTTPStatus.TOO_MANY_REQUESTS)


def stale_form(request: HttpRequest, reason: str = "") -> HttpResponse:
    """settings.CSRF_FAILURE_VIEW: a form without the token of this browser's session."""
    context = {"title": "This form is too old", "text": "Go back, load the page again, and send it once more."}
    return render(request, "console/missing.html", context, status=HTTPStatus.FORBIDDEN)


def nothing(request: HttpRequest, rest: str = "") -> HttpResponse:
    return visits.missing(request)


def _signed_in(request: HttpRequest) -> HttpResponse:
    name, secret = request.POST.get("username", "")[:150], request.POST.get("password", "")[:4096]
    if not name or not secret or "\x00" in name + secret:
        return _door(request, _WRONG, status=HTTPStatus.BAD_REQUEST)
    try:
        user = authenticate(request, username=name, password=secret)
    except TooManyRequests as refusal:
        answer = _door(request, _HURRIED, status=HTTPStatus.TOO_MANY_REQUESTS)
        answer["Retry-After"] = str(int(refusal.wait) + 1)
        return answer
    if user is None:
        return _door(request, _WRONG, status=HTTPStatus.OK)
    login(request, user)
    return _go_on(request)


def _go_on(request: HttpRequest) -> HttpResponse:
    """To the page that was asked for, to the only organisation, or to the choice of one."""
    wanted = request.POST.get("next", "") or request.GET.get("next", "")
    if wanted.startswith(reverse("console:sign_in")) and url_has_allowed_host_and_scheme(wanted, None):
        return redirect(wanted)
    user: Any = request.user
    memberships = members.of_user(user.pk)
    if len(memberships) == 1:
        return redirect("console:overview", memberships[0].org_id)
    return render(request, "console/orgs.html", {"memberships": memberships})


def _door(request: HttpRequest, complaint: str = "", *, status: int = HTTPStatus.OK) -> HttpResponse:
    context = {
        "complaint": complaint,
        "username": request.POST.get("username", "")[:150],
        "next": request.POST.get("next", "") or request.GET.get("next", ""),
    }
    return render(request, "console/sign_in.html", context, status=status)


def _password_page(visit: Visit, form: Any, *, status: int = HTTPStatus.OK) -> HttpResponse:
    return visit.render("password.html", {"form": form}, status=status)
