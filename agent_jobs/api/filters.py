"""The filters of lists, one line each. A new one needs a row in the filter test, and an index if it is used often."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django import forms
from django.db.models import Q
from django_filters import Filter, FilterSet  # type: ignore[import-untyped]

from agent_jobs.api.parsing import MAX_NUMBER, Param, day_param, id_param, one_of, text, time_param, until_param
from agent_jobs.errors import FieldError
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
        raise ValueError("must be 1 or more tags with commas between them, at most 2,000 characters together")
    return found


STATUSES = Param(
    _statuses, "One or more, in upper or lower case; repeated or with commas.", {"type": "string"}, may_repeat=True
)
TAGS = Param(_tags, "Tags with commas between them; jobs that have all of them.", {"type": "string"})


class _Field(forms.Field):
    """Parses a filter's value like any other query parameter, with a Param."""

    def __init__(self, *, param: Param, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.param = param

    def to_python(self, value: Any) -> Any:
        if value in self.empty_values:
            return None
        try:
            return self.param.parse(value)
        except ValueError as error:
            raise forms.ValidationError(str(error), code="invalid") from None


class By(Filter):  # type: ignore[misc]
    """Filters by a column: `By(param, "column", "lookup")`."""

    field_class = _Field

    def __init__(self, param: Param, column: str = "", lookup: str = "exact") -> None:
        super().__init__(field_name=column or None, lookup_expr=lookup, param=param)
        self.param = param


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


class _ByWait(By):
    def filter(self, rows: Any, value: list[str] | None) -> Any:
        if not value:
            return rows
        at_work = Q(status=JobStatus.RUNNING, lease_until__isnull=False) if WORKER in value else Q(pk__in=())
        living = Q(status__in=(JobStatus.SCHEDULED, JobStatus.RUNNING), lease_until__isnull=True, queue_at__isnull=True)
        return rows.filter(at_work | (living & Q(waiting_for__in=[word for word in value if word != WORKER])))


class _ByError(By):
    def filter(self, rows: Any, value: str | None) -> Any:
        return rows.filter(status=JobStatus.FAILED, error_code=value) if value else rows


class _ByWords(By):
    def filter(self, rows: Any, value: str | None) -> Any:
        return job_words.matching(rows, value) if value else rows


class With(By):
    """Filters by a function of the rows and the value."""

    def __init__(self, param: Param, narrow: Callable[[Any, Any], Any]) -> None:
        super().__init__(param)
        self.narrow = narrow

    def filter(self, rows: Any, value: Any) -> Any:
        return rows if value is None else self.narrow(rows, value)


METADATA = "metadata."
MOST_METADATA_FILTERS = 10


class _ByMetadata(By):
    """Jobs whose metadata has this value for the key: as a text, or as the number or boolean that it spells."""

    def __init__(self, name: str) -> None:
        super().__init__(text(MAX_METADATA_TEXT))
        self.key = name.removeprefix(METADATA)

    def filter(self, rows: Any, value: str | None) -> Any:
        if value is None:
            return rows
        matching = Q(metadata__contains={self.key: value})
        if (spelled := _spelled(value)) is not None:
            matching |= Q(metadata__contains={self.key: spelled})
        return rows.filter(matching).exclude(metadata={})  # as the condition of the index


def _spelled(value: str) -> int | float | bool | None:
    try:
        found = json.loads(value)
    except ValueError:
        return None
    return found if isinstance(found, bool | int | float) and abs(found) <= MAX_NUMBER else None


class JobFilters(FilterSet):  # type: ignore[misc]
    """The filters of jobs. `metadata.<key>` is one more, for each key."""

    def __init__(self, sent: Mapping[str, str], *args: Any, **kwargs: Any) -> None:
        super().__init__(sent, *args, **kwargs)
        self.filters |= _of_metadata(sent)

    status = By(STATUSES, lookup="in")
    scheduled_at = By(time_param("Due at exactly this time."))
    scheduled_at_gte = By(time_param("Due at this time or later."), "scheduled_at", "gte")
    scheduled_at_lte = By(until_param("Due at this time or before."), "scheduled_at", "lte")
    created_at_gte = By(time_param("Created at this time or later."), "created_at", "gte")
    created_at_lte = By(until_param("Created at this time or before."), "created_at", "lte")
    updated_at_gte = By(time_param("Changed at this time or later."), "updated_at", "gte")
    updated_at_lte = By(until_param("Changed at this time or before."), "updated_at", "lte")
    job_type_id = By(text(about="Jobs of this type."), "job_type_key")
    channel_code = By(text(about="For this channel."))
    platform = By(text(about="For this platform."))
    priority = By(
        Param(
            _priorities,
            f"With one of these priorities, as numbers or words ({', '.join(PRIORITY_WORDS)}). A word means every"
            " number of this name.",
            {"type": "string"},
            may_repeat=True,
        ),
        lookup="in",
    )
    tags = By(TAGS, lookup="contains")
    waiting_for = _ByWait(
        Param(
            _waits,
            "What the job waits for without a worker, or `worker` for jobs that one has; several with commas.",
            {"type": "string"},
            may_repeat=True,
        )
    )
    error_code = _ByError(text(64, about="FAILED with this code, as `deadline_exceeded`."))
    q = _ByWords(
        Param(
            _words,
            "Words in the params, the result or the error, the last one perhaps cut off; or the beginning of the job's"
            f" id. Of jobs that have not ended, the newest {job_words.MOST_LIVING:,} are searched. Of either kind, at"
            f" most the newest {job_words.MOST_FOUND:,} are found. If {job_words.ENOUGH} of the"
            f" {job_words.MOST_WALKED:,} newest ended jobs have the words, no older ones are searched.",
            {"type": "string", "maxLength": 200},
        )
    )
    replay_of = By(id_param("job", "Replays of this job."))


class ScheduleFilters(FilterSet):  # type: ignore[misc]
    status = With(one_of(*schedule_rows.STATUSES, about="`completed`: no firing is left."), schedule_rows.with_status)
    tag = With(text(160, about="With this tag."), schedule_rows.with_tag)
    job_type_id = By(text(128, about="Of jobs of this type."), "job_type_key")
    key = By(text(about="With this key."))
    runner = By(text(32, about="Of jobs of this runner."))
    q = By(text(about="With this text in the name, in any case."), "name", "icontains")


class FiringFilters(FilterSet):  # type: ignore[misc]
    outcome = By(one_of(*schedule_rows.OUTCOMES))
    kind = By(one_of(*schedule_rows.KINDS))
    fire_at_gte = By(time_param("At this time or later."), "fire_at", "gte")
    fire_at_lte = By(until_param("At this time or before."), "fire_at", "lte")


class ActivityFilters(FilterSet):  # type: ignore[misc]
    job_id = By(id_param("job", "Activities of this job."))
    status = By(one_of(*ActivityStatus))
    activity_type_code = By(text(about="With this code, as `job.created` or `message.out`."), "code")
    source_type = By(one_of(*SourceType))
    created_at_gte = By(time_param("At this time or later."), "created_at", "gte")
    created_at_lte = By(until_param("At this time or before."), "created_at", "lte")


class ApprovalFilters(FilterSet):  # type: ignore[misc]
    status = By(one_of(*APPROVAL_STATUSES))
    job_id = By(id_param("job", "Approvals of this job."))


class AppTokenFilters(FilterSet):  # type: ignore[misc]
    app = By(text(200, about="Tokens of this app."))


class AuditFilters(FilterSet):  # type: ignore[misc]
    action = By(text(about="Such as `job.canceled`."))
    actor = By(text(about="Such as `token:ajt_live_x1y2z3a`."))
    object_type = By(text(about="Such as `job`."))
    object_id = By(text(600, about="Entries for this object."))
    request_id = By(text(128, about="Entries of the request with this X-Request-ID."))
    at_gte = By(time_param("At this time or later."), "at", "gte")
    at_lte = By(until_param("At this time or before."), "at", "lte")


class WebhookDeliveryFilters(FilterSet):  # type: ignore[misc]
    status = By(one_of(*WEBHOOK_DELIVERY_STATUSES))
    event = By(one_of(*EVENT_TYPES, TEST))


class UsageFilters(FilterSet):  # type: ignore[misc]
    day_gte = By(day_param("On this day or later, in UTC."), "day", "gte")
    day_lte = By(day_param("On this day or before, in UTC."), "day", "lte")
    job_type_id = By(text(about="Calls of jobs of this type."), "job_type_key")
    model = By(text(128, about="Calls of this model, as `openai:gpt-5-mini`."))


def stated(filters: type[FilterSet], sent: Iterable[str] = ()) -> dict[str, By]:
    """These filters by their names. Of the many `metadata.<key>`, only those that are in `sent`."""
    return {**filters.base_filters, **(_of_metadata(sent) if issubclass(filters, JobFilters) else {})}


def params(filters: Mapping[str, By]) -> dict[str, Param]:
    return {name: found.param for name, found in filters.items()}


def narrowed(rows: Any, filters: type[FilterSet], sent: Mapping[str, str]) -> tuple[Any, list[FieldError]]:
    """The rows that match what was sent, and errors for values that are invalid."""
    found = filters(sent, queryset=rows)
    errors = found.form.errors.items()
    return found.qs, [FieldError(name, "invalid", message) for name, messages in errors for message in messages]


def _of_metadata(sent: Iterable[str]) -> dict[str, _ByMetadata]:
    stated = sorted({name for name in sent if name.startswith(METADATA)})
    found = [name for name in stated if METADATA_KEY.fullmatch(name.removeprefix(METADATA))]
    return {name: _ByMetadata(name) for name in found[:MOST_METADATA_FILTERS]}
