"""Decisions about tool calls: who may make them, when, and what others are told."""

import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import transaction

from agent_jobs.approvals import button_presses, decisions
from agent_jobs.approvers import Person
from agent_jobs.errors import Conflict, Forbidden, Invalid, NotFound
from agent_jobs.lifecycle import approval_closing
from agent_jobs.models import Activity, Approval, AuditEntry, Job
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus, WaitingFor
from channels_integration.messages import Did, Incoming
from channels_integration.models import OutboundMessage
from tests import rows
from tests.races import at_once
from tests.waiting import PATIENCE

OPS = Actor("token", "ajt_live_ops", "req-7")
NOBODY = UUID("01930000-0000-7000-8000-000000000000")


def decide(approval, decision="approve", *, org_id="acme", by="U0ANN", **options):
    return decisions.decide(org_id, approval.pk, decision, by=Person("slack", by), actor=OPS, **options)


@pytest.mark.django_db
class TestDeciding:
    @pytest.mark.parametrize(("decision", "status"), [("approve", "approved"), ("deny", "denied")])
    def test_a_decision_is_kept_with_who_made_it_and_puts_the_job_into_its_lane(self, decision, status):
        job = rows.parked()
        decided = decide(rows.approval(job), decision, reason="as agreed")

        assert (decided.status, decided.decided_by, decided.reason) == (status, "U0ANN", "as agreed")
        assert decided.decided_at is not None
        job.refresh_from_db()
        assert job.queue_at is not None
        told = Activity.objects.get(job=job, code=f"approval.{status}")
        assert told.note == f"pay was {status} by U0ANN: as agreed"

    def test_it_leaves_an_audit_entry_with_who_did_it_by_which_request(self):
        approval = rows.approval(rows.parked())
        decide(approval, reason="fine", arguments={"amount": 3})

        entry = AuditEntry.objects.get(action="approval.approved")
        assert (entry.org_id, entry.object_type, entry.object_id) == ("acme", "approval", str(approval.pk))
        assert (entry.actor, entry.request_id) == ("token:ajt_live_ops", "req-7")
        assert entry.after == {
            "job_id": str(approval.job_id),
            "tool": "pay",
            "by": "U0ANN",
            "reason": "fine",
            "edited_arguments": {"amount": 3},
        }

    def test_arguments_may_be_others_as_long_as_the_tool_takes_them(self):
        approval = rows.approval(rows.parked())

        assert decide(approval, arguments={"amount": 3}).edited_arguments == {"amount": 3}

    @pytest.mark.parametrize("arguments", [{}, {"amount": "much"}, [5]], ids=str)
    def test_arguments_that_the_tool_does_not_take_decide_nothing(self, arguments):
        approval = rows.approval(rows.parked())
        with pytest.raises(Invalid) as refused:
            decide(approval, arguments=arguments)

        assert refused.value.errors[0].field.startswith("arguments")
        approval.refresh_from_db()
        assert approval.status == "pending"

    def test_who_is_not_among_the_approvers_is_refused(self):
        approval = rows.approval(rows.parked(), approvers=["U0BOSS"])
        with pytest.raises(Forbidden):
            decide(approval)

        assert decide(approval, by="U0BOSS").status == "approved"

    @pytest.mark.parametrize(
        ("columns", "status", "code"),
        [
            ({}, "denied", "approval_closed"),
            ({}, "expired", "approval_closed"),
            ({}, "withdrawn", "approval_closed"),
            ({"lease_until": datetime(2030, 1, 1, tzinfo=UTC)}, "pending", "approval_not_open"),
            ({"waiting_for": WaitingFor.REPLY}, "pending", "approval_not_open"),
        ],
        ids=str,
    )
    def test_what_is_not_open_is_refused_and_left(self, columns, status, code):
        approval = rows.approval(rows.parked(**columns), status=status)
        with pytest.raises(Conflict) as refused:
            decide(approval)

        assert refused.value.code == code
        approval.refresh_from_db()
        assert (approval.status, approval.decided_by) == (status, "")

    def test_one_whose_time_is_over_is_closed_before_anybody_has_settled_it(self):
        with pytest.raises(Conflict) as refused:
            decide(rows.approval(rows.parked(), is_late=True))

        assert refused.value.code == "approval_closed"

    def test_one_of_a_job_that_has_ended_is_closed(self):
        with pytest.raises(Conflict) as refused:
            decide(rows.approval(rows.job(JobStatus.CANCELED)))

        assert refused.value.code == "approval_closed"

    def test_anothers_is_not_there_and_the_reach_for_it_is_told(self):
        theirs = rows.approval(rows.parked("rival"))
        with pytest.raises(NotFound) as anothers:
            decide(theirs)
        with pytest.raises(NotFound) as nobodys:
            decisions.decide("acme", NOBODY, "approve", by=Person("web", "x"), actor=OPS)

        assert anothers.value.message.replace(str(theirs.pk), "X") == nobodys.value.message.replace(str(NOBODY), "X")
        assert (anothers.value.denied, nobodys.value.denied) == (
            ("approval", str(theirs.pk)),
            ("approval", str(NOBODY)),
        )
        theirs.refresh_from_db()
        assert theirs.status == "pending"


