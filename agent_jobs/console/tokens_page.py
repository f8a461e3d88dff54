"""App tokens: who calls the API. A token is shown once, by the answer that makes it."""

from typing import Any

from django.http import HttpResponse

from agent_jobs import scopes
from agent_jobs.api.app_tokens import AppTokenRequest
from agent_jobs.console import body_checks, visits
from agent_jobs.console.visits import Visit
from agent_jobs.errors import Conflict, Forbidden, Invalid
from agent_jobs.reads import queries
from agent_jobs.tenants import app_tokens

_MOST = 200
_LEVELS = {
    "SERVICES:READ": "read jobs and everything else",
    "SERVICES:WRITE": "make, cancel and retry jobs",
    "SERVICES:EXECUTE": "claim jobs as an executor",
    "SERVICES:ADMIN": "everything, tokens too",
}


@visits.admin_page
def tokens(visit: Visit) -> HttpResponse:
    found = queries.app_tokens(visit.org_id).order_by("-created_at", "-id").values(*queries.APP_TOKEN_COLUMNS)
    rows = [{**row, "state": _state(visit, row)} for row in found[:_MOST]]
    return visit.render("tokens.html", {"tokens": rows}, here="tokens")


@visits.form
def new(visit: Visit) -> HttpResponse:
    sent = visit.request.POST
    if visit.request.method != "POST":
        values = {"app": visit.request.GET.get("app", "")[:200], "days": str(app_tokens.DEFAULT_DAYS)}
        return _form(visit, values, ["SERVICES:WRITE"], {})
    chosen = sent.getlist("scopes")
    values = {name: sent.get(name, "").strip() for name in ("app", "name", "days")}
    try:
        stated = [
            ("app", values["app"]),
            ("name", values["name"]),
            ("scopes", chosen),
            ("expires_in_days", body_checks.whole(values["days"], "expires_in_days")),
        ]
        fields = body_checks.checked(AppTokenRequest, body_checks.stated(stated))
        token, plain = app_tokens.issue_for_app(
            visit.org_id,
            app=fields["app"],
            name=fields.get("name", fields["app"]),
            scopes=fields["scopes"],
            days=fields.get("expires_in_days", app_tokens.DEFAULT_DAYS),
            held=list(scopes.ALL_SCOPES),
            actor=visit.actor,
        )
    except (Conflict, Forbidden, Invalid) as error:
        return _form(visit, values, chosen, body_checks.told(error))
    context = {
        "title": "The token is made",
        "what": f"{token.name}, for the header Authorization: Bearer",
        "secret": plain,
        "next": visit.url("tokens"),
    }
    return visit.render("shown_once.html", context, here="tokens")


@visits.form
def revoke(visit: Visit, public_id: str) -> HttpResponse:
    page = visit.url("tokens")
    if visit.request.method == "POST":
        token = app_tokens.revoke_by_id(visit.org_id, public_id, actor=visit.actor)
        return visit.said("The token is revoked", token.name, address=page)
    token = app_tokens.find(visit.org_id, public_id)
    return visit.ask(
        f"Revoke {token.name}?",
        "Calls with it are refused at once and for good. To rotate, make the second token of the app first.",
        "Revoke this token",
        back=page,
        keep="Keep it",
        is_danger=True,
        facts=[("App", token.app), ("Begins with", token.public_id), ("May", ", ".join(token.scopes))],
        here="tokens",
    )


def _form(visit: Visit, values: dict[str, str], chosen: list[str], problems: dict[str, str]) -> HttpResponse:
    context: dict[str, Any] = {
        "values": values,
        "scopes": [(name, _LEVELS.get(name, ""), name in chosen) for name in scopes.ALL_SCOPES],
        "most_days": app_tokens.MAX_DAYS_FOR_APPS,
        "problems": problems,
    }
    return visit.render("token_new.html", context, here="tokens", is_refused=bool(problems))


def _state(visit: Visit, row: dict[str, Any]) -> str:
    if row["revoked_at"] is not None:
        return "revoked"
    return "expired" if row["expires_at"] is not None and row["expires_at"] <= visit.now else "active"
