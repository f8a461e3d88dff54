"""The audit: every move leaves an entry, nothing changes one, and the chain shows whoever does it all the same."""

import hashlib
import io
import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from agent_jobs import jobs, lifecycle
from agent_jobs.audit import audit_log, verification
from agent_jobs.legal_moves import MOVES, Event
from agent_jobs.lifecycle import OrgRotation, Settlement
from agent_jobs.models import AuditEntry, AuditMark, AuditSeal, Org
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus, TaskStatus
from tests import rows
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.django_db
ANN = Actor("user", "ann", "request-1")


def entry(org_id="acme", object_id="x", **fields):
    audit_log.record(org_id, "thing.changed", object_id, actor=ANN, **fields)
    return AuditEntry.objects.latest("id")


def told(job):
    found = AuditEntry.objects.filter(object_id=str(job.pk)).order_by("id")
    return [(e.action, e.actor, e.before and e.before["status"], e.after["status"]) for e in found]


# --- Entries ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("event", Event)
def test_a_move_leaves_an_entry_with_who_what_and_by_which_request(event):
    source = sorted(MOVES[event].sources)[0]
    job = rows.job(source)
    columns = {
        Event.RETRY: {"retry_count": 1, "finished_at": None},
        Event.PROMOTE: {"queue_at": job.created_at},
        Event.START: {"queue_at": None},
    }

    lifecycle.move_one(event, job, actor=ANN, note="why", **columns.get(event, {}))

    (left,) = AuditEntry.objects.all()
    assert (left.org_id, left.action, left.object_type, left.object_id) == (
        "acme",
        lifecycle.MOVE_CODES[event],
        "job",
        str(job.pk),
    )
    assert (left.actor, left.request_id) == ("user:ann", "request-1")
    assert left.before == {"status": source}
    # A completion's note quotes the result, which is not for ever.
    why = {} if event == Event.COMPLETE else {"note": "why"}
    assert left.after == {"status": MOVES[event].target, **why}


def test_the_life_of_a_job_can_be_told_from_its_entries():
    rows.job_type()
    first = jobs.create("acme", rows.spec(delay_minutes=0), actor=ANN)
    (claimed,) = lifecycle.settle_and_claim([], lane="messages", turn=OrgRotation(), worker_id=1).claimed
    second = jobs.create("acme", rows.spec(), actor=ANN)
    third = rows.job(JobStatus.SCHEDULED, scheduled_at=first.created_at - timedelta(minutes=1))
    lifecycle.promote_due()
    ended = Settlement(
        id=first.pk,
        token=claimed.token,
        task_id=claimed.task_id,
        status=JobStatus.FAILED,
        task_status=TaskStatus.FAILED,
        notes=[lifecycle.Note("model.call", "completed")],
    )
    # One statement that ends a job and begins another: both are told.
    lifecycle.settle_and_claim([ended], lane="messages", turn=OrgRotation(), worker_id=1)
    jobs.cancel("acme", second.pk, actor=ANN)

    assert told(first) == [
        ("job.created", "user:ann", None, "WAITING"),
        ("job.started", "system:worker", "WAITING", "RUNNING"),
        ("job.failed", "system:worker", "RUNNING", "FAILED"),
    ]
    assert told(third) == [
        ("job.promoted", "system:promotion", "SCHEDULED", "WAITING"),
        ("job.started", "system:worker", "WAITING", "RUNNING"),
    ]
    assert told(second) == [
        ("job.created", "user:ann", None, "WAITING"),
        ("job.canceled", "user:ann", "WAITING", "CANCELED"),
    ]
    assert AuditEntry.objects.filter(action="model.call").count() == 0


def test_a_move_that_is_undone_leaves_nothing():
    job = rows.job()

    with transaction.atomic():
        lifecycle.move_one(Event.CANCEL, job, actor=ANN)
        transaction.set_rollback(True)

    assert not AuditEntry.objects.exists()


def test_secrets_are_masked_wherever_they_stand():
    left = entry(
        before={"signing_secret": "one"},
        after={"bot_token": "two", "name": "n", "deep": [{"password": "three"}], "max_tokens": 5, "secret": ""},
    )

    assert left.before == {"signing_secret": "******"}
    assert left.after == {
        "bot_token": "******",
        "name": "n",
        "deep": [{"password": "******"}],
        "max_tokens": 5,
        "secret": "",
    }


