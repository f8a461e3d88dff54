"""Stores the signed events of platforms and routes them: messages, edits, deletions, presses of buttons.

A request is verified on its raw bytes, stored once and answered at once; routing reads the row. An event without an
owner is kept as unmatched. It becomes due again when we record that a message of its thread was sent, because a
person may answer before that.

Each thread has one lane, in the order of the platform's time. All events that wait in a lane are routed together. Else
an agent would answer the first of two messages, and end, while the second waits behind other threads. An event that
fails lets later ones pass, and is parked after the last attempt.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from urllib.parse import quote
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from channels_integration import interactive_forms, message_owner, platforms
from channels_integration.messages import Did, Incoming
from channels_integration.models import InboundEvent
from channels_integration.platforms.base import Heard
from infra import doorbell, meters, prepared_sql, raw_sql

log = logging.getLogger(__name__)
QUEUE = "inbound"
TASK = "channels.route"
MOST_FAILURES = 10
_LONGEST_BACKOFF_SECONDS = 60
# An owner that is about to commit is invisible at the first look, and may not see the event either. The second look is
# soon. The last one is later than the longest transaction, which the database ends after 30 s of idleness.
_SECONDS_TO_NEXT_LOOK = (1, 60)
_RECENT_MINUTES = 10

_INSERT = """
INSERT INTO channels_integration_inboundevent
    (org_id, platform, event_id, team, code, thread, author, text, owner_key, is_direct, is_outsider, sent_at, lane,
        did, message_id)
VALUES (%(org_id)s, %(platform)s, %(event_id)s, %(team)s, %(code)s, %(thread)s, %(author)s, %(text)s, %(owner_key)s,
    %(is_direct)s, %(is_outsider)s, %(sent_at)s, %(lane)s, %(did)s, %(message_id)s)
ON CONFLICT (org_id, platform, event_id) DO NOTHING
"""

_NEXT = """
SELECT id, lane FROM channels_integration_inboundevent e
WHERE e.status = 'waiting' AND e.due_at <= clock_timestamp() AND NOT EXISTS (
    SELECT FROM channels_integration_inboundevent earlier
    WHERE earlier.lane = e.lane AND (earlier.sent_at, earlier.id) < (e.sent_at, e.id)
        AND earlier.status = 'waiting' AND earlier.failures = 0 AND earlier.looks = 0)
ORDER BY e.due_at, e.sent_at, e.id LIMIT 1 FOR UPDATE SKIP LOCKED
"""
# Other events that wait in the same lane: the owner gets all that was said so far in one transaction.
_MOST_TOGETHER = 20
_LATER = f"""
SELECT id FROM channels_integration_inboundevent
WHERE lane = %(lane)s AND status = 'waiting' AND failures = 0 AND looks = 0 AND id <> %(id)s
    AND due_at <= clock_timestamp()
ORDER BY sent_at, id LIMIT {_MOST_TOGETHER - 1} FOR UPDATE SKIP LOCKED
"""  # noqa: S608

# Events that wait for a thread, or at the top level of its channel.
_FOR_THREAD = """
FROM channels_integration_inboundevent e
WHERE e.status = 'waiting' AND e.failures = 0 AND e.looks = 0 AND e.org_id = {org} AND e.platform = {platform}
    AND e.code = {code} AND e.thread IN ({thread}, '') AND (e.thread <> '' OR e.is_direct)"""
# SQL EXISTS: events wait for a thread. Format with column names.
WAITS_FOR = f"EXISTS (SELECT {_FOR_THREAD})"
_OF_THREAD = f"""
SELECT e.id {
    _FOR_THREAD.format(org="%(org_id)s", platform="%(platform)s", code="%(code)s", thread="%(thread)s")
} ORDER BY e.sent_at, e.id LIMIT {_MOST_TOGETHER} FOR UPDATE
"""

_NOTE = """
UPDATE channels_integration_inboundevent SET status = %(status)s, is_matched = %(is_matched)s, looks = %(looks)s,
    routed_at = statement_timestamp(), due_at = statement_timestamp() + make_interval(secs => %(seconds)s), error = ''
WHERE id = %(id)s
"""
_RETRY = f"""
UPDATE channels_integration_inboundevent SET status = 'waiting', looks = 0, failures = 0, due_at = now()
WHERE org_id = %(org_id)s AND platform = %(platform)s AND code = %(code)s AND status = 'routed' AND NOT is_matched
    AND received_at > now() - interval '{_RECENT_MINUTES} minutes'
    AND (thread = %(thread)s OR (thread = '' AND is_direct))
    AND (%(since)s::timestamptz IS NULL OR sent_at >= %(since)s)
"""  # noqa: S608

# Runs before _RETRY for a thread that is just being opened. A concurrent look cannot see that thread until we commit,
# and records that nobody waited. The row's lock makes us wait for that record. This cannot deadlock: the look needs no
# lock that we hold, because the thread has no owner yet.
_LOOK_AGAIN = """
UPDATE channels_integration_inboundevent SET looks = 0, due_at = now()
WHERE status = 'waiting' AND failures = 0
    AND org_id = %(org_id)s AND platform = %(platform)s AND code = %(code)s AND thread = %(thread)s
