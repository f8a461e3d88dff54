"""Changing arguments in Slack, end to end: the real web application over HTTP, and the fake Slack opens modals."""

import json
from functools import partial

import pytest
from django.db import connections

from agent_jobs.approvals import decisions
from agent_jobs.approvers import Person
from agent_jobs.models import Activity, Approval, AuditEntry, Job
from channels_integration import directory, inbound
from channels_integration.models import InboundEvent, Installation
from channels_integration.platforms import slack as platform
from tests import factories, rows
from tests.api.asking import PLACE, asked
from tests.channels.sending import deliver_all
from tests.fakes.slack import FakeSlack, Fault, Step
from tests.races import in_threads

pytestmark = pytest.mark.django_db(transaction=True)
GONE = "this question is not to be found any more"


@pytest.fixture
def slack(settings, live_server, monkeypatch):
    # A machine that is busy takes its time between a press and what it opens.
    monkeypatch.setattr(platform, "_FORM_SECONDS", 8)
    with FakeSlack(team_id="T0ACME", signing_secret="acme-signing-secret", seed=1) as server:
        settings.SLACK_API_URL = server.api_url
        settings.DELIVERY_GRACE_SECONDS = 1
        server.events_url = f"{live_server.url}/channels/slack/events"
        server.trigger_seconds = 60
        directory.install_slack(
            "acme", team_id="T0ACME", bot_token=server.bot_token, signing_secret=server.signing_secret
        )
        yield server


def edit(slack, approval, post, *, user="U0ANN", **options):
    """Press Edit; answers the modal."""
    assert slack.press(post, f"edit:{approval.pk}", user=user, **options) == [200]
    return slack.views[-1]


def complaint(answer):
    status, body = answer
    assert (status, body["response_action"]) == (200, "errors")
    (said,) = body["errors"].values()
    return said


def is_taken(answer):
    return answer == (200, {"response_action": "clear"})


def buttons(post):
    (actions,) = [block for block in post.request["blocks"] if block["type"] == "actions"]
    return [element["text"]["text"] for element in actions["elements"]]


def now(approval):
    return Approval.objects.get(pk=approval.pk)


# --- The button ------------------------------------------------------------------------------------------------
def test_a_tools_question_has_a_third_button_and_others_have_none(slack):
    _, of_a_tool = asked(slack)
    _, of_the_agent = asked(slack, tool="ask_approval")
    _, of_a_budget = asked(slack, kind="budget")

    assert buttons(of_a_tool) == ["Approve", "Edit", "Deny"]
    assert buttons(of_the_agent) == buttons(of_a_budget) == ["Approve", "Deny"]


def test_it_opens_the_arguments_as_they_are_and_decides_nothing(slack):
    approval, post = asked(slack, arguments={"amount": 5, "to": "Zoë & <co>", "lines": [{"a": None}]})
    view = edit(slack, approval, post)

    assert view.user == "U0ANN"
    assert json.loads(view.text) == approval.arguments
    assert "\n" in view.text
    assert "pay" in view.said
    assert now(approval).status == "pending"
    assert not InboundEvent.objects.exists()


def test_people_of_other_workspaces_open_no_form_and_send_none_back(slack):
    approval, post = asked(slack)
    view = edit(slack, approval, post)
    slack.press(post, f"edit:{approval.pk}", user="U0OUT", home="T0OTHER")
    _, answer = slack.ask_interaction(slack.submission(view, '{"amount": 3}', user="U0OUT", home="T0OTHER"))

    assert slack.views[-1].said == "You are not an approver of this action."
    assert answer["response_action"] == "errors"
    assert now(approval).status == "pending"


# --- Sending it back -------------------------------------------------------------------------------------------
def test_what_is_sent_back_is_approved_with_the_new_arguments_and_the_message_says_so(slack):
    approval, post = asked(slack)
    assert is_taken(slack.submit(edit(slack, approval, post), '{"amount": 3}'))
    deliver_all()

    decided = now(approval)
    assert (decided.status, decided.decided_by, decided.edited_arguments) == ("approved", "U0ANN", {"amount": 3})
    assert Job.objects.get().queue_at is not None
    shown = slack.message(post.channel, post.ts)
    assert shown["text"] == "May I pay 5?\n\nApproved, with other arguments, by <@U0ANN>"
    assert not any(block["type"] == "actions" for block in shown["blocks"])
    assert AuditEntry.objects.get(action="approval.approved").actor == "person:U0ANN"