@pytest.mark.django_db
class TestTimeOut:
    @pytest.mark.parametrize(
        ("on_timeout", "status", "line"),
        [
            ("deny", "expired", "Nobody decided in time."),
            ("fail", "expired", "Nobody decided in time."),
            ("approve", "approved", "Nobody decided in time, so it is approved."),
        ],
    )
    def test_time_decides_once_and_the_message_says_so(self, on_timeout, status, line):
        job = rows.parked(platform="slack", channel_code="C0ONE")
        approval = rows.approval(job, is_late=True, on_timeout=on_timeout, buttons=True)
        settled = decisions.settle_time_out(approval, job)
        decisions.settle_time_out(settled, job)

        assert (settled.status, settled.decided_by) == (status, "system:time-out")
        (change,) = OutboundMessage.objects.filter(change__isnull=False)
        assert change.change == {"of": str(approval.message_key), "line": line, "person": ""}

    def test_one_that_has_time_is_left(self):
        job = rows.parked()

        assert decisions.settle_time_out(rows.approval(job), job).status == "pending"


@pytest.mark.django_db
class TestQuestions:
    def test_the_message_loses_its_buttons_on_nobodys_behalf(self):
        approval = rows.approval(rows.parked(platform="slack", channel_code="C0ONE"), buttons=True)
        decide(approval, arguments={"amount": 3})

        change = OutboundMessage.objects.get(change__isnull=False)
        assert change.change["line"] == "Approved, with other arguments, by"
        assert (change.change["person"], change.text) == ("U0ANN", approval.question)
        assert (change.owner_key, change.thread_key) == ("", "")

    def test_the_end_of_a_job_withdraws_what_it_asks_for_and_only_that(self):
        job = rows.parked(platform="slack", channel_code="C0ONE")
        pending = rows.approval(job, buttons=True)
        decided = rows.approval(job, status="denied", decided_by="U0ANN")
        another = rows.approval(rows.parked())
        approval_closing.withdraw(job)

        states = {found.pk: found.status for found in Approval.objects.all()}
        assert states == {pending.pk: "withdrawn", decided.pk: "denied", another.pk: "pending"}
        change = OutboundMessage.objects.get(change__isnull=False)
        assert change.change["line"] == "Nobody needs to decide this any more."

    @pytest.mark.parametrize("status", ["withdrawn", "dead"])
    def test_a_question_that_nobody_has_seen_is_left_alone(self, status):
        approval = rows.approval(rows.parked(platform="slack", channel_code="C0ONE"), buttons=True)
        OutboundMessage.objects.update(status=status, error_code="x")
        decide(approval)

        assert not OutboundMessage.objects.filter(change__isnull=False).exists()

    def test_an_approval_without_a_message_is_decided_all_the_same(self):
        assert decide(rows.approval(rows.parked())).status == "approved"
        assert not OutboundMessage.objects.exists()


# --- Presses ---------------------------------------------------------------------------------------------------
def pressed(approval, value=None, *, org_id="acme", **fields):
    defaults = {"platform": "slack", "code": "C0ONE", "author": "U0ANN", "team": "T0ACME", "event_id": "e"}
    text = f"approve:{approval.pk}" if value is None else value
    now = datetime.now(UTC)
    return button_presses.receive(Incoming(org_id=org_id, text=text, sent_at=now, did=Did.PRESSED, **defaults | fields))


def in_slack(org_id="acme", **columns):
    data = {"team_id": "T0ACME"}
    return rows.parked(org_id, **{"platform": "slack", "channel_code": "C0ONE", "channel_data": data} | columns)


