"""Slack end to end: the real web application over HTTP, the fake Slack, and the workers' own duties in between.

A message with buttons is posted, somebody presses, and the message says so; what people edit is read as they left it.
"""

import threading

import pytest
from django.db import connection

from agent_jobs.approvals import question_text
from agent_jobs.models import Activity, Approval, AuditEntry, Job, Message
from agent_jobs.states import JobStatus, WaitingFor
from agent_jobs.tools.types import Declared
from channels_integration import directory, inbound
from channels_integration.models import InboundEvent, OutboundMessage
from tests import factories, rows
from tests.api.asking import PLACE, asked
from tests.channels.sending import deliver_all
from tests.fakes.slack import FakeSlack
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def slack(settings, live_server):
    with FakeSlack(team_id="T0ACME", signing_secret="acme-signing-secret", seed=1) as server:
        settings.SLACK_API_URL = server.api_url
        settings.DELIVERY_GRACE_SECONDS = 4
        server.events_url = f"{live_server.url}/channels/slack/events"
        directory.install_slack(
            "acme", team_id="T0ACME", bot_token=server.bot_token, signing_secret=server.signing_secret
        )
        yield server


def routed():
    inbound.route_due()
    deliver_all()


def text_of(slack, post):
    return slack.message(post.channel, post.ts)["text"]


def has_buttons(slack, post):
    return any(block["type"] == "actions" for block in slack.message(post.channel, post.ts)["blocks"])


@pytest.mark.parametrize(
    ("word", "status", "said"), [("approve", "approved", "Approved"), ("deny", "denied", "Denied")]
)
def test_a_press_decides_wakes_the_job_and_changes_the_message(slack, word, status, said):
    approval, post = asked(slack)
    assert slack.press(post, f"{word}:{approval.pk}", user="U0ANN") == [200]
    routed()

    approval.refresh_from_db()
    assert (approval.status, approval.decided_by) == (status, "U0ANN")
    assert Job.objects.get().queue_at is not None
    assert text_of(slack, post) == f"May I pay 5?\n\n{said} by <@U0ANN>"
    assert not has_buttons(slack, post)
    assert (len(slack.posts), len(slack.updates)) == (1, 1)


@pytest.mark.parametrize(
    ("approvers", "status"), [([], "pending"), (["U0BOSS"], "pending"), (["U0OUT"], "approved")], ids=str
)
def test_people_of_other_workspaces_decide_only_where_they_are_named(slack, approvers, status):
    approval, post = asked(slack)
    Approval.objects.update(approvers=approvers)
    assert slack.press(post, f"approve:{approval.pk}", user="U0OUT", home="T0OTHER") == [200]
    routed()

    approval.refresh_from_db()
    assert approval.status == status


def test_a_question_that_has_no_room_for_all_is_posted_and_a_made_up_press_approves_nothing(slack):
    arguments = {"html": "<&>" * 5_000, "amount": 999_999}
    text = question_text.worded(Declared("pay", "http", "Pays.", {}), arguments, address="/here")
    approval, post = asked(slack, arguments=arguments, question=text)
    slack.press(post, f"approve:{approval.pk}", is_shown=False)
    routed()

    labels = [element["text"]["text"] for element in slack.message(post.channel, post.ts)["blocks"][-1]["elements"]]
    assert labels == ["Edit", "Deny"]
    assert "&quot;amount" in post.text or '"amount": 999999' in post.text
    approval.refresh_from_db()
    assert approval.status == "pending"
    slack.press(post, f"deny:{approval.pk}")
    routed()
    approval.refresh_from_db()
    assert approval.status == "denied"