def test_what_was_not_changed_is_simply_approved(slack):
    approval, post = asked(slack)
    view = edit(slack, approval, post)
    assert is_taken(slack.submit(view, view.text))

    assert (now(approval).status, now(approval).edited_arguments) == ("approved", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"amount": "much"}', "arguments.amount"),
        ("{}", "arguments.amount is required"),
        ("[5]", "arguments must be an object"),
        ("5", "arguments must be an object"),
        ("null", "arguments must be an object"),
        ('{"amount": 3', "this is not JSON"),
        ("", "this is not JSON"),
        ("“amount”: 3", "this is not JSON"),
        ('{"amount": 3, "amount": 4}', "appears twice"),
        ('{"amount": NaN}', "is not a JSON number"),
        ('{"amount": 1e999}', "beyond 2^53"),
        ('{"amount": 99999999999999999999}', "beyond 2^53"),
        ('{"amount": 3, "to": "\\u0000"}', "to "),
        ('{"amount": 3, "to": "\\ud800"}', "to "),
        ("[" * 1_500 + "]" * 1_500, "nested"),
    ],
    ids=lambda text: text[:30],
)
def test_what_the_tool_does_not_take_stays_open_with_a_complaint_and_decides_nothing(slack, text, said):
    approval, post = asked(slack)
    view = edit(slack, approval, post)

    assert said in complaint(slack.submit(view, text))
    assert now(approval).status == "pending"
    assert is_taken(slack.submit(view, '{"amount": 3}')), "the next try is as good as the first"


def test_a_form_that_is_sent_twice_is_taken_twice_and_does_nothing_twice(slack):
    approval, post = asked(slack)
    view = edit(slack, approval, post)
    body = slack.submission(view, '{"amount": 3}')
    answers = [slack.ask_interaction(body) for _ in range(3)]
    deliver_all()

    assert all(is_taken(answer) for answer in answers)
    assert Activity.objects.filter(code="approval.approved").count() == 1
    assert AuditEntry.objects.filter(object_type="approval").count() == 1
    assert len(slack.updates) == 1
    assert "the approval is already approved by U0ANN" in complaint(slack.submit(view, '{"amount": 4}'))
    assert now(approval).edited_arguments == {"amount": 3}


def test_of_forms_and_presses_at_once_one_decides(slack):
    approval, post = asked(slack)
    views = [edit(slack, approval, post, user=f"U0A{n}") for n in range(6)]

    def send(n):
        return slack.submit(views[n], json.dumps({"amount": 10 + n}))  # none is the 5 that was asked for

    def press():
        slack.press(post, f"deny:{approval.pk}", user="U0NO")
        inbound.route_due()

    *answers, _ = in_threads(*(partial(send, n) for n in range(6)), press)
    deliver_all()

    taken = [n for n, answer in enumerate(answers) if is_taken(answer)]
    decided = now(approval)
    assert len(taken) + (decided.decided_by == "U0NO") == 1
    assert Activity.objects.filter(code__in=["approval.approved", "approval.denied"]).count() == 1
    if taken:
        assert (decided.decided_by, decided.edited_arguments) == (f"U0A{taken[0]}", {"amount": 10 + taken[0]})
    for n in set(range(6)) - set(taken):
        assert "already" in complaint(answers[n])


# --- Who may, and until when -----------------------------------------------------------------------------------
def test_who_may_not_approve_is_told_so_before_and_after(slack):
    approval, post = asked(slack, approvers=["U0BOSS"])
    view = edit(slack, approval, post, user="U0CAT")
    assert (view.text, view.said) == (None, "You are not an approver of this action.")

    theirs = edit(slack, approval, post, user="U0BOSS")
    assert complaint(slack.submit(theirs, '{"amount": 3}', user="U0CAT")) == "you are not an approver of this action"
    assert now(approval).status == "pending"
    (note,) = Activity.objects.filter(code="approval.refused")
    assert note.note == "U0CAT may not decide about pay"
    assert is_taken(slack.submit(theirs, '{"amount": 3}'))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"status": "denied", "decided_by": "U0BEN"}, "the approval is already denied by U0BEN"),
        ({"status": "withdrawn"}, "the approval is already withdrawn"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "the time for this decision is over"),
    ],
    ids=str,
)
def test_what_is_decided_or_expired_meanwhile_is_said_before_and_after(slack, columns, said):
    approval, post = asked(slack)
    view = edit(slack, approval, post)
    Approval.objects.update(**columns)

    assert complaint(slack.submit(view, '{"amount": 3}')) == said
    late = edit(slack, approval, post)
    assert (late.text, late.said.lower()) == (None, f"{said.lower()}.")
    assert now(approval).edited_arguments is None


def test_while_the_agent_is_just_asking_it_is_to_be_tried_again(slack):
    approval, post = asked(slack)
    view = edit(slack, approval, post)
    Job.objects.update(lease_until="2030-01-01T00:00:00Z")

    assert "try again in a second" in complaint(slack.submit(view, '{"amount": 3}'))
    assert "try again in a second" in edit(slack, approval, post).said
    Job.objects.update(lease_until=None)
    assert is_taken(slack.submit(view, '{"amount": 3}'))