def test_what_a_stranger_asked_for_is_kept_even_where_it_cannot_be_stored():
    audit_log.record_denied("acme", "job", "a\x00b" + "c" * 1000, actor=ANN, method="GET", code="x")

    left = AuditEntry.objects.get()
    assert left.object_id == "a?b" + "c" * 597
    assert (left.action, left.before, left.after) == ("access.denied", None, {"method": "GET", "code": "x"})


# --- Nothing changes one ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("table", [AuditEntry, AuditSeal])
@pytest.mark.parametrize("org_id", ["acme", "nobody"])
def test_entries_and_seals_are_append_only_even_for_their_owner(table, org_id):
    entry()
    audit_log.seal()
    found = table.objects.filter(org_id=org_id)

    for change in (lambda: found.update(org_id="other"), found.delete):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            change()
    assert table.objects.count() == 1


def test_nobody_chooses_an_entrys_id():
    with pytest.raises(DatabaseError, match="GENERATED ALWAYS"), transaction.atomic():
        AuditEntry.objects.create(id=10**15, org_id="acme", action="a", object_type="b", object_id="c")


@pytest.mark.parametrize("table", ["agent_jobs_auditentry", "agent_jobs_auditseal"])
def test_the_tables_cannot_be_truncated_by_their_owner_either(table):
    entry()
    audit_log.seal()
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER ALL")
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            cursor.execute(f"TRUNCATE {table}")
    assert AuditSeal.objects.count() == AuditEntry.objects.count() == 1


def test_an_entrys_time_is_the_databases_whatever_the_insert_says():
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO agent_jobs_auditentry (org_id, at, txid, action, object_type, object_id)"
            " VALUES ('acme', now() - interval '200 days', 1, 'a', 'b', 'backdated')"
        )
        cursor.execute(
            "SELECT clock_timestamp() - at < interval '1 minute', txid = pg_current_xact_id()::text::bigint"
            " FROM agent_jobs_auditentry WHERE object_id = 'backdated'"
        )
        assert cursor.fetchone() == (True, True)


def test_the_chain_of_an_organisation_that_exists_may_not_be_missing():
    rows.org()
    Org.objects.filter(pk="acme").update(created_at=datetime.now(UTC) - timedelta(minutes=2))
    with pytest.raises(CommandError, match="1 of these audits broken"):
        run_verify()
    assert "the whole chain is missing" in verification.verify("acme").problem


def test_an_organisation_that_nobody_knows_has_no_verdict():
    with pytest.raises(CommandError, match="no organization 'acne'"):
        run_verify(org="acne")


# --- Seals -----------------------------------------------------------------------------------------------------
def test_a_seal_is_the_hash_of_the_one_before_and_of_its_entries():
    """Computed here from what is published, by other means."""
    for number in range(2):
        entry(object_id=f"ü{number}", after={"n": number})
    entry("rival")
    assert audit_log.seal() == 3
    last = entry(object_id="later")
    assert audit_log.seal() == 1
    assert audit_log.seal() == 0

    head = b""
    for number, seal in enumerate(AuditSeal.objects.filter(org_id="acme").order_by("seq"), start=1):
        digests = b""
        for e in AuditEntry.objects.filter(pk__in=seal.entry_ids).order_by("id"):
            at = e.at.strftime("%Y-%m-%dT%H:%M:%S.%f")
            fields = [e.id, e.org_id, at, e.txid, e.actor, e.request_id, e.action, e.object_type, e.object_id]
            text = json.dumps([*fields, e.before, e.after], ensure_ascii=False)
            digests += hashlib.sha256(text.encode()).digest()
        stated = json.dumps(["acme", number, seal.at.strftime("%Y-%m-%dT%H:%M:%S.%f")])
        assert bytes(seal.prev_hash) == head
        assert bytes(seal.digests) == digests
        head = hashlib.sha256(head + stated.encode() + digests).digest()
        assert bytes(seal.hash) == head
    assert AuditSeal.objects.get(org_id="acme", seq=2).entry_ids == [last.pk]
    assert verification.verify("acme") == verification.Verdict("acme", 3, 2, head.hex())


