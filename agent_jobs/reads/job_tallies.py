"""Exact counts of the jobs that were created within a range of time, for `job_statistics`.

Ended jobs are counted by tallies (`models.tallies`): whole UTC days, and whole hours at the ends of the range. To them
come the entries that no tally has yet, the ended jobs in the two broken hours at the ends, and all jobs that have not
ended, which a partial index covers. One statement reads it all, so it sees one state of the database.

A percentile of durations is found in two steps: tallies of duration classes say in which class it lies and at which
place, and the index `job_duration` has the durations of that class.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from infra import raw_sql

SEPARATOR = "\x1f"  # between a channel's platform and its code
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_HOUR = datetime.max.replace(minute=0, second=0, microsecond=0, tzinfo=UTC)

# Turns a row with these columns into rows (kind, key, number) of tallies. `number` is a count of jobs, or minus one.
KINDS = """LATERAL (VALUES
    ('status', status, number), ('type', job_type_key, number), ('priority', priority::text, number),
    ('channel', platform || chr(31) || channel_code, number),
    ('day', (created_at AT TIME ZONE 'UTC')::date::text, number),
    ('duration', duration_class::text, number),
    ('sum', 'follow_ups', follow_ups), ('sum', 'replies', replies), ('sum', 'with_reply', with_reply)
) AS counted (kind, key, count)"""
_COLUMNS = "status, job_type_key, platform, channel_code, priority"
_JOBS = f"""
SELECT {_COLUMNS}, date_trunc('day', created_at, 'UTC') AS created_at, {{duration_class}} AS duration_class,
    count(*) AS number, sum(follow_ups_total) AS follow_ups, sum(inbox_count) AS replies,
    count(*) FILTER (WHERE inbox_count > 0) AS with_reply
FROM agent_jobs_job WHERE org_id = %(org)s AND created_at >= %({{since}})s AND created_at < %({{until}})s AND {{which}}
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""  # noqa: S608 - constants
_CLASS = "agent_jobs_duration_class(started_at, finished_at)"
_LIVING = _JOBS.format(duration_class="NULL::smallint", since="since", until="until", which="finished_at IS NULL")
_CLASS_IF_STARTED = f"CASE WHEN started_at IS NOT NULL THEN {_CLASS} END"
# The columns of an entry, which takes a job out of the counts if its sign is -1.
OF_ENTRIES = f"""{_COLUMNS}, created_at, duration_class, sign AS number, sign * follow_ups AS follow_ups,
    sign * replies AS replies, CASE WHEN replies > 0 THEN sign ELSE 0 END AS with_reply"""
_ENTRIES = f"""
SELECT {OF_ENTRIES}
FROM agent_jobs_jobtallyentry WHERE org_id = %(org)s AND created_at >= %(first_hour)s AND created_at < %(last_hour)s
"""  # noqa: S608 - constants
_TALLIES = """
SELECT kind, key, number FROM agent_jobs_jobtally
WHERE org_id = %(org)s AND span = '{span}' AND start_at >= %({since})s AND start_at < %({until})s
"""
_STATEMENT = f"""
WITH counts AS MATERIALIZED (
    SELECT kind, key, sum(count)::bigint AS number FROM (
        SELECT counted.* FROM ({{rows}}) jobs CROSS JOIN {KINDS}
        {{tallies}}
    ) parts GROUP BY kind, key
), classes AS (
    SELECT key::smallint AS class, number, sum(number) OVER (ORDER BY key::smallint) AS up_to,
        sum(number) OVER () AS whole
    FROM counts WHERE kind = 'duration' AND number > 0 AND key IS NOT NULL
), places AS (
    SELECT percent, class, ceil(whole * percent / 100.0) - (up_to - number) AS place
    FROM (VALUES (50), (95)) AS wanted (percent) JOIN classes
        ON up_to >= ceil(whole * percent / 100.0) AND up_to - number < ceil(whole * percent / 100.0)
)
SELECT kind, key, number, NULL FROM counts WHERE kind <> 'duration' AND number <> 0
UNION ALL
SELECT 'seconds', percent::text, NULL, (
    SELECT extract(epoch FROM finished_at - started_at)::float4 AS seconds FROM agent_jobs_job
    WHERE org_id = %(org)s AND {_CLASS} = places.class AND created_at >= %(since)s AND created_at < %(until)s
        AND started_at IS NOT NULL AND finished_at IS NOT NULL
    ORDER BY seconds OFFSET place - 1 LIMIT 1)
FROM places
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Counts of the jobs in a range. `numbers` are by kind and key, as in `KINDS`. `seconds`: the durations at 50 and
    95 percent, if jobs ended.
    """

    numbers: Mapping[str, Mapping[str, int]]
    seconds: Mapping[int, float]


def count(org_id: str, *, since: datetime, until: datetime) -> JobCounts:
    """Count the jobs that were created from `since` on and before `until`."""
    statement, times = _statement(since, until)
    numbers: dict[str, dict[str, int]] = defaultdict(dict)
    seconds: dict[int, float] = {}
    for kind, key, number, at in raw_sql.all_rows(statement, {"org": org_id, **times}):
        if kind == "seconds":
            seconds[int(key)] = at
        else:
            numbers[kind][key] = number
    return JobCounts(numbers, seconds)


def _statement(since: datetime, until: datetime) -> tuple[str, dict[str, datetime]]:
    """The statement for this range, and the times that it names."""
    first_hour, last_hour = _round_up(since, _HOUR), _round_down(until, _HOUR)
    times = {"since": since, "until": until}
    if first_hour >= last_hour:
        rows, spans = [("since", "until")], []
    else:
        times |= {"first_hour": first_hour, "last_hour": last_hour}
        rows = [("since", "first_hour"), ("last_hour", "until")]
        first_day, last_day = _round_up(first_hour, _DAY), _round_down(last_hour, _DAY)
        if first_day >= last_day:
            spans = [("hour", "first_hour", "last_hour")]
        else:
            times |= {"first_day": first_day, "last_day": last_day}
            spans = [
                ("hour", "first_hour", "first_day"),
                ("day", "first_day", "last_day"),
                ("hour", "last_day", "last_hour"),
            ]
    ended = [
        _JOBS.format(duration_class=_CLASS_IF_STARTED, since=begin, until=end, which="finished_at IS NOT NULL")
        for begin, end in rows
        if times[begin] < times[end]
    ]
    tallies = [
        f"UNION ALL {_TALLIES.format(span=span, since=begin, until=end)}"
        for span, begin, end in spans
        if times[begin] < times[end]
    ]
    counted = [_LIVING, *ended, *([_ENTRIES] if tallies else [])]
    return _STATEMENT.format(rows=" UNION ALL ".join(counted), tallies=" ".join(tallies)), times


def _round_down(at: datetime, span: timedelta) -> datetime:
    return at - (at - _EPOCH) % span


def _round_up(at: datetime, span: timedelta) -> datetime:
    down = _round_down(at, span)
    return down if down == at else min(down, _LAST_HOUR - span) + span
