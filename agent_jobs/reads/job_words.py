"""Finds jobs by words in their params, result and error, or by their id or the beginning of it.

Ended jobs have an index of the first 4,000 characters of each. It is partial, so that a job is entered once, at its
end, and not at each step of its life. Living jobs have none: the newest `MOST_LIVING` of an organisation are read. At
most `MOST_FOUND` of either are found, the newest.

The statement fixes the order of the work, because the planner cannot know how frequent a word is. For a frequent word
it would read a fifth of the table by the index, and for a rare one walk through all jobs. So the newest `MOST_WALKED`
ended jobs are read first. The index is asked only if fewer than `ENOUGH` of them have the words.
"""

import re
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import EmptyResultSet
from django.db.models import BooleanField, F, Func, QuerySet, UUIDField, Value

from agent_jobs.models import Job
from agent_jobs.states import TERMINAL, JobStatus
from infra import raw_sql

MOST_LIVING = 2_000
MOST_WALKED = 2_000
MOST_FOUND = 500
ENOUGH = 100
MOST_WORDS = 8
_LIVING = [str(status) for status in JobStatus if status not in TERMINAL]
_ID_START = re.compile(r"[0-9a-f]{8}(-[0-9a-f-]{0,27})?", re.IGNORECASE)
_FIRST, _LAST = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
# PostgreSQL splits `inv-20` into `inv` and `-20`, and gives both any ending. Only the last has one: the index would
# read each entry that begins with `inv`.
_QUERY = r"regexp_replace(to_tsquery('simple', %s)::text, '(''\w+''):\*(?= <->)', '\1', 'g')::tsquery"
_HAS_WORDS = f"agent_jobs_job_words(params, result, error_message) @@ {_QUERY}"
_FOUND = f"""
WITH living AS (SELECT id FROM ({{living}}) job WHERE {_HAS_WORDS} LIMIT {MOST_FOUND}),
newest AS MATERIALIZED (SELECT id FROM ({{newest}}) job WHERE {_HAS_WORDS} LIMIT {MOST_FOUND}),
indexed AS MATERIALIZED ({{indexed}}),
older AS (SELECT id FROM indexed ORDER BY created_at DESC, id DESC LIMIT {MOST_FOUND})
SELECT id FROM living UNION SELECT id FROM newest UNION SELECT id FROM older
"""  # noqa: S608 - constants
_READ = ("id", "params", "result", "error_message")


class _HasWords(Func):
    """`agent_jobs_job_words(params, result, error_message) @@ query`, as the index has it."""

    template = f"agent_jobs_job_words(params, result, error_message) @@ {_QUERY.replace('%s', '%(expressions)s')}"
    output_field = BooleanField()


class _AreFew(Func):
    """Whether the CTE `newest` has so few jobs that the index is to be asked."""

    template = f"(SELECT count(*) FROM newest) < {ENOUGH}"  # noqa: S608 - constants
    output_field = BooleanField()


class _IsOneOf(Func):
    """Membership in an array from a subquery: `id = ANY (array)`."""

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
    words = _tsquery(text)
    ended = jobs.filter(finished_at__isnull=False)
    parts = {
        "living": jobs.filter(status__in=_LIVING).order_by("-updated_at", "-id").values(*_READ)[:MOST_LIVING],
        "newest": ended.order_by("-created_at", "-id").values(*_READ)[:MOST_WALKED],
        "indexed": ended.filter(_HasWords(Value(words)), _AreFew()).values("id", "created_at"),
    }
    try:
        stated = {name: rows.query.sql_with_params() for name, rows in parts.items()}
    except EmptyResultSet:  # another filter leaves nothing
        return jobs.none()
    given = [*stated["living"][1], words, *stated["newest"][1], words, *stated["indexed"][1]]
    statement = _FOUND.format(**{name: sql for name, (sql, _) in stated.items()})
    found = [job_id for (job_id,) in raw_sql.all_rows(statement, given)]
    # Found once: the caller counts and lists the same jobs in several statements. As one array, because thousands of
    # parameters take longer than the search.
    return jobs.filter(_IsOneOf(F("pk"), _Array(Value(found, output_field=ArrayField(UUIDField())))))


def _tsquery(text: str) -> str:
    """Every word, and any ending of the last: `brightwave inv-20` → `'brightwave' & 'inv-20':*`."""
    words = [word.replace("\\", "").replace("'", "") for word in text.split()[:MOST_WORDS]]
    quoted = [f"'{word}'" for word in words if word]
    return f"{' & '.join(quoted)}:*" if quoted else "''"


def _range(text: str) -> tuple[UUID, UUID]:
    kept = text.lower().rstrip("-")
    return UUID(kept + _FIRST[len(kept) :]), UUID(kept + _LAST[len(kept) :])