def test_what_is_decided_by_api_meanwhile_stands(slack):
    approval, post = asked(slack)
    view = edit(slack, approval, post)
    address = f"/services/agent-jobs/{approval.job_id}/approvals/{approval.pk}"
    assert factories.api().post(address, {"decision": "deny"}).status_code == 200

    assert complaint(slack.submit(view, '{"amount": 3}')) == "the approval is already denied by token:test"


# --- What a form cannot hold -----------------------------------------------------------------------------------
def test_arguments_that_only_fit_without_spaces_are_shown_so(slack):
    arguments = {"amount": 5, "lines": [1] * 600}
    approval, post = asked(slack, arguments=arguments)

    assert len(json.dumps(arguments, indent=2)) > 3_000
    assert json.loads(edit(slack, approval, post).text) == arguments


def test_arguments_too_long_for_a_form_are_left_to_the_api(slack):
    approval, post = asked(slack, arguments={"amount": 5, "text": "x" * 3_000})
    view = edit(slack, approval, post)

    assert view.text is None
    assert f"POST /services/agent-jobs/{approval.job_id}/approvals/{approval.pk}" in view.said


@pytest.mark.parametrize("columns", [{"tool": "ask_approval"}, {"kind": "budget"}], ids=str)
def test_a_made_up_press_on_what_has_nothing_to_change_opens_no_input(slack, columns):
    approval, post = asked(slack, **columns)

    assert edit(slack, approval, post, is_shown=False).text is None


# --- Forgeries and strangers -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "twists", [{"secret": "another"}, {"skew": -400}, {"skew": 400}, {"team": "T0NOBODY"}], ids=str
)
def test_a_forged_old_or_foreign_form_is_refused_as_a_press_is(slack, twists):
    approval, post = asked(slack)
    view = edit(slack, approval, post)
    status, body = slack.submit(view, '{"amount": 3}', **twists)

    pressed = {name: twist for name, twist in twists.items() if name != "team"}
    of_a_press = slack.ask_interaction(
        slack.interaction(post, f"edit:{approval.pk}", team=twists.get("team", "")), **pressed
    )
    assert (status, body) == of_a_press
    assert status == 401
    assert now(approval).status == "pending"
    assert len(slack.views) == 1


def test_forging_forms_is_throttled_as_forging_presses_is(slack, settings):
    settings.RATE_ADDRESS = "3/minute"
    approval, post = asked(slack)
    view = edit(slack, approval, post)
    statuses = [slack.submit(view, '{"amount": 3}', secret="another")[0] for _ in range(5)]

    assert statuses[-1] == 429
    assert is_taken(slack.submit(view, '{"amount": 3}')), "what is truly signed is heard all the same"


def test_what_a_form_carries_is_trusted_no_further_than_a_button(slack):
    """As if somebody had made Slack sign another value: another organisation's, another channel's, or none at all."""
    approval, post = asked(slack)
    view = edit(slack, approval, post)
    carried = json.loads(view.request["private_metadata"])
    theirs = rows.approval(rows.parked("rival", **PLACE))
    elsewhere = rows.approval(rows.parked(**{**PLACE, "channel_code": "C0TWO"}))

    def forged(**fields):
        metadata = json.dumps({**carried, **fields})
        return slack.ask_interaction(slack.submission(view, '{"amount": 3}', fields={"private_metadata": metadata}))

    assert complaint(forged(value=f"edit:{theirs.pk}")) == GONE
    assert complaint(forged(value=f"edit:{theirs.pk}", org_id="rival")) == GONE
    assert complaint(forged(value=f"edit:{elsewhere.pk}")) == GONE
    assert complaint(forged(channel="C0TWO")) == GONE
    assert "value" in complaint(forged(value="edit:5"))
    assert "value" in complaint(forged(value=f"approve:{approval.pk}"))
    assert set(Approval.objects.values_list("status", flat=True)) == {"pending"}
    denied = AuditEntry.objects.filter(action="access.denied")
    assert {(entry.org_id, entry.object_id) for entry in denied} == {("acme", str(theirs.pk))}


def test_anothers_question_opens_with_the_answer_of_one_that_is_not_there(slack):
    _, post = asked(slack)
    theirs = rows.approval(rows.parked("rival", **PLACE))
    nobodys = "01930000-0000-7000-8000-000000000000"
    said = []
    for value in (f"edit:{theirs.pk}", f"edit:{nobodys}", "edit:5", "edit:"):
        assert slack.press(post, value, user="U0MALLORY", is_shown=False) == [200]
        said.append((slack.views[-1].text, slack.views[-1].said))

    assert set(said) == {(None, "This question is not to be found any more.")}
    (entry,) = AuditEntry.objects.filter(action="access.denied")
    assert (entry.org_id, entry.object_id) == ("acme", str(theirs.pk))


