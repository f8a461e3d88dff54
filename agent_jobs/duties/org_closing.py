"""Ends an organisation: closes it, reopens it within the grace period, and erases its rows.

Closing refuses its tokens, cancels its jobs and stops its messages. After GRACE_DAYS a duty erases its rows. The audit
log stays. The organisation's row stays too, so that its id is never used again.
"""

import logging
import threading
from collections import Counter
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from agent_jobs import duty_rounds, lifecycle
from agent_jobs.audit import audit_log
from agent_jobs.conversation import agent_messages
from agent_jobs.errors import Conflict, NotFound
from agent_jobs.legal_moves import Event
from agent_jobs.models import AuditEntry, AuditSeal, Job, Org
from agent_jobs.specs import Actor
from agent_jobs.states import TERMINAL
from channels_integration import outbox
from infra import erasure
from infra.quarantine import Quarantine

log = logging.getLogger(__name__)
GRACE_DAYS = 30
# Tables with an organisation column whose rows are not erased.
KEPT = (AuditEntry, AuditSeal)
_BATCH = 200
_CLOSER = Actor("system", "closing")
_close_failed: Quarantine[str] = Quarantine("close_orgs")
_cancel_failed: Quarantine[UUID] = Quarantine("close_orgs")
_erase_failed: Quarantine[str] = Quarantine("erase")
# Columns of an organisation's row that erasing clears.
_BLANK = {"name": "", "hours": None}


def close(org_id: str, *, actor: Actor) -> Org:
    """Close an organisation: refuse its tokens, cancel its jobs, withdraw its messages. A second call finishes an
    aborted one.

    Raises NotFound.
    """
    with transaction.atomic():
        org = _locked(org_id)
        if org.closed_at is None:
            Org.objects.filter(pk=org_id).update(closed_at=Now())
            audit_log.record(org_id, "org.closed", org_id, actor=actor, after={"grace_days": GRACE_DAYS})
            org.refresh_from_db()
    while _cancel_some(org_id):
        pass
    outbox.withdraw_all(org_id)
    return org


def reopen(org_id: str, *, actor: Actor) -> Org:
    """Reopen an organisation: accept its tokens again. Canceled jobs stay canceled. Raises NotFound, and Conflict if it
    is not closed, or erased already.
    """
    with transaction.atomic():
        org = _locked(org_id)
        if org.closed_at is None:
            raise Conflict(f"the organization {org_id!r} is not closed", code="org_not_closed")
        if org.erased_at is not None or org.is_being_erased:
            raise Conflict(f"the organization {org_id!r} has been erased and cannot be reopened", code="org_erased")
        Org.objects.filter(pk=org_id).update(closed_at=None)
        audit_log.record(org_id, "org.reopened", org_id, actor=actor)
        org.refresh_from_db()
    return org


def erase(org_id: str, *, actor: Actor = _CLOSER, stop: threading.Event | None = None) -> Counter[str]:
    """Delete the rows of a closed organisation, except those of KEPT. Returns the number per table. Idempotent.

    Raises NotFound, and Conflict if it is not closed.
    """
    with transaction.atomic():
        org = _locked(org_id)
        if org.closed_at is None:
            raise Conflict(f"the organization {org_id!r} is not closed", code="org_not_closed")
        Org.objects.filter(pk=org_id).update(is_being_erased=True)  # no way back from here
    close(org_id, actor=actor)
    gone: Counter[str] = Counter()
    for app_label in ("agent_jobs", "channels_integration"):
        for table, count in erasure.erase(app_label, org_id, without=KEPT, stop=stop):
            gone[table] += count
    if not (stop and stop.is_set()):
        with transaction.atomic():
            if _locked(org_id).erased_at is None:
                Org.objects.filter(pk=org_id).update(erased_at=Now(), **_BLANK)
                counts = {table: count for table, count in sorted(gone.items()) if count}
                audit_log.record(org_id, "org.erased", org_id, actor=actor, after={"rows": counts})
    return gone


def close_orgs() -> int:
    """The duty: cancel jobs that were posted while their organisation was being closed. Returns how many."""
    canceled = 0
    for org_id in _closed().exclude(pk__in=_close_failed.rows()).values_list("pk", flat=True):
        with _close_failed.row(org_id):
            canceled += _cancel_some(org_id)
            outbox.withdraw_all(org_id)
    return canceled


def erase_orgs() -> int:
    """The duty: erase organisations whose grace is over. Returns how many; 0 if another process is doing it."""
    erased = 0
    with duty_rounds.alone("erase", silent_seconds=60.0) as is_alone:
        if not is_alone:
            return 0
        over = _closed().filter(Q(closed_at__lt=Now() - timedelta(days=GRACE_DAYS)) | Q(is_being_erased=True))
        for org_id in over.exclude(pk__in=_erase_failed.rows()).values_list("pk", flat=True):
            with _erase_failed.row(org_id):
                erase(org_id, stop=duty_rounds.STOPPING)
                erased += 1
    duty_rounds.note_done("erase")
    return erased


def _closed() -> "QuerySet[Org]":
    return Org.objects.filter(closed_at__isnull=False, erased_at=None)


def _locked(org_id: str) -> Org:
    org = Org.objects.select_for_update(no_key=True).filter(pk=org_id).first()
    if org is None:
        raise NotFound(f"there is no organization {org_id!r}", code="org_not_found")
    return org


def _cancel_some(org_id: str) -> int:
    living = Job.objects.filter(org_id=org_id).exclude(status__in=TERMINAL).exclude(pk__in=_cancel_failed.rows())
    canceled = 0
    for job_id in list(living.values_list("pk", flat=True)[:_BATCH]):
        with _cancel_failed.row(job_id), transaction.atomic():
            job = living.select_for_update().filter(pk=job_id).first()
            if job is not None:
                note = "CANCELED: the organization was closed"
                lifecycle.move_one(Event.CANCEL, job, actor=_CLOSER, note=note)
                agent_messages.withdraw(job)
                canceled += 1
    return canceled
