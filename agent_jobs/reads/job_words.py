"""Finds jobs by words in their params, result and error, or by their id or the beginning of it.

Ended jobs have an index of the first 4,000 characters of each. It is partial, so that a job is entered once, at its
end, and not at each step of its life. Living jobs have none: the newest `MOST_LIVING` of an organisation are read. At
most the newest `MOST_FOUND` ended jobs are found.
"""

import re
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db.models import BooleanField, F, Func, QuerySet, TextField, UUIDField, Value

from agent_jobs.models import Job
from agent_jobs.states import TERMINAL, JobStatus

MOST_LIVING = 2_000
MOST_FOUND = 500
MOST_WORDS = 8
_LIVING = [str(status) for status in JobStatus if status not in TERMINAL]
_ID_START = re.compile(r"[0-9a-f]{8}(-[0-9a-f-]{0,27})?", re.IGNORECASE)
_FIRST, _LAST = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"


class _Words(Func):
    """`agent_jobs_job_words(params, result, error_message)`, as the index has it."""

    function = "agent_jobs_job_words"
    output_field = TextField()


class _Match(Func):
    template = "%(expressions)s"
    arg_joiner = " @@ "
    output_field = BooleanField()


class _Query(Func):
    function = "to_tsquery"
    template = "to_tsquery('simple', %(expressions)s)"
    output_field = TextField()


class _IsOneOf(Func):
    """`id = ANY (array)`"""

    template = "%(expressions)s"
    arg_joiner = " = ANY "
    output_field = BooleanField()


class _Array(Func):
    template = "(%(expressions)s)"
    output_field = ArrayField(UUIDField())


def matching(jobs: QuerySet[Job], text: str) -> QuerySet[Job]:
    """The jobs among these, all of one organisation, that have every word of the text, or words that begin with it."""
    if _ID_START.fullmatch(text):
        return jobs.filter(pk__range=_range(text))
    query = _Query(Value(_tsquery(text)))
    words = _Words(F("params"), F("result"), F("error_message"))
    with_words = Job.objects.alias(has_words=_Match(words, query)).filter(has_words=True)
    newest = jobs.filter(status__in=_LIVING).order_by("-updated_at", "-id").values("pk")[:MOST_LIVING]
    living = with_words.filter(pk__in=newest).values_list("pk", flat=True)
    ended = (jobs & with_words).filter(finished_at__isnull=False).order_by("-created_at", "-id")
    # Found once: the caller counts and lists the same jobs in several statements. As one array, because thousands of
    # parameters take longer than the search.
    found = list(living.union(ended.values_list("pk", flat=True)[:MOST_FOUND], all=True))
    return jobs.filter(_IsOneOf(F("pk"), _Array(Value(found, output_field=ArrayField(UUIDField())))))


def _tsquery(text: str) -> str:
    """Every word, and any ending of the last: `brightwave inv-20` → `'brightwave' & 'inv-20':*`."""
    words = [word.replace("\\", "").replace("'", "") for word in text.split()[:MOST_WORDS]]
    quoted = [f"'{word}'" for word in words if word]
    return f"{' & '.join(quoted)}:*" if quoted else "''"


def _range(text: str) -> tuple[UUID, UUID]:
    kept = text.lower().rstrip("-")
    return UUID(kept + _FIRST[len(kept) :]), UUID(kept + _LAST[len(kept) :])