def test_of_two_organisations_with_one_app_the_one_that_asked_is_meant(slack):
    approval, post = asked(slack)
    directory.install_slack("rival", team_id="T0ACME", bot_token=slack.bot_token, signing_secret=slack.signing_secret)
    assert is_taken(slack.submit(edit(slack, approval, post), '{"amount": 3}'))

    assert now(approval).status == "approved"
    assert not AuditEntry.objects.filter(action="access.denied").exists()


BROKEN = [
    {"callback_id": "another"},
    {"private_metadata": "nonsense"},
    {"private_metadata": "[]"},
    {"private_metadata": None},
    {"private_metadata": '{"value": 5, "channel": "C0ONE", "org_id": "acme"}'},
    {"state": {}},
    {"state": {"values": {"text": {"text": {"value": None}}}}},
    {"state": {"values": []}},
]


@pytest.mark.parametrize("fields", BROKEN, ids=str)
def test_a_view_that_is_none_of_ours_is_answered_and_does_nothing(slack, fields):
    approval, post = asked(slack)
    view = edit(slack, approval, post)

    assert is_taken(slack.ask_interaction(slack.submission(view, '{"amount": 3}', fields=fields)))
    assert now(approval).status == "pending"


# --- Slack's own troubles --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "step",
    [
        Step(Fault.NAMED, error="expired_trigger_id"),
        Step(Fault.NAMED, error="invalid_trigger_id"),
        Step(Fault.RATE_LIMITED),
        Step(Fault.ERROR_500),
        Step(Fault.DROP_BEFORE),
    ],
    ids=lambda step: f"{step.fault}-{step.error}",
)
def test_a_form_that_slack_does_not_open_is_told_to_slack_and_asked_for_once(slack, step):
    approval, post = asked(slack)
    slack.script_views(step)

    status, body = slack.ask_interaction(slack.interaction(post, f"edit:{approval.pk}"))
    assert (status, body["code"]) == (502, "form_not_opened")
    assert slack.calls("views.open") == 1
    assert edit(slack, approval, post).text, "the next press is a new one"


def test_a_press_that_is_replayed_opens_nothing_twice(slack):
    approval, post = asked(slack)
    body = slack.interaction(post, f"edit:{approval.pk}")

    assert [slack.send_interaction(body) for _ in range(2)] == [200, 502]
    assert len(slack.views) == 1


def test_a_ticket_that_is_too_old_or_made_up_opens_nothing(slack):
    approval, post = asked(slack)
    slack.trigger_seconds = -1
    late = slack.interaction(post, f"edit:{approval.pk}")
    forgotten = slack.interaction(post, f"edit:{approval.pk}")
    slack._triggers.popitem()

    for body, error in ((late, "expired_trigger_id"), (forgotten, "invalid_trigger_id")):
        status, answer = slack.ask_interaction(body)
        assert (status, answer["message"]) == (502, f"the form could not be opened: {error}")


def test_a_slack_that_hangs_is_given_up_while_the_person_still_waits(slack, monkeypatch):
    """For 2 s by the setting; here for less, and the fake would hold it for longer than any test lasts."""
    monkeypatch.setattr(platform, "_FORM_SECONDS", 0.3)
    approval, post = asked(slack)
    slack.script_views(Step(Fault.HANG_BEFORE, seconds=120))

    assert slack.ask_interaction(slack.interaction(post, f"edit:{approval.pk}"))[0] == 502


def test_no_transaction_is_open_while_slack_is_spoken_to(slack, monkeypatch):
    seen = []

    def look(self, asked, form):
        seen.append([it.in_atomic_block for it in connections.all(initialized_only=True)])

    monkeypatch.setattr(platform.Slack, "open_form", look)
    approval, post = asked(slack)
    slack.press(post, f"edit:{approval.pk}")

    assert seen
    assert not any(seen[0])


def test_an_app_that_is_not_installed_any_more_is_a_stranger(slack):
    approval, post = asked(slack)
    view = edit(slack, approval, post)
    Installation.objects.all().delete()

    assert slack.submit(view, '{"amount": 3}')[0] == 401


def test_an_edit_is_no_value_for_the_other_doors(slack):
    """A web chat opens no forms: who presses what its messages do not show is told so."""
    job = rows.parked(platform="web", channel_code="lobby")
    approval = rows.approval(job)
    body = {"value": f"edit:{approval.pk}", "author": "Ann"}
    refused = factories.api().post("/services/channels/web/lobby/presses", body)

    assert refused.status_code == 400
    assert factories.fields_of(refused) == ["value"]
    assert (
        decisions.decide("acme", approval.pk, "approve", by=Person("web", "Ann"), actor=rows.TESTER).status
        == "approved"
    )