def test_replays_double_clicks_and_two_people_at_once_make_one_decision(slack):
    approval, post = asked(slack)
    bodies = [
        slack.interaction(post, f"{word}:{approval.pk}", user=f"U0A{n}")
        for n, word in enumerate(["approve", "deny"] * 4)
    ]
    statuses = []
    threads = [
        threading.Thread(target=lambda body=body: statuses.append(slack.send_interaction(body))) for body in bodies * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    def route():
        try:
            inbound.route_due()
        finally:
            connection.close()

    routers = [threading.Thread(target=route) for _ in range(4)]
    for router in routers:
        router.start()
    for router in routers:
        router.join(PATIENCE)
    routed()

    assert statuses == [200] * 16
    assert InboundEvent.objects.count() == 8
    assert not InboundEvent.objects.exclude(status="routed").exists()
    assert Activity.objects.filter(code__in=["approval.approved", "approval.denied"]).count() == 1
    assert len(slack.updates) == 1
    approval.refresh_from_db()
    assert f"by <@{approval.decided_by}>" in text_of(slack, post)


def test_what_is_decided_by_api_is_seen_in_slack_and_a_late_press_changes_nothing(slack):
    approval, post = asked(slack)
    late = slack.interaction(post, f"approve:{approval.pk}", user="U0LATE")
    address = f"/services/agent-jobs/{approval.job_id}/approvals/{approval.pk}"
    assert factories.api().post(address, {"decision": "deny", "reason": "no"}).status_code == 200
    routed()
    assert text_of(slack, post) == "May I pay 5?\n\nDenied by token:test"

    assert slack.send_interaction(late) == 200
    routed()
    approval.refresh_from_db()
    assert (approval.status, approval.decided_by) == ("denied", "token:test")
    assert len(slack.updates) == 1


def test_anothers_approval_pressed_in_our_workspace_changes_nothing_and_is_told(slack):
    _, post = asked(slack)
    theirs = rows.approval(rows.parked("rival", **PLACE))
    slack.press(post, f"approve:{theirs.pk}", user="U0MALLORY", is_shown=False)
    routed()

    assert set(Approval.objects.values_list("status", flat=True)) == {"pending"}
    (entry,) = AuditEntry.objects.filter(action="access.denied")
    assert (entry.org_id, entry.object_id, entry.actor) == ("acme", str(theirs.pk), "person:U0MALLORY")
    assert has_buttons(slack, post)


@pytest.mark.parametrize("twists", [{"secret": "another"}, {"skew": -400}, {"skew": 400}], ids=str)
def test_a_forged_or_old_press_is_refused(slack, twists):
    approval, post = asked(slack)

    press = slack.interaction(post, f"approve:{approval.pk}")
    assert slack.send_interaction(press, **twists) == 401
    routed()
    approval.refresh_from_db()
    assert approval.status == "pending"


def test_a_press_while_the_agent_is_just_asking_counts_a_second_later(slack):
    approval, post = asked(slack)
    Job.objects.update(lease_until="2030-01-01T00:00:00Z")
    slack.press(post, f"approve:{approval.pk}", user="U0ANN")
    routed()
    approval.refresh_from_db()
    assert approval.status == "pending"

    Job.objects.update(lease_until=None)
    InboundEvent.objects.update(due_at="2000-01-01T00:00:00Z")
    routed()
    approval.refresh_from_db()
    assert approval.status == "approved"


def test_a_change_that_is_lost_harms_nobody(slack):
    approval, post = asked(slack)
    slack.script_updates("named")
    slack.press(post, f"approve:{approval.pk}", user="U0ANN")
    routed()

    assert has_buttons(slack, post)
    assert OutboundMessage.objects.get(change__isnull=False).status == "dead"
    slack.press(post, f"deny:{approval.pk}", user="U0BEN")
    routed()
    approval.refresh_from_db()
    assert (approval.status, approval.decided_by) == ("approved", "U0ANN")
    assert Job.objects.get().status == JobStatus.RUNNING


# --- Edits -----------------------------------------------------------------------------------------------------
@pytest.fixture
def thread(slack):
    """The thread of a job that waits for a reply."""
    thread = "1767225000.000001"
    rows.job(JobStatus.RUNNING, waiting_for=WaitingFor.REPLY, lease_until=None, thread=thread, **PLACE)
    return thread


def said(slack, thread, text="Tuesday", **options):
    slack.person_says("C0ONE", text, thread_ts=thread, user="U0ANN", **options)
    return slack._lines[-1].ts


def test_what_is_edited_before_it_is_read_is_read_as_edited(slack, thread):
    ts = said(slack, thread)
    assert slack.person_edits("C0ONE", ts, "Wednesday & <b>") == 200
    routed()

    line = Message.objects.get()
    assert (line.text, line.platform_message_id) == ("Wednesday & <b>", ts)
    assert line.edited_at is not None
    assert Job.objects.get().inbox_count == 1


def test_what_is_deleted_is_gone_from_the_transcript_and_says_since_when(slack, thread):
    ts = said(slack, thread)
    routed()
    assert slack.person_deletes("C0ONE", ts) == 200
    routed()

    job = Job.objects.get()
    (shown,) = factories.api().get(f"/services/agent-jobs/{job.pk}/messages").json()["data"]
    assert (shown["text"], shown["author"]) == ("", "U0ANN")
    assert shown["deleted_at"].endswith("Z")
    assert "edited_at" not in shown


def test_an_edit_of_a_message_that_nobody_heard_makes_nobody_hear_it(slack, thread):
    slack.person_writes("C0ONE", "before", thread_ts=thread, user="U0MALLORY", ts="1767225001.000000")
    slack.person_edits("C0ONE", "1767225001.000000", "edited: do as I say")
    routed()

    assert not Message.objects.exists()
    assert Job.objects.get().inbox_count == 0


def test_our_own_changes_come_back_as_events_and_are_not_heard(slack):
    approval, post = asked(slack)
    slack.press(post, f"approve:{approval.pk}", user="U0ANN")
    routed()
    now = slack.message(post.channel, post.ts)
    event = {"type": "message", "subtype": "message_changed", "channel": post.channel, "ts": now["edited"]["ts"]}
    before = {**now, "text": "May I pay 5?"}
    slack.send_event(slack.envelope({**event, "message": now, "previous_message": before, "channel_type": "channel"}))

    assert set(InboundEvent.objects.values_list("did", flat=True)) == {"pressed"}
