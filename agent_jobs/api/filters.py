"""The filters of lists, one line each. A new one needs a row in the filter test, and an index if it is used often."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db.models import Q

from agent_jobs.api.parsing import MAX_NUMBER, Param, day_param, id_param, one_of, text, time_param, until_param
from agent_jobs.reads import job_words, schedule_rows
from agent_jobs.reads.queries import APPROVAL_STATUSES, WEBHOOK_DELIVERY_STATUSES
from agent_jobs.specs import MAX_METADATA_TEXT, METADATA_KEY, PRIORITIES, PRIORITY_WORDS, priorities_named
from agent_jobs.states import ActivityStatus, JobStatus, SourceType, WaitingFor
from agent_jobs.webhooks.event_types import EVENT_TYPES, TEST


def _statuses(value: str) -> list[str]:
    found = [word.strip().upper() for word in value.split(",")]
    if not set(found) <= set(JobStatus):
        raise ValueError(f"must be one or more of {', '.join(JobStatus)}")
    return found


def _tags(value: str) -> list[str]:
    found = [tag.strip() for tag in value.split(",") if tag.strip()]
    if not found or len(value) > 2_000:
        raise ValueError("must be tags with commas between them")
    return found


STATUSES = Param(
    _statuses, "One or more, in upper or lower case; repeated or with commas.", {"type": "string"}, may_repeat=True
)
TAGS = Param(_tags, "Tags with commas between them; jobs that have all of them.", {"type": "string"})


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a list: its parameter, and how it narrows the rows to those that match a value."""

    param: Param
    narrow: Callable[[Any, Any], Any]


Filters = Mapping[str, Filter]


def by(param: Param, lookup: str) -> Filter:
    """Filters by a lookup of Django's, such as `created_at__gte`."""
    return Filter(param, lambda rows, value: rows.filter(**{lookup: value}))


WORKER = "worker"


def _waits(value: str) -> list[str]:
    found = [word.strip().lower() for word in value.split(",")]
    if not set(found) <= {*WaitingFor, WORKER}:
        raise ValueError(f"must be one or more of {', '.join((*WaitingFor, WORKER))}")
    return found


def _words(value: str) -> str:
    if not value.strip() or len(value) > 200:
        raise ValueError("must be words, of at most 200 characters together")
    return value.strip()


def _priorities(value: str) -> list[int]:
    found: set[int] = set()
    for word in value.split(","):
        stated = word.strip()
        if stated in _DIGITS:
            found.add(int(stated))
        elif stated.lower() in PRIORITY_WORDS:
            found.update(priorities_named(stated.lower()))
        else:
            known = ", ".join(PRIORITY_WORDS)
            raise ValueError(f"must be one or more whole numbers from {_DIGITS[0]} to {_DIGITS[-1]}, or {known}")
    return sorted(found)


_DIGITS = [str(number) for number in PRIORITIES]


def _by_wait(rows: Any, words: list[str]) -> Any:
    at_work = Q(status=JobStatus.RUNNING, lease_until__isnull=False) if WORKER in words else Q(pk__in=())
    living = Q(status__in=(JobStatus.SCHEDULED, JobStatus.RUNNING), lease_until__isnull=True, queue_at__isnull=True)
    return rows.filter(at_work | (living & Q(waiting_for__in=[word for word in words if word != WORKER])))


def _by_error(rows: Any, code: str) -> Any:
    return rows.filter(status=JobStatus.FAILED, error_code=code)


METADATA = "metadata."
MOST_METADATA_FILTERS = 10


def _by_metadata(key: str, rows: Any, value: str) -> Any:
    """Jobs whose metadata has this value for the key: as a text, or as the number or boolean that it spells."""
    matching = Q(metadata__contains={key: value})
    if (spelled := _spelled(value)) is not None:
        matching |= Q(metadata__contains={key: spelled})
    return rows.filter(matching).exclude(metadata={})  # as the condition of the index


def _spelled(value: str) -> int | float | bool | None:
    try:
        found = json.loads(value)
    except ValueError:
        return None
    return found if isinstance(found, bool | int | float) and abs(found) <= MAX_NUMBER else None


