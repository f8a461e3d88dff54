"""One line of the jobs list: what a job is about, what it waits for or what came of it, and where its time went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from agent_jobs.console import clock, life_pieces
from agent_jobs.console.templatetags.console import WAITS, humanized
from agent_jobs.console.visits import Visit
from agent_jobs.reads import job_lists, queries
from agent_jobs.reads.job_lists import JobExtras
from agent_jobs.specs import DEFAULT_PRIORITY
from agent_jobs.states import TERMINAL, JobStatus, WaitingFor
from agent_jobs.tenants import members
from channels_integration import directory, platforms

_MOST_ABOUT = 60
_TITLES = ("title", "subject", "name", "summary", "topic")
_URGENT = 8


@dataclass(frozen=True, slots=True)
class JobLine:
    id: UUID
    status: str
    type_name: str
    about: str
    platform: str
    channel: str
    glyph: str
    colour: str
    says: str
    is_code: bool
    at: datetime
    seconds: float | None
    bars: Sequence[life_pieces.LifeBar]
    cost: Decimal | None
    priority: str
    is_ended: bool
    can_retry: bool


def of(
    visit: Visit, rows: Sequence[Mapping[str, Any]], *, at: str = "updated_at", types: Mapping[str, str] | None = None
) -> list[JobLine]:
    """The lines for these rows, in four statements. `at`: which time to show. `types`: the names of job types
    by key.
    """
    ids = [row["id"] for row in rows]
    more = job_lists.more(visit.org_id, ids)
    if types is None:
        types = job_lists.type_names(visit.org_id) if ids else {}
    named = [row for row in rows if row["platform"] not in platforms.WITHOUT_CHANNEL_NAMES]
    places = {(row["platform"], row["channel_code"]) for row in named}
    channels = directory.names(visit.org_id, places) if places else {}
    has_canceled = any(extras.canceled_by for extras in more.values())
    people = members.full_names(visit.org_id) if has_canceled else {}
    return [_line(visit, row, more.get(row["id"], JobExtras()), types, channels, people, at) for row in rows]


def about(params: Mapping[str, Any] | None, tags: Sequence[str]) -> str:
    """A job's subject, in a few words of its params: a title if it has one, else its first two short values."""
    shown = [str(value) for key in _TITLES if (value := (params or {}).get(key)) and isinstance(value, str)][:1]
    for value in (params or {}).values():
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            text = " ".join(str(value).split())
            if text and len(text) <= _MOST_ABOUT and not any(text in known for known in shown):
                shown.append(text)
        if len(shown) == 2:
            break
    text = " · ".join(shown) or ", ".join(tags[:2])
    return text if len(text) <= _MOST_ABOUT else f"{text[: _MOST_ABOUT - 1]}…"


def subjects(org_id: str, job_ids: Sequence[UUID]) -> dict[str, str]:
    """Type and subject of each of these jobs by id: `Media transcode reel-0187.mov`."""
    if not job_ids:
        return {}
    types = job_lists.type_names(org_id)
    return {
        str(row["id"]): " ".join(
            (types.get(row["job_type_key"]) or humanized(row["job_type_key"]), about(row["few_params"], row["tags"]))
        ).strip()
        for row in job_lists.rows_by_id(queries.jobs(org_id), job_ids)
    }


def channel_name(row: Mapping[str, Any], names: Mapping[tuple[str, str], str]) -> str:
    """The channel's name as people know it: from our register, else from the client's data, else its code.

    A job that needs no channel has "none".
    """
    if not row["platform"]:
        return "none"
    stated = row["channel_data"].get("name") if isinstance(row["channel_data"], Mapping) else None
    name = names.get((row["platform"], row["channel_code"])) or (stated if isinstance(stated, str) else "")
    if name and row["platform"] == "slack" and name[0] not in "#@":
        return f"#{name}"
    return name or str(row["channel_code"])


