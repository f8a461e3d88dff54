"""The people of the organisation and their roles."""

from django.http import HttpResponse

from agent_jobs.console import visits
from agent_jobs.console.templatetags.console import sentence
from agent_jobs.console.visits import Visit
from agent_jobs.errors import Conflict, Invalid
from agent_jobs.tenants import member_changes, orgs


@visits.page
def show(visit: Visit) -> HttpResponse:
    people = [
        {**row, "name": f"{row['user__first_name']} {row['user__last_name']}".strip() or row["user__username"]}
        for row in member_changes.listed(visit.org_id)
    ]
    context = {
        "people": [{**each, "initials": visits.initials(each["name"])} for each in people],
        "roles": orgs.ROLES,
    }
    return visit.render("members.html", context, here="members")


@visits.action
def add(visit: Visit) -> HttpResponse:
    sent, page = visit.request.POST, visit.url("members")
    username = sent.get("username", "").strip()
    try:
        member_changes.add(
            visit.org_id,
            username=username,
            role=sent.get("role", ""),
            password=sent.get("password", ""),
            actor=visit.actor,
        )
    except (Invalid, Conflict) as error:
        return visit.refused("Nobody was added", sentence(error.message), address=page)
    return visit.said("A member is added", username, address=page)


@visits.action
def change_role(visit: Visit, username: str) -> HttpResponse:
    page, role = visit.url("members"), visit.request.POST.get("role", "")
    try:
        member_changes.change_role(visit.org_id, username, role, actor=visit.actor)
    except (Invalid, Conflict) as error:
        return visit.refused("The role was not changed", sentence(error.message), address=page)
    # An admin who gave up that role may still read the page.
    return visit.said("The role is changed", f"{username} is {role} now.", address=page)


@visits.form
def remove(visit: Visit, username: str) -> HttpResponse:
    page = visit.url("members")
    if visit.request.method == "POST":
        try:
            member_changes.remove(visit.org_id, username, actor=visit.actor)
        except Conflict as error:
            return visit.refused("Nobody was removed", sentence(error.message), address=page)
        return visit.said("The member is removed", username, address=page)
    if username not in {row["user__username"] for row in member_changes.listed(visit.org_id)}:
        raise member_changes.not_found(username)
    return visit.ask(
        f"Remove {username}?",
        f"They see nothing of {visit.org_name} any more. Their account stays.",
        "Remove this member",
        back=page,
        keep="Keep them",
        is_danger=True,
        here="members",
    )
