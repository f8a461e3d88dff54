"""A closed organisation does nothing any more, and an erased one leaves its audit and its id."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import models
from django.test import override_settings
from uuid_utils.compat import uuid7

from agent_jobs import duty_rounds
from agent_jobs.audit import audit_log, verification
from agent_jobs.duties import duty_table, org_closing, tallying
from agent_jobs.errors import Conflict
from agent_jobs.models import AuditEntry, AuditSeal, IdempotencyKey, Job, Membership, Org, SavedView
from agent_jobs.states import TERMINAL, JobStatus
from agent_jobs.tenants import app_tokens, orgs
from channels_integration import outbox
from channels_integration.messages import Outgoing, Target
from channels_integration.models import Lane, OutboundMessage
from infra import erasure
from tests import emptying, factories, rows
from tests.api import test_isolation

pytestmark = pytest.mark.django_db
# Tables that hold nothing of one organisation, and the organisation's own row, which stays.
OF_NOBODY = {"Org", "AuditMark", "DutyRun", "WorkerProcess"}
APPS = ("agent_jobs", "channels_integration")
OPERATOR = rows.TESTER


def all_models() -> Iterator[type[models.Model]]:
    for app in APPS:
        yield from apps.get_app_config(app).get_models()


def close_org(*arguments: str, stdin: str = "", monkeypatch: pytest.MonkeyPatch | None = None) -> str:
    out = io.StringIO()
    if monkeypatch:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    call_command("close_org", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def populate(org_id: str, code: str, team: str) -> str:
    """Rows in every table that may hold some of an organisation. Returns a token."""
    _, plain = test_isolation.populate(org_id, code, team)
    job = rows.job(org_id=org_id)
    job.tasks.create(number=1, lease_token=1)
    rows.approval(rows.parked(org_id))
    user = get_user_model()._default_manager.create(username=f"user-{org_id}")
    Membership.objects.create(org_id=org_id, user=user, role="member")
    SavedView.objects.create(org_id=org_id, user=user, name="Failed", query="status=FAILED")
    IdempotencyKey.objects.create(org_id=org_id, key="k", fingerprint="f", status_code=201, answer={})
    outbox.enqueue([Outgoing(uuid7(), Target(org_id, "web", code), "Hello", str(job.pk), "thread")])
    Lane.objects.create(org_id=org_id, lane=f"{org_id}/web/{code}")
    rows.job(JobStatus.COMPLETED, org_id)
    tallying.add_entries()
    rows.job(JobStatus.COMPLETED, org_id)  # an entry that is not in the tallies yet
    audit_log.seal()
    return plain


@pytest.fixture(scope="module")
def filled(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """Made once, and committed."""
    with django_db_blocker.unblock(), override_settings(COMMAND_RUNNER="trusted"):
        try:
            populate("rival", "theirs", "T0THEIRS")
            yield populate("acme", "ours", "T0OURS")
        finally:
            emptying.empty()


@pytest.fixture
def plain(filled: str, db: None, settings: Any) -> str:
    settings.COMMAND_RUNNER = "trusted"  # the organisations have a schedule of commands
    return filled


def held(org_id: str) -> dict[str, int]:
    return {name: len(found) for name, found in test_isolation.all_of(org_id).items()}


def test_every_table_is_an_organisations_or_named_as_nobodys() -> None:
    assert {model.__name__ for model in all_models() if not erasure.belongs_to_orgs(model)} == OF_NOBODY


def test_no_deletion_of_an_organisation_cascades(plain: str) -> None:
    with pytest.raises(models.ProtectedError):
        Org.objects.get(pk="acme").delete()


def test_the_fixture_fills_every_table_that_can_be_emptied(plain: str) -> None:
    empty = {name for name, count in held("acme").items() if not count}
    assert empty == set(), "a new table needs a row in `populate`"


def test_an_erased_organisation_keeps_nothing_but_its_audit_and_its_id(plain: str) -> None:
    others = held("rival")
    entries = AuditEntry.objects.filter(org_id="acme").count()
    org_closing.close("acme", actor=OPERATOR)
    gone = org_closing.erase("acme", actor=OPERATOR)
    left = {name for name, count in held("acme").items() if count}
    assert left == {"Org"} | {model.__name__ for model in org_closing.KEPT}
    assert gone["agent_jobs_job"] > 0
    assert held("rival") == others
    org = Org.objects.get(pk="acme")
    assert (org.name, org.erased_at is not None) == ("", True)
    assert AuditEntry.objects.filter(org_id="acme").count() > entries
    assert set(AuditEntry.objects.filter(org_id="acme").values_list("action", flat=True)) >= {
        "org.closed",
        "org.erased",
        "job.canceled",
    }
    audit_log.seal()
    assert verification.verify("acme").problem == ""


def test_from_the_close_on_tokens_are_refused_jobs_canceled_and_nothing_is_sent(plain: str) -> None:
    api = factories.Api(plain)
    assert api.get("/services/agent-jobs").status_code == 200
    token = app_tokens.authenticate(plain)
    assert token is not None
    org_closing.close("acme", actor=OPERATOR)
    assert api.get("/services/agent-jobs").status_code == 401
    assert app_tokens.living([token.pk]) == set(), "streams and long-polls that are open end"
    assert not Job.objects.filter(org_id="acme").exclude(status__in=TERMINAL).exists()
    assert not OutboundMessage.objects.filter(org_id="acme", status="pending").exists()
    assert Job.objects.filter(org_id="rival").exclude(status__in=TERMINAL).exists()


def test_a_cancel_note_is_not_sent_either(plain: str) -> None:
    job = rows.job(JobStatus.RUNNING, config={"cancel_note": True})
    job.messages.create(is_human=False, author="agent", text="?", delivered_at=datetime.now(UTC))
    org_closing.close("acme", actor=OPERATOR)
    assert not OutboundMessage.objects.filter(org_id="acme", status="pending").exists()


def test_what_was_posted_in_the_moment_of_the_close_is_canceled_by_the_duty(plain: str) -> None:
    org_closing.close("acme", actor=OPERATOR)
    late = rows.job()
    duty_rounds.each(duty_table.BELLS["sweep"])
    assert Job.objects.get(pk=late.pk).status == JobStatus.CANCELED


@pytest.mark.parametrize(
    ("days", "is_erased"), [(org_closing.GRACE_DAYS - 1, False), (org_closing.GRACE_DAYS + 1, True)]
)
def test_the_duty_erases_when_the_grace_is_over(plain: str, days: int, is_erased: bool) -> None:
    org_closing.close("acme", actor=OPERATOR)
    Org.objects.filter(pk="acme").update(closed_at=datetime.now(UTC) - timedelta(days=days))
    duty_rounds.each(duty_table.BELLS["erase"])
    assert Job.objects.filter(org_id="acme").exists() is not is_erased
    assert (Org.objects.get(pk="acme").erased_at is not None) is is_erased


def test_an_erasure_that_was_interrupted_goes_on_and_cannot_be_undone(plain: str) -> None:
    org_closing.close("acme", actor=OPERATOR)
    stop = duty_rounds.threading.Event()
    stop.set()
    org_closing.erase("acme", actor=OPERATOR, stop=stop)
    assert Org.objects.get(pk="acme").erased_at is None
    with pytest.raises(Conflict, match="cannot be reopened"):
        org_closing.reopen("acme", actor=OPERATOR)
    duty_rounds.each(duty_table.BELLS["erase"])
    assert Org.objects.get(pk="acme").erased_at is not None


def test_within_the_grace_it_can_be_reopened(plain: str) -> None:
    close_org("acme", "--yes")
    assert "reopened" in close_org("acme", "--undo")
    assert factories.Api(plain).get("/services/agent-jobs").status_code == 200
    actions = (
        AuditEntry.objects.filter(org_id="acme", object_type="org").order_by("id").values_list("action", flat=True)
    )
    assert list(actions) == ["org.closed", "org.reopened"]
    with pytest.raises(CommandError, match="is not closed"):
        close_org("acme", "--undo")


@pytest.mark.parametrize("how", [[], ["--now"]])
def test_the_id_of_a_closed_organisation_is_not_free(plain: str, how: list[str]) -> None:
    close_org("acme", "--yes", *how)
    with pytest.raises(Conflict) as refused:
        orgs.create("acme", name="Somebody else", actor=OPERATOR)
    assert refused.value.message == (
        "the organization 'acme' has been erased; its id is never used again"
        if how
        else "the organization 'acme' is closed; reopen it with manage.py close_org acme --undo"
    )
    for command in (["create_token", "--org", "acme", "--scope", "SERVICES:READ", "--name", "x"],):
        with pytest.raises(CommandError, match="organization 'acme'"):
            call_command(*command)


def test_now_erases_at_once_after_the_id_was_typed(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="nothing was done"):
        close_org("acme", "--now", stdin="acne\n", monkeypatch=monkeypatch)
    assert Org.objects.get(pk="acme").closed_at is None
    assert "erased organization acme" in close_org("acme", "--now", stdin="acme\n", monkeypatch=monkeypatch)
    assert not Job.objects.filter(org_id="acme").exists()
    with pytest.raises(CommandError, match="there is no organization"):
        close_org("nobody", "--yes")


def test_the_admin_offers_no_deletion_of_organisations_and_tokens(admin_client: Any, plain: str) -> None:
    assert admin_client.post("/admin/agent_jobs/org/acme/delete/", {"post": "yes"}).status_code == 403
    token = app_tokens.authenticate(plain)
    assert token is not None
    assert admin_client.post(f"/admin/agent_jobs/apptoken/{token.pk}/delete/", {"post": "yes"}).status_code == 403
    assert b"delete_selected" not in admin_client.get("/admin/agent_jobs/org/").content
    assert b"delete_selected" not in admin_client.get("/admin/agent_jobs/apptoken/").content


def test_what_stays_is_named(plain: str) -> None:
    assert (AuditEntry, AuditSeal) == org_closing.KEPT
