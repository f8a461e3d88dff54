"""An admin's actions on a schedule: pause, resume, run now, roll back, delete. Each asks first."""

from uuid import UUID

from django.http import HttpResponse

from agent_jobs.console import clock, schedule_lines, visits
from agent_jobs.console.templatetags.console import humanized, sentence
from agent_jobs.console.visits import Visit
from agent_jobs.errors import Conflict, Forbidden, Invalid, NotFound, QuotaReached
from agent_jobs.reads import schedule_rows
from agent_jobs.schedules import definition as definitions
from agent_jobs.schedules import editing, requested_runs


@visits.form
def pause(visit: Visit, schedule_id: UUID) -> HttpResponse:
    page = visit.url("schedule", schedule_id)
    if visit.request.method == "POST":
        paused = editing.pause(visit.org_id, schedule_id, actor=visit.actor)
        return visit.said("The schedule is paused", paused.name, address=page)
    row = schedule_rows.schedule(visit.org_id, schedule_id)
    return visit.ask(
        f"Pause {row['name']}?",
        "It fires no more until somebody resumes it. Jobs that it has made go on.",
        "Pause it",
        back=page,
        facts=_facts(visit, row),
        here="schedules",
    )


@visits.form
def resume(visit: Visit, schedule_id: UUID) -> HttpResponse:
    page = visit.url("schedule", schedule_id)
    if visit.request.method == "POST":
        resumed = editing.resume(visit.org_id, schedule_id, actor=visit.actor)
        told = (
            f"{resumed.name} fires next {clock.coming(resumed.next_at, visit.zone, visit.now)}."
            if (resumed.next_at)
            else f"{resumed.name} has no firing left."
        )
        return visit.said("The schedule is resumed", told, address=page)
    row = schedule_rows.schedule(visit.org_id, schedule_id)
    return visit.ask(
        f"Resume {row['name']}?",
        "It fires from now on. Times that passed while it was paused are not made up for.",
        "Resume it",
        back=page,
        facts=_facts(visit, row),
        here="schedules",
    )


@visits.form
def run(visit: Visit, schedule_id: UUID) -> HttpResponse:
    page = visit.url("schedule", schedule_id)
    row = schedule_rows.schedule(visit.org_id, schedule_id)
    if visit.request.method == "POST":
        try:
            made = requested_runs.run_now(visit.org_id, schedule_id, actor=visit.actor)
        except (Conflict, Forbidden, Invalid, NotFound, QuotaReached) as error:
            return visit.refused("No job was made", sentence(error.message), address=page)
        target = visit.url("job", made.job_id) if made.job_id else page
        return visit.said("A job is made", row["name"], address=page, link="See it", target=target)
    job = row["definition"]["job"]
    channel = job.get("target_channel") or {}
    facts = [("Job type", job["job_type_id"])]
    if channel:
        facts.append(("Channel", f"{channel['platform']} · {channel['code']}"))
    return visit.ask(
        f"Run {row['name']} now?",
        "It makes one job at once, beside those that run. The next firing stays as it is.",
        "Make one job",
        back=page,
        keep="Not now",
        facts=facts,
        here="schedules",
    )


@visits.form
def roll_back(visit: Visit, schedule_id: UUID, number: int) -> HttpResponse:
    page = visit.url("schedule", schedule_id)
    row = schedule_rows.schedule(visit.org_id, schedule_id)
    if visit.request.method == "POST":
        try:
            changed = editing.roll_back(visit.org_id, schedule_id, number, actor=visit.actor)
        except (Conflict, Forbidden, Invalid, NotFound) as error:
            if error.code == "version_not_found":
                raise
            return visit.refused("It was not rolled back", sentence(error.message), address=page)
        text = f"Version {changed.version} is version {number} again."
        return visit.said("The schedule is rolled back", text, address=page)
    version = schedule_rows.versions(visit.org_id, schedule_id).filter(number=number).values("definition").first()
    if version is None:
        raise editing.version_not_found(number)
    changes = definitions.changes(row["definition"], version["definition"])
    return visit.ask(
        f"Roll back to version {number}?",
        f"It makes version {row['version'] + 1}, with the configuration and the secrets of version {number}.",
        f"Roll back to {number}",
        back=page,
        facts=[(humanized(one["field"].rpartition(".")[2]), _change_words(one)) for one in changes[:12]],
        here="schedules",
    )


@visits.form
def delete(visit: Visit, schedule_id: UUID) -> HttpResponse:
    if visit.request.method == "POST":
        deleted = editing.delete(visit.org_id, schedule_id, actor=visit.actor)
        return visit.said("The schedule is deleted", deleted.name, address=visit.url("schedules"))
    row = schedule_rows.schedule(visit.org_id, schedule_id)
    return visit.ask(
        f"Delete {row['name']}?",
        "Its versions and its record of firings go with it. Its jobs stay, and running ones go on.",
        "Delete this schedule",
        back=visit.url("schedule", schedule_id),
        keep="Keep it",
        is_danger=True,
        facts=_facts(visit, row),
        here="schedules",
    )


def _facts(visit: Visit, row: schedule_rows.Row) -> list[tuple[str, str]]:
    facts = [("When", f"{schedule_lines.rule_words(row)}, {row['definition']['time_zone']}")]
    if row["next_at"]:
        facts.append(("Next", clock.coming(row["next_at"], visit.zone, visit.now)))
    return facts


def _change_words(one: schedule_rows.Row) -> str:
    before, after = ("nothing" if one[side] is None else str(one[side])[:120] for side in ("before", "after"))
    return f"{before} → {after}"