@pytest.mark.django_db
class TestPresses:
    def test_a_press_decides_in_the_name_of_who_pressed(self):
        approval = rows.approval(in_slack())

        assert pressed(approval)
        approval.refresh_from_db()
        assert (approval.status, approval.decided_by) == ("approved", "U0ANN")
        assert AuditEntry.objects.get(action="approval.approved").actor == "person:U0ANN"

    def test_a_second_press_is_harmless(self):
        approval = rows.approval(in_slack())
        pressed(approval)

        assert pressed(approval, f"deny:{approval.pk}", author="U0BEN")
        approval.refresh_from_db()
        assert (approval.status, approval.decided_by) == ("approved", "U0ANN")

    def test_a_press_while_the_agent_is_just_asking_is_looked_at_again(self):
        job = in_slack(lease_until=datetime(2030, 1, 1, tzinfo=UTC))
        approval = rows.approval(job)

        assert not pressed(approval)
        Job.objects.filter(pk=job.pk).update(lease_until=None)
        assert pressed(approval)
        approval.refresh_from_db()
        assert approval.status == "approved"

    @pytest.mark.parametrize("value", ["hello", "approve", "approve:", "approve:5", "fire:{id}", "", ":{id}"])
    def test_a_value_that_is_none_of_ours_means_nothing(self, value):
        approval = rows.approval(in_slack())

        assert pressed(approval, value.format(id=approval.pk))
        approval.refresh_from_db()
        assert approval.status == "pending"

    @pytest.mark.parametrize("fields", [{"code": "C0TWO"}, {"team": "T0OTHER"}, {"platform": "web"}], ids=str)
    def test_one_of_another_channel_decides_nothing(self, fields):
        approval = rows.approval(in_slack())

        assert pressed(approval, **fields)
        approval.refresh_from_db()
        assert approval.status == "pending"
        assert not AuditEntry.objects.filter(action="access.denied").exists()

    def test_a_job_that_names_no_team_is_the_workspaces(self):
        approval = rows.approval(in_slack(channel_data={}))
        pressed(approval)

        approval.refresh_from_db()
        assert approval.status == "approved"

    def test_anothers_approval_pressed_in_our_workspace_changes_nothing_and_is_told(self):
        theirs = rows.approval(in_slack("rival"))

        assert pressed(theirs)
        theirs.refresh_from_db()
        assert (theirs.status, theirs.decided_by) == ("pending", "")
        (entry,) = AuditEntry.objects.filter(action="access.denied")
        assert (entry.org_id, entry.object_type, entry.object_id) == ("acme", "approval", str(theirs.pk))
        assert entry.actor == "person:U0ANN"

    @pytest.mark.parametrize(
        ("approvers", "status"), [([], "pending"), (["U0BOSS"], "pending"), (["U0ANN"], "approved")], ids=str
    )
    def test_people_of_other_workspaces_decide_only_where_they_are_named(self, approvers, status):
        approval = rows.approval(in_slack(), approvers=approvers)

        assert pressed(approval, is_outsider=True)
        approval.refresh_from_db()
        assert approval.status == status
        assert Activity.objects.filter(code="approval.refused").exists() == (status == "pending")

    def test_who_may_not_decide_is_noted_once_however_often_they_press(self):
        approval = rows.approval(in_slack(), approvers=["U0BOSS"])
        for author in ("U0ANN", "U0ANN", "U0BEN"):
            assert pressed(approval, author=author)

        approval.refresh_from_db()
        assert approval.status == "pending"
        notes = Activity.objects.filter(code="approval.refused").order_by("id").values_list("note", flat=True)
        assert list(notes) == ["U0ANN may not decide about pay", "U0BEN may not decide about pay"]


# --- Races -----------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_of_twenty_who_decide_at_once_one_does(self):
        job = rows.parked(platform="slack", channel_code="C0ONE")
        approval = rows.approval(job, buttons=True)
        words = ["approve", "deny"] * 10
        works = [
            lambda number=number, word=word: decide(approval, word, by=f"U{number}")
            for number, word in enumerate(words)
        ]
        outcomes = at_once(*works)

        (winner,) = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Approval)]
        others = [outcome for place, outcome in enumerate(outcomes) if place != winner]
        assert {(type(outcome), outcome.code) for outcome in others} == {(Conflict, "approval_closed")}
        approval.refresh_from_db()
        assert (approval.status, approval.decided_by) == (
            decisions.DECISIONS[words[winner]],
            f"U{winner}",
        )
        assert Activity.objects.filter(job=job, code__startswith="approval.").count() == 1
        assert AuditEntry.objects.filter(object_type="approval").count() == 1
        assert OutboundMessage.objects.filter(change__isnull=False).count() == 1

    def test_in_the_second_of_its_end_either_somebody_decides_or_time_does(self):
        """The worker's way of settling: with the job's row locked, as journals do it."""
        for _ in range(10):
            job = rows.parked()
            approval = rows.approval(job, expires_at=datetime.now(UTC) + timedelta(seconds=0.15))

            def settle(job=job, approval=approval):
                until = time.monotonic() + PATIENCE
                while time.monotonic() < until:
                    with transaction.atomic():
                        locked = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
                        fresh = Approval.objects.get(pk=approval.pk)
                        settled = decisions.settle_time_out(fresh, locked)
                    if settled.status != "pending":
                        return settled.status
                raise AssertionError("time never ran out")

            def press(approval=approval, wait=0.0):
                threading.Event().wait(wait)
                return decide(approval, "approve").status

            waits = (0.13, 0.14, 0.145, 0.15, 0.155, 0.16)
            ended, *presses_ended = at_once(settle, *(lambda w=wait: press(wait=w) for wait in waits))

            approval.refresh_from_db()
            decided = [outcome for outcome in presses_ended if isinstance(outcome, str)]
            assert ended == approval.status
            assert len(decided) == (1 if approval.status == "approved" else 0)
            assert all(isinstance(outcome, Conflict | str) for outcome in presses_ended)
            assert Activity.objects.filter(job=job, code__startswith="approval.").count() == 1