def test_more_than_a_batch_is_sealed_in_several(monkeypatch):
    monkeypatch.setattr(audit_log, "BATCH", 3)
    for number in range(8):
        entry(object_id=str(number))

    assert audit_log.seal() == 8

    assert [len(seal.entry_ids) for seal in AuditSeal.objects.order_by("seq")] == [3, 3, 2]
    assert verification.verify("acme").problem == ""


def test_the_floor_does_not_pass_what_no_batch_had_room_for(monkeypatch):
    monkeypatch.setattr(audit_log, "BATCH", 2)
    monkeypatch.setattr(audit_log, "_MOST_BATCHES", 1)
    for number in range(7):
        entry(object_id=str(number))

    assert [audit_log.seal() for _ in range(6)] == [2, 2, 2, 1, 0, 0]
    assert verification.verify("acme").entries == 7


@contextmanager
def session():
    """A connection of its own to the tests' database."""
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}) as other:
        yield other


INSERT = "INSERT INTO agent_jobs_auditentry (org_id, action, object_type, object_id) VALUES ('acme', 'a', 'b', %s)"


def sealed():
    return [e for seal in AuditSeal.objects.order_by("id") for e in seal.entry_ids]


@pytest.mark.django_db(transaction=True)
def test_who_commits_late_is_sealed_later():
    with session() as late:
        late.execute(INSERT, ["late"])
        early = entry()
        for _ in range(4):
            audit_log.seal()
        assert sealed() == [early.pk]

        late.commit()
        audit_log.seal()

    assert sealed() == [early.pk, AuditEntry.objects.get(object_id="late").pk]
    assert verification.verify("acme").problem == ""


@pytest.mark.django_db(transaction=True)
def test_a_smaller_id_of_a_younger_transaction_is_not_passed_over():
    """The snapshot's own upper end would not do: it is the last number that has ended, not the last one given."""
    with session() as old, session() as young:
        old.execute("SELECT pg_current_xact_id()")
        young.execute(INSERT, ["young"])
        old.execute(INSERT, ["old"])
        old.commit()
        for number in range(3):
            audit_log.seal()
            entry(object_id=str(number))

        young.commit()
        audit_log.seal()

    assert AuditEntry.objects.get(object_id="young").pk in sealed()
    assert len(sealed()) == len(set(sealed())) == 5


@pytest.mark.django_db(transaction=True)
def test_one_seals_at_a_time():
    entry()
    with session() as other:
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", audit_log._LOCK)
        assert audit_log.seal() == 0

    assert audit_log.seal() == 1


@pytest.mark.django_db(transaction=True)
def test_the_floor_follows_so_that_old_entries_are_not_looked_at_again():
    for number in range(3):
        entry(object_id=str(number))
        audit_log.seal()
    last = AuditEntry.objects.latest("id").pk

    def reached():
        audit_log.seal()
        return AuditMark.objects.get().floor == last

    # Not at once: transactions of other tests on the same server count as well.
    wait_for(reached, what="the floor is the last entry", seconds=5 * PATIENCE)


@pytest.mark.django_db(transaction=True)
def test_sealing_goes_on_in_a_database_restored_elsewhere():
    """There the numbers of transactions begin anew, far below the ones noted."""
    first = entry()
    audit_log.seal()
    AuditMark.objects.update(candidate_txid=2**50)
    second = entry(object_id="y")

    audit_log.seal()

    mark = AuditMark.objects.get()
    assert (mark.floor, mark.candidate_id) == (first.pk, second.pk)
    assert mark.candidate_txid < 2**50
    assert verification.verify("acme").problem == ""