"""


def receive(
    platform_name: str,
    *,
    headers: Mapping[str, str],
    body: bytes,
    is_press: bool = False,
    installation_id: UUID | None = None,
) -> Heard:
    """Verify and store a platform's signed request. Returns the answer, after the commit."""
    listener = next(known for known in platforms.LISTENERS if known.name == platform_name)
    heard = (
        listener.hear_press(headers, body)
        if is_press
        else listener.hear(headers, body, installation_id=installation_id)
    )
    if heard.incoming:
        with transaction.atomic():
            for incoming in heard.incoming:
                record(incoming)
    if heard.form_presses:
        return interactive_forms.opened(listener, heard)
    if heard.submissions:
        return interactive_forms.sent_back(listener, heard)
    return heard


def record(incoming: Incoming) -> bool:
    """Store what a person did, once by its `event_id`, and ring on commit. False if it was stored before."""
    lane = (incoming.org_id, incoming.platform, incoming.team, incoming.code, incoming.thread)
    event = {**asdict(incoming), "lane": "/".join(quote(part, safe="") for part in lane)}
    is_new = bool(raw_sql.run(_INSERT, event))
    if is_new:
        transaction.on_commit(ring, robust=True)
    else:
        meters.add("duplicates_refused", kind="platform_event")
    return is_new


def ring() -> None:
    doorbell.ring(QUEUE, TASK)


def route_due(*, until: float | None = None, stop: threading.Event | None = None) -> int:
    """Route due events, all of a thread in one transaction, until none is due, or until `until` or `stop`.

    Returns the number of events.
    """
    routed = 0
    while (until is None or time.monotonic() < until) and not (stop and stop.is_set()):
        if not (done := _route_some()):
            break
        routed += done
    return routed


def route_thread(org_id: str, platform: str, code: str, thread: str) -> int:
    """Route the events that wait for one thread, or at the top level of its channel. Returns their number.

    Called before the owner speaks there, so that it knows them.
    """
    where = {"org_id": org_id, "platform": platform, "code": code, "thread": thread}

    def find() -> list[int]:
        return [event_id for (event_id,) in prepared_sql.all_rows(_OF_THREAD, where)]

    routed = 0
    while done := _route_some(find):
        routed += done
    return routed


def retry_unmatched(
    org_id: str, platform: str, code: str, thread: str, *, since: datetime | None = None, is_opened: bool = False
) -> int:
    """Make recent unmatched events of a thread, or of a direct channel's top level, due again (those after `since`).

    `is_opened`: the caller's transaction makes the thread known.
    """
    where = {"org_id": org_id, "platform": platform, "code": code, "thread": thread}
    retried = 0
    if is_opened:
        retried += prepared_sql.run(_LOOK_AGAIN, where)
    retried += prepared_sql.run(_RETRY, {**where, "since": since})
    if retried:
        transaction.on_commit(ring, robust=True)
    return retried


def sweep() -> int:
    """The duty: ring the doorbell if an event is due. Returns the number of doorbells."""
    if not raw_sql.value(
        "SELECT EXISTS (SELECT FROM channels_integration_inboundevent"
        " WHERE status = 'waiting' AND due_at <= clock_timestamp())"
    ):
        return 0
    ring()
    return 1


def _next_of_all() -> list[int]:
    """The next due event, and all that wait in its lane."""
    found = prepared_sql.first(_NEXT)
    if found is None:
        return []
    first, lane = found
    return [first, *(row[0] for row in prepared_sql.all_rows(_LATER, {"id": first, "lane": lane}))]


def _route_some(find: Callable[[], list[int]] = _next_of_all, *, most: int = _MOST_TOGETHER) -> int:
    """Route the events that `find` returns: it locks their rows and returns their ids."""
    events: list[InboundEvent] = []
    try:
        with transaction.atomic():
            for event_id in find()[:most]:
                event = prepared_sql.instance(InboundEvent, "id = %(id)s", {"id": event_id})
                assert event is not None  # its row is locked
                events.append(event)
                _note(event, is_matched=message_owner.get().receive(_incoming(event)))
    except Exception as error:
        if not events:
            raise
        if len(events) > 1:
            return _route_some(find, most=1)  # nothing is written yet; alone, only the event at fault fails
        log.exception("event %s could not be handled", events[0].pk)
        _put_off(events[0], error)
    return len(events)


def _note(event: InboundEvent, *, is_matched: bool) -> None:
    looks = event.looks + 1
    is_over = is_matched or looks > len(_SECONDS_TO_NEXT_LOOK)
    noted = {
        "id": event.pk,
        "status": InboundEvent.Status.ROUTED if is_over else InboundEvent.Status.WAITING,
        "is_matched": is_matched,
        "looks": looks,
        "seconds": 0.0 if is_over else _SECONDS_TO_NEXT_LOOK[looks - 1],
    }
    prepared_sql.run(_NOTE, noted)


def _put_off(event: InboundEvent, error: Exception) -> None:
    failures = event.failures + 1
    is_over = failures >= MOST_FAILURES
    wait = timedelta(seconds=min(2 ** (failures - 1), _LONGEST_BACKOFF_SECONDS))
    # Guarded by `failures`: another thread may have taken the event meanwhile.
    InboundEvent.objects.filter(pk=event.pk, failures=event.failures, status=InboundEvent.Status.WAITING).update(
        status=InboundEvent.Status.PARKED if is_over else InboundEvent.Status.WAITING,
        failures=failures,
        due_at=Now() + wait,
        error=repr(error).replace("\x00", "")[:500],
    )


def _incoming(event: InboundEvent) -> Incoming:
    stored = {field.name: getattr(event, field.name) for field in fields(Incoming)}
    return Incoming(**{**stored, "did": Did(event.did)})