# `metadata.<key>` is one more, for each key.
JOB_FILTERS: Filters = {
    "status": by(STATUSES, "status__in"),
    "scheduled_at": by(time_param("Due at exactly this time."), "scheduled_at"),
    "scheduled_at_gte": by(time_param("Due at this time or later."), "scheduled_at__gte"),
    "scheduled_at_lte": by(until_param("Due at this time or before."), "scheduled_at__lte"),
    "created_at_gte": by(time_param("Created at this time or later."), "created_at__gte"),
    "created_at_lte": by(until_param("Created at this time or before."), "created_at__lte"),
    "updated_at_gte": by(time_param("Changed at this time or later."), "updated_at__gte"),
    "updated_at_lte": by(until_param("Changed at this time or before."), "updated_at__lte"),
    "job_type_id": by(text(about="Jobs of this type."), "job_type_key"),
    "channel_code": by(text(about="For this channel."), "channel_code"),
    "platform": by(text(about="For this platform."), "platform"),
    "priority": by(
        Param(
            _priorities,
            f"With one of these priorities, as numbers or words ({', '.join(PRIORITY_WORDS)}). A word means every"
            " number of this name.",
            {"type": "string"},
            may_repeat=True,
        ),
        "priority__in",
    ),
    "tags": by(TAGS, "tags__contains"),
    "waiting_for": Filter(
        Param(
            _waits,
            "What the job waits for without a worker, or `worker` for jobs that one has; several with commas.",
            {"type": "string"},
            may_repeat=True,
        ),
        _by_wait,
    ),
    "error_code": Filter(text(64, about="FAILED with this code, as `deadline_exceeded`."), _by_error),
    "q": Filter(
        Param(
            _words,
            "Words in the params, the result or the error, the last one perhaps cut off; or the beginning of the job's"
            f" id. Of jobs that have not ended, the newest {job_words.MOST_LIVING:,} are searched. Of either kind, at"
            f" most the newest {job_words.MOST_FOUND:,} are found. If {job_words.ENOUGH} of the"
            f" {job_words.MOST_WALKED:,} newest ended jobs have the words, no older ones are searched.",
            {"type": "string", "maxLength": 200},
        ),
        job_words.matching,
    ),
    "replay_of": by(id_param("job", "Replays of this job."), "replay_of"),
}
SCHEDULE_FILTERS: Filters = {
    "status": Filter(
        one_of(*schedule_rows.STATUSES, about="`completed`: no firing is left."), schedule_rows.with_status
    ),
    "tag": Filter(text(160, about="With this tag."), schedule_rows.with_tag),
    "job_type_id": by(text(128, about="Of jobs of this type."), "job_type_key"),
    "key": by(text(about="With this key."), "key"),
    "runner": by(text(32, about="Of jobs of this runner."), "runner"),
    "q": by(text(about="With this text in the name, in any case."), "name__icontains"),
}
FIRING_FILTERS: Filters = {
    "outcome": by(one_of(*schedule_rows.OUTCOMES), "outcome"),
    "kind": by(one_of(*schedule_rows.KINDS), "kind"),
    "fire_at_gte": by(time_param("At this time or later."), "fire_at__gte"),
    "fire_at_lte": by(until_param("At this time or before."), "fire_at__lte"),
}
ACTIVITY_FILTERS: Filters = {
    "job_id": by(id_param("job", "Activities of this job."), "job_id"),
    "status": by(one_of(*ActivityStatus), "status"),
    "activity_type_code": by(text(about="With this code, as `job.created` or `message.out`."), "code"),
    "source_type": by(one_of(*SourceType), "source_type"),
    "created_at_gte": by(time_param("At this time or later."), "created_at__gte"),
    "created_at_lte": by(until_param("At this time or before."), "created_at__lte"),
}
APPROVAL_FILTERS: Filters = {
    "status": by(one_of(*APPROVAL_STATUSES), "status"),
    "job_id": by(id_param("job", "Approvals of this job."), "job_id"),
}
APP_TOKEN_FILTERS: Filters = {
    "app": by(text(200, about="Tokens of this app."), "app"),
}
AUDIT_FILTERS: Filters = {
    "action": by(text(about="Such as `job.canceled`."), "action"),
    "actor": by(text(about="Such as `token:ajt_live_x1y2z3a`."), "actor"),
    "object_type": by(text(about="Such as `job`."), "object_type"),
    "object_id": by(text(600, about="Entries for this object."), "object_id"),
    "request_id": by(text(128, about="Entries of the request with this X-Request-ID."), "request_id"),
    "at_gte": by(time_param("At this time or later."), "at__gte"),
    "at_lte": by(until_param("At this time or before."), "at__lte"),
}
WEBHOOK_DELIVERY_FILTERS: Filters = {
    "status": by(one_of(*WEBHOOK_DELIVERY_STATUSES), "status"),
    "event": by(one_of(*EVENT_TYPES, TEST), "event"),
}
USAGE_FILTERS: Filters = {
    "day_gte": by(day_param("On this day or later, in UTC."), "day__gte"),
    "day_lte": by(day_param("On this day or before, in UTC."), "day__lte"),
    "job_type_id": by(text(about="Calls of jobs of this type."), "job_type_key"),
    "model": by(text(128, about="Calls of this model, as `openai:gpt-5-mini`."), "model"),
}


def known(filters: Filters, sent: Iterable[str] = ()) -> Filters:
    """These filters. Those of jobs with the `metadata.<key>` that are in `sent`."""
    if filters is not JOB_FILTERS:
        return filters
    stated = sorted({name for name in sent if name.startswith(METADATA)})
    keys = [name.removeprefix(METADATA) for name in stated if METADATA_KEY.fullmatch(name.removeprefix(METADATA))]
    by_metadata = {
        f"{METADATA}{key}": Filter(text(MAX_METADATA_TEXT), partial(_by_metadata, key))
        for key in keys[:MOST_METADATA_FILTERS]
    }
    return {**filters, **by_metadata}


def params(filters: Filters) -> dict[str, Param]:
    return {name: found.param for name, found in filters.items()}


def narrowed(rows: Any, filters: Filters, values: Mapping[str, Any]) -> Any:
    """The rows that match every value, narrowed in the order of the filters."""
    for name, found in filters.items():
        if name in values:
            rows = found.narrow(rows, values[name])
    return rows