def _line(
    visit: Visit,
    row: Mapping[str, Any],
    more: JobExtras,
    types: Mapping[str, str],
    channels: Mapping[tuple[str, str], str],
    people: Mapping[str, str],
    at: str,
) -> JobLine:
    spent = life_pieces.kept(row, now=visit.now)
    glyph, colour, says = _says(visit, row, more, people)
    seconds = sum(seconds for kind, seconds in spent.items() if kind != "delay")
    has_begun = bool(spent) and (seconds > 0 or row["status"] != JobStatus.CANCELED)
    priority = row["priority"]
    return JobLine(
        id=row["id"],
        status=row["status"],
        type_name=types.get(row["job_type_key"]) or humanized(row["job_type_key"]),
        about=about(row["few_params"], row["tags"]),
        platform=row["platform"],
        channel=channel_name(row, channels),
        glyph=glyph,
        colour=colour,
        says=says,
        is_code=row["status"] == JobStatus.FAILED,
        at=row[at] or row["updated_at"],
        seconds=seconds if has_begun else None,
        bars=life_pieces.bars(spent),
        cost=more.cost,
        priority="urgent" if priority >= _URGENT else "high" if priority > DEFAULT_PRIORITY else "",
        is_ended=row["status"] in TERMINAL,
        can_retry=row["status"] in (JobStatus.FAILED, JobStatus.CANCELED),
    )


def _says(visit: Visit, row: Mapping[str, Any], more: JobExtras, people: Mapping[str, str]) -> tuple[str, str, str]:
    """Glyph, colour and words: what the job waits for, or what came of it."""
    match row["status"]:
        case JobStatus.SCHEDULED:
            if row["waiting_for"] == WaitingFor.COOLDOWN:
                return "cooldown", "waiting", f"Cooldown until {_coming(visit, row['scheduled_at'])}"
            delay = f", delay up to {row['delay_minutes']} min" if row["delay_minutes"] else ""
            return "", "", f"Starts {_coming(visit, row['scheduled_at'])}{delay}"
        case JobStatus.WAITING:
            waited = (visit.now - max(row["scheduled_at"], row["created_at"])).total_seconds()
            again = " again" if row["attempt"] else ""
            return "", "", f"In the queue{again} for {clock.rough(waited)}"
        case JobStatus.RUNNING:
            return _running(visit, row, more)
        case JobStatus.FAILED:
            error = f" · {row['short_error']}" if row["short_error"] else ""
            return "", "", f"{row['error_code']}{error}"
        case JobStatus.CANCELED:
            return "", "", canceled(more, people)
    return "", "", _first_line(row["short_result"]) or "Done"


def _running(visit: Visit, row: Mapping[str, Any], more: JobExtras) -> tuple[str, str, str]:
    if row["lease_until"] is not None:
        step = f": step {more.step_number}, {more.step_name}" if more.step_number else ""
        return "running", "running", f"At work{step}"
    if row["queue_at"] is not None:
        return "waiting", "waiting", "In the queue for its next turn"
    waiting_for, wake_at = row["waiting_for"], row["wake_at"]
    glyph, colour, what = WAITS.get(waiting_for, ("running", "running", waiting_for or "its next step"))
    says, at = (
        what.removeprefix("a ").removeprefix("an ").capitalize(),
        f" {_coming(visit, wake_at)}" if wake_at else "",
    )
    if waiting_for == WaitingFor.REPLY and wake_at:
        most = (row["few_config"] or {}).get("max_follow_ups", 0)
        sent = row["follow_ups_sent"]
        says += f" · follow-up {sent + 1} of {most}{at}" if sent < most else f" · until{at}"
    elif waiting_for == WaitingFor.RETRY:
        most = (row["few_config"] or {}).get("max_task_retries", 0)
        code = (more.last_result or "").partition(":")[0]
        says += f" {row['failed_attempts']} of {most}{at}" + (f" · {code}" if code else "")
    elif waiting_for == WaitingFor.APPROVAL:
        expires = more.approval_expires_at
        left = f" · {clock.rough((expires - visit.now).total_seconds())} left" if expires else ""
        says += f": {more.approval}{left}" if more.approval else left
    elif waiting_for == WaitingFor.QUIET_HOURS:
        says += f" until{at}"
    return glyph, colour, says


def canceled(more: JobExtras, people: Mapping[str, str]) -> str:
    """Says who canceled a job, and why. `people` are full names by user name."""
    kind, _, name = (more.canceled_by or "").partition(":")
    reason = (more.cancel_note or "").removeprefix("CANCELED").removeprefix(":").strip()
    by = (
        f"By {people.get(name, name) if kind == 'user' else name}" if kind in ("user", "token") and name else "Canceled"
    )
    return f"{by}: {reason}" if reason else by


def _coming(visit: Visit, at: datetime) -> str:
    return clock.coming(at, visit.zone, visit.now)


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]
