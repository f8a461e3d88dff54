"""Channels: conversations that we keep, the outbox with what could not be delivered, and Slack installations."""

from uuid import UUID

from django.http import HttpResponse

from agent_jobs.console import visits
from agent_jobs.console.templatetags.console import sentence
from agent_jobs.console.visits import Visit
from agent_jobs.errors import AgentJobsError
from agent_jobs.tenants import channel_admin
from channels_integration import directory, overviews
from channels_integration.errors import InvalidField, UnknownChannel

PAGE = 50
_MOST_LINES = 200
_MAX_TEXT = 40_000
# Slack's errors that mean the workspace has taken back what it gave us.
_REFUSALS = ("invalid_auth", "account_inactive", "token_revoked", "not_authed", "team_access_not_granted")
_TABS = (("channels", "Conversations"), ("outbox", "Outbox"), ("installations", "Slack"))


@visits.page
def channels(visit: Visit) -> HttpResponse:
    context = {"tab": "channels", "tabs": _TABS, "channels": overviews.channels(visit.org_id)}
    return visit.render("channels.html", context, here="channels")


@visits.page
def channel(visit: Visit, platform: str, code: str) -> HttpResponse:
    """One conversation, with a box to write in if it is a web chat."""
    found = directory.names(visit.org_id, {(platform, code)}) if "\x00" not in platform + code else {}
    if (platform, code) not in found:
        raise UnknownChannel(f"there is no channel {platform[:32]}:{code[:64]!r}")
    lines = overviews.lines(visit.org_id, platform, code, most=_MOST_LINES)
    context = {
        "platform": platform,
        "code": code,
        "name": found[(platform, code)] or code,
        "lines": [{**each, "initials": visits.initials(each["author"] or "Agent")} for each in lines],
        "can_write": platform == "web",
    }
    return visit.render("channel.html", context, here="channels")


@visits.action
def say(visit: Visit, platform: str, code: str) -> HttpResponse:
    page = f"{visit.url('channel', platform, code)}#end"
    text = visit.request.POST.get("text", "").replace("\r\n", "\n").strip()
    if not text or len(text) > _MAX_TEXT or "\x00" in text:
        return visit.refused("Nothing was sent", f"Write a text of 1 to {_MAX_TEXT:,} characters.", address=page)
    try:
        channel_admin.say(visit.org_id, platform, code, actor=visit.actor, text=text, author=visit.name)
    except (AgentJobsError, InvalidField) as error:
        return visit.refused("Nothing was sent", sentence(error.message), address=page)
    return visit.go(page)


@visits.page
def outbox(visit: Visit) -> HttpResponse:
    view = visit.request.GET.get("view", "dead")
    view = view if view in overviews.VIEWS else "dead"
    rows = list(overviews.messages(visit.org_id, view).values(*overviews.OUTBOX_COLUMNS)[: PAGE + 1])
    context = {
        "tab": "outbox",
        "tabs": _TABS,
        "view": view,
        "views": list(overviews.VIEWS),
        "messages_found": rows[:PAGE],
        "has_more": len(rows) > PAGE,
    }
    return visit.render("channels.html", context, here="channels")


@visits.form
def send_again(visit: Visit, message_id: UUID) -> HttpResponse:
    page = visit.url("outbox")
    if visit.request.method == "POST":
        try:
            channel_admin.send_again(visit.org_id, message_id, actor=visit.actor)
        except InvalidField as error:
            return visit.refused("It was not sent again", sentence(f"it {error.message}"), address=page)
        return visit.said("It is sent again", "As a new message of the same channel.", address=page)
    row = overviews.message(visit.org_id, message_id)
    return visit.ask(
        "Send this message again?",
        "It goes out as a new message. Its job was told that the first one died, and is not changed.",
        "Send it again",
        back=page,
        facts=[
            ("Channel", f"{row['platform']} · {row['code']}"),
            ("Text", row["text"][:200]),
            ("It died of", row["error_message"] or row["error_code"]),
        ],
        here="channels",
    )


@visits.page
def installations(visit: Visit) -> HttpResponse:
    found = [{**row, "state": _workspace_state(row)} for row in overviews.workspaces(visit.org_id)]
    context = {"tab": "installations", "tabs": _TABS, "installations": found}
    return visit.render("channels.html", context, here="channels")


def _workspace_state(row: overviews.Row) -> tuple[str, str, str]:
    """Glyph, colour and words."""
    if row["failed"]:
        is_refused = row["error_code"] in _REFUSALS and (row["heard_at"] is None or row["failed_at"] > row["heard_at"])
        return "failed", "failed", "Slack refuses our token" if is_refused else f"{row['failed']:,} failed in 24 h"
    if row["heard_at"] is None:
        return "waiting", "waiting", "Nothing heard yet"
    return "completed", "completed", "Connected"


@visits.form
def uninstall(visit: Visit, team_id: str) -> HttpResponse:
    page = visit.url("installations")
    row = directory.installations(visit.org_id).filter(team_id=team_id.replace("\x00", "")).values("name").first()
    if row is None:
        raise UnknownChannel(f"there is no installation {team_id[:64]!r}")
    if visit.request.method == "POST":
        channel_admin.uninstall_slack(visit.org_id, team_id, actor=visit.actor)
        return visit.said("The workspace is disconnected", row["name"] or team_id, address=page)
    return visit.ask(
        f"Disconnect {row['name'] or team_id}?",
        "Agents can say nothing more there, and no message from there arrives. Its secrets are erased.",
        "Disconnect it",
        back=page,
        keep="Keep it",
        is_danger=True,
        here="channels",
    )