# --- Tampering -------------------------------------------------------------------------------------------------
TAMPERINGS = {
    "altered": (
        "UPDATE agent_jobs_auditentry SET after = '9' WHERE id = {second}",
        "entry {second} was altered",
    ),
    "backdated": (
        "UPDATE agent_jobs_auditentry SET at = at - interval '1 s' WHERE id = {second}",
        "{second} was altered",
    ),
    "moved": ("UPDATE agent_jobs_auditentry SET org_id = 'rival' WHERE id = {second}", "entry {second} was altered"),
    "missing": ("DELETE FROM agent_jobs_auditentry WHERE id = {second}", "entry {second} is missing"),
    "inserted": (
        "INSERT INTO agent_jobs_auditentry (id, org_id, at, action, object_type, object_id) OVERRIDING SYSTEM VALUE"
        " VALUES (0, 'acme', '2020-01-01', 'a', 'b', 'c')",
        "entry 0 is in no seal",
    ),
    "inserted for later": (
        "INSERT INTO agent_jobs_auditentry (org_id, at, action, object_type, object_id)"
        " VALUES ('acme', '2099-01-01', 'a', 'b', 'c')",
        "is in no seal",
    ),
    "altered with its digest": (
        "UPDATE agent_jobs_auditentry SET actor = 'user:bob' WHERE id = {second};"
        " UPDATE agent_jobs_auditseal SET digests = (SELECT sha256(convert_to({canonical}, 'UTF8'))"
        " FROM agent_jobs_auditentry e WHERE e.id = {second}) WHERE org_id = 'acme' AND seq = 2",
        "seal 2 was altered: its hash",
    ),
    "a seal gone": ("DELETE FROM agent_jobs_auditseal WHERE org_id = 'acme' AND seq = 2", "seal 2 is missing"),
    "the first seal gone": ("DELETE FROM agent_jobs_auditseal WHERE org_id = 'acme' AND seq = 1", "seal 1 is missing"),
    "a link broken": (
        "UPDATE agent_jobs_auditseal SET hash = sha256('x') WHERE org_id = 'acme' AND seq = 1",
        "seal 1 was altered: its hash",
    ),
    "a link bent": (
        "UPDATE agent_jobs_auditseal SET prev_hash = sha256('x') WHERE org_id = 'acme' AND seq = 2",
        "seal 2 does not follow",
    ),
    "a seal's time": (
        "UPDATE agent_jobs_auditseal SET at = at - interval '1 h' WHERE org_id = 'acme' AND seq = 2",
        "seal 2 was altered: its hash",
    ),
    "an entry unlisted": (
        "UPDATE agent_jobs_auditseal SET entry_ids = '{{}}', digests = '' WHERE org_id = 'acme' AND seq = 2",
        "seal 2 was altered: its lists",
    ),
    "its last id": (
        "UPDATE agent_jobs_auditseal SET last_id = 0 WHERE org_id = 'acme' AND seq = 2",
        "seal 2 was altered: its last entry",
    ),
}


@pytest.fixture
def chain():
    """Three seals of one entry each, and a stranger's."""
    ids = []
    for number in range(3):
        ids.append(entry(object_id=str(number), after={"n": number}).pk)
        audit_log.seal()
    entry("rival")
    audit_log.seal()
    return ids


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_whoever_tampers_past_the_triggers_is_found(chain, tampering):
    statement, expected = TAMPERINGS[tampering]
    heads = run_verify()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        names = {"second": chain[1], "canonical": audit_log.CANONICAL.replace("{", "{{")}
        for part in statement.format(**names).split(";"):
            cursor.execute(part)
        cursor.execute("SET LOCAL session_replication_role = origin")
    assert "acme: 3 entries, 3 seals" in heads

    out = io.StringIO()
    with pytest.raises(CommandError, match="1 of these audits broken") as refused:
        call_command("verify_audit", stdout=out)

    assert refused.value.returncode == 1
    acme, rival = out.getvalue().splitlines()
    assert expected.format(**names) in acme
    assert rival.startswith("rival: 1 entries, 1 seals, head ")
    assert rival.endswith(": ok")


def run_verify(**options):
    out = io.StringIO()
    call_command("verify_audit", stdout=out, **options)
    return out.getvalue()


def test_what_is_not_yet_sealed_is_no_fault_for_a_minute(chain):
    entry(object_id="fresh")

    assert run_verify(org="acme").startswith("acme: 3 entries, 3 seals, head ")


def test_a_chain_cut_short_is_found_by_a_hash_kept_elsewhere(chain):
    head = verification.verify("acme").head
    assert "ok" in run_verify(org="acme", expect=head)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("DELETE FROM agent_jobs_auditseal WHERE org_id = 'acme' AND seq = 3")
        cursor.execute("DELETE FROM agent_jobs_auditentry WHERE id = %s", [chain[2]])
        cursor.execute("SET LOCAL session_replication_role = origin")

    assert "ok" in run_verify(org="acme")
    with pytest.raises(CommandError):
        run_verify(org="acme", expect=head)
