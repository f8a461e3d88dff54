"""Approvals through the API: what waits, who decided, and pressing the buttons of a web chat."""

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agent_jobs.approvals import question_text
from agent_jobs.models import Activity, Approval, AuditEntry
from agent_jobs.states import JobStatus
from agent_jobs.tools.types import Declared
from channels_integration import directory
from channels_integration.models import Channel
from tests import factories, rows
from tests.channels.sending import deliver_all
from tests.fakes.webhook import FakeReceiver

pytestmark = pytest.mark.django_db
APPROVALS = "/services/approvals"
PRESSES = "/services/channels/web/lobby/presses"
NOBODYS = "01930000-0000-7000-8000-000000000000"


def address(approval):
    return f"/services/agent-jobs/{approval.job_id}/approvals/{approval.pk}"


def ids(response):
    assert response.status_code == 200, response.content
    return [found["id"] for found in response.json()["data"]]


class TestReading:
    def test_one_that_waits_has_the_promised_shape(self, acme):
        approval = rows.approval(rows.parked(), approvers=["U0ANN"])

        (shown,) = acme.get(f"{APPROVALS}?status=pending").json()["data"]

        assert shown.pop("created_at").endswith("Z")
        assert shown.pop("expires_at").endswith("Z")
        assert shown == {
            "id": str(approval.pk),
            "org_id": "acme",
            "job_id": str(approval.job_id),
            "kind": "tool",
            "tool": "pay",
            "question": "May I pay 5?",
            "arguments": {"amount": 5},
            "approvers": ["U0ANN"],
            "on_timeout": "deny",
            "status": "pending",
        }

    def test_the_detail_of_a_job_shows_what_it_waits_for_and_nothing_older(self, acme):
        job = rows.parked()
        rows.approval(job, status="denied")
        pending = rows.approval(job)

        shown = acme.get(f"/services/agent-jobs/{job.pk}").json()["data"]

        assert [found["id"] for found in shown["approvals"]] == [str(pending.pk)]
        assert shown["waiting_for"] == "approval"
        (listed,) = acme.get("/services/agent-jobs").json()["data"]
        assert "approvals" not in listed
        assert "approvals" not in acme.get(f"/services/agent-jobs/{rows.job().pk}").json()["data"]

    def test_a_budget_is_asked_for_as_a_tool_is_and_names_its_cap(self, acme):
        job = rows.parked()
        pending = rows.budget_approval(job)

        shown = acme.get(f"/services/agent-jobs/{job.pk}?include=explanation").json()["data"]

        (asked,) = shown["approvals"]
        assert (asked["id"], asked["kind"], asked["tool"]) == (str(pending.pk), "budget", "openai:gpt-fake")
        assert asked["arguments"] == {
            "cap": "max_tokens", "of": "job", "limit": 6_000, "used": 5_030, "grants": 6_000
        }  # fmt: skip
        assert shown["explanation"]["rule"] == "approval"
        assert "max_tokens of the job is 6,000, 5,030 of it are used" in shown["explanation"]["state"]
        assert "budget_granted" not in shown

    def test_the_detail_says_what_was_granted_to_the_jobs_own_caps(self, acme):
        job = rows.parked(config={"max_tokens": 6_000, "on_budget_exhausted": "approve"})
        pending = rows.budget_approval(job)
        for status in ("approved", "approved", "denied", "expired"):
            rows.budget_approval(job, status=status)
        cap = {"cap": "max_cost", "of": "job", "limit": 1.5, "used": 1.4, "grants": 1.5}
        rows.budget_approval(job, status="approved", arguments=cap)

        address = f"/services/agent-jobs/{job.pk}"
        assert acme.get(address).json()["data"]["budget_granted"] == {"max_tokens": 12_000, "max_cost": 1.5}
        acme.post(f"{address}/approvals/{pending.pk}", {"decision": "approve"})
        assert acme.get(address).json()["data"]["budget_granted"]["max_tokens"] == 18_000
        assert "budget_granted" not in acme.get("/services/agent-jobs").json()["data"][0]

    def test_a_job_lists_all_that_it_ever_asked_for_oldest_first(self, reader):
        job = rows.parked()
        made = [rows.approval(job, status=status) for status in ("approved", "expired", "pending")]
        rows.approval(rows.parked())

        response = reader.get(f"/services/agent-jobs/{job.pk}/approvals")

        assert ids(response) == [str(approval.pk) for approval in made]
        assert response.json()["meta"] == {"org_id": "acme", "count": 3}

    def test_the_list_is_filtered_paged_and_sorted(self, reader):
        job = rows.parked()
        made = [str(rows.approval(job, status=status).pk) for status in ("approved", "denied", "pending")]
        another = rows.approval(rows.parked())

        assert ids(reader.get(f"{APPROVALS}?status=denied")) == [made[1]]
        assert ids(reader.get(f"{APPROVALS}?job_id={job.pk}&sort=created_at")) == made
        assert ids(reader.get(f"{APPROVALS}?status=pending&limit=1")) == [str(another.pk)]
        first = reader.get(f"{APPROVALS}?limit=3").json()
        assert (first["meta"]["total"], len(first["data"])) == (4, 3)
        assert ids(reader.get(f"{APPROVALS}?limit=3&cursor={first['meta']['next_cursor']}")) == [made[0]]

    @pytest.mark.parametrize("query", ["status=open", "job_id=5", "sort=tool", "limit=0", "by=me"])
    def test_a_bad_parameter_is_named(self, reader, query):
        response = reader.get(f"{APPROVALS}?{query}")

        assert response.status_code == 400
        assert factories.fields_of(response) == [query.partition("=")[0]]

    def test_a_stranger_sees_none_of_it(self, acme, rival):
        approval = rows.approval(rows.parked())

        assert ids(rival.get(APPROVALS)) == []
        refused = rival.get(f"/services/agent-jobs/{approval.job_id}/approvals")
        assert (refused.status_code, refused.json()["code"]) == (403, "job_of_another_organization")


class TestDeciding:
    def test_a_budget_has_no_arguments_to_change(self, acme):
        approval = rows.budget_approval(rows.parked())

        refused = acme.post(address(approval), {"decision": "approve", "arguments": {"grants": 10**9}})

        assert refused.status_code == 400
        assert factories.fields_of(refused) == ["arguments"]
        approval.refresh_from_db()
        assert approval.status == "pending"

    def test_a_token_approves_with_other_arguments_and_a_reason(self, acme):
        approval = rows.approval(rows.parked())

        response = acme.post(
            address(approval), {"decision": "approve", "arguments": {"amount": 3}, "reason": "less"}, X_Request_ID="r-1"
        )

        assert response.status_code == 200, response.content
        shown = response.json()["data"]
        assert (shown["status"], shown["decided_by"], shown["reason"]) == ("approved", "token:test", "less")
        assert (shown["arguments"], shown["edited_arguments"]) == ({"amount": 5}, {"amount": 3})
        assert shown["decided_at"].endswith("Z")
        assert response.json()["meta"] == {"org_id": "acme", "id": str(approval.pk)}
        assert list(AuditEntry.objects.filter(request_id="r-1").values_list("action", flat=True)) == [
            "approval.approved"
        ]
        assert Activity.objects.get(code="approval.approved").request_id == "r-1"

    def test_it_is_decided_once(self, acme):
        approval = rows.approval(rows.parked())
        first = acme.post(address(approval), {"decision": "deny"})
        second = acme.post(address(approval), {"decision": "approve"})

        assert (first.status_code, second.status_code) == (200, 409)
        assert second.json()["code"] == "approval_closed"
        assert second.json()["message"] == "the approval is already denied by token:test"

    def test_a_repeated_key_gets_the_first_answer_again(self, acme):
        approval = rows.approval(rows.parked())
        answers = [acme.post(address(approval), {"decision": "deny"}, Idempotency_Key="k") for _ in range(2)]

        assert answers[0].content == answers[1].content
        assert answers[1]["Idempotency-Replayed"] == "true"
        assert acme.post(address(approval), {"decision": "approve"}, Idempotency_Key="k").status_code == 422

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "decision"),
            ({"decision": "maybe"}, "decision"),
            ({"decision": 5}, "decision"),
            ({"decision": "approve", "arguments": 5}, "arguments"),
            ({"decision": "approve", "arguments": {"amount": "x"}}, "arguments.amount"),
            ({"decision": "approve", "arguments": {}}, "arguments.amount"),
            ({"decision": "deny", "arguments": {"amount": 3}}, "arguments"),
            ({"decision": "deny", "reason": "x" * 1_001}, "reason"),
            ({"decision": "deny", "reason": 5}, "reason"),
            ({"decision": "deny", "by": "me"}, "by"),
        ],
        ids=str,
    )
    def test_a_bad_decision_is_named_and_decides_nothing(self, acme, body, field):
        approval = rows.approval(rows.parked())

        response = acme.post(address(approval), body)

        assert response.status_code == 400, response.content
        assert factories.fields_of(response) == [field]
        approval.refresh_from_db()
        assert approval.status == "pending"

    @pytest.mark.parametrize(
        ("status", "code"), [("approved", "approval_closed"), ("expired", "approval_closed")], ids=str
    )
    def test_what_is_closed_is_a_conflict(self, acme, status, code):
        response = acme.post(address(rows.approval(rows.parked(), status=status)), {"decision": "deny"})

        assert (response.status_code, response.json()["code"]) == (409, code)

    def test_one_that_is_late_or_whose_job_has_ended_is_a_conflict(self, acme):
        late = rows.approval(rows.parked(), is_late=True)
        ended = rows.approval(rows.job(JobStatus.FAILED))

        for approval in (late, ended):
            assert acme.post(address(approval), {"decision": "deny"}).status_code == 409

    def test_who_is_not_an_approver_is_refused(self, acme):
        approval = rows.approval(rows.parked(), approvers=["token:ops"])

        refused = acme.post(address(approval), {"decision": "deny"})

        assert (refused.status_code, refused.json()["code"]) == (403, "not_an_approver")

    def test_reading_is_not_enough(self, reader):
        response = reader.post(address(rows.approval(rows.parked())), {"decision": "deny"})

        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")

    def test_what_is_not_there_or_another_jobs_or_anothers_is_a_404(self, acme):
        job, another = rows.parked(), rows.approval(rows.parked())
        theirs = rows.approval(rows.parked("rival"))

        for wanted in (NOBODYS, "5", str(another.pk), str(theirs.pk)):
            response = acme.post(f"/services/agent-jobs/{job.pk}/approvals/{wanted}", {"decision": "deny"})
            assert (response.status_code, response.json()["code"]) == (404, "approval_not_found"), wanted
            assert response.json()["message"] == f"there is no approval {wanted!r}"
        # The first of those that are not ours; `theirs` within the same hour leaves no second entry.
        assert [entry.object_id for entry in AuditEntry.objects.filter(action="access.denied")] == [NOBODYS]
        assert set(Approval.objects.values_list("status", flat=True)) == {"pending"}


EDITABLE = {
    "arguments": {"amount": 5},
    "arguments_schema": {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]},
}


class TestWebChat:
    """A person presses in a web chat; the application there says who."""

    def asked(self, **columns):
        return rows.approval(rows.parked(), buttons=True, **columns)

    @pytest.mark.django_db(transaction=True)
    def test_buttons_are_shown_until_they_are_pressed(self, acme):
        approval = self.asked()
        deliver_all()
        (shown,) = acme.get("/services/channels/web/lobby/messages").json()["data"]
        assert shown["buttons"] == [
            {"label": "Approve", "value": f"approve:{approval.pk}", **EDITABLE},
            {"label": "Deny", "value": f"deny:{approval.pk}"},
        ]

        pressed = acme.post(PRESSES, {"value": shown["buttons"][0]["value"], "author": "Ann"})
        deliver_all()

        assert pressed.status_code == 200, pressed.content
        assert pressed.json()["data"].items() >= {"status": "approved", "decided_by": "Ann"}.items()
        (now,) = acme.get("/services/channels/web/lobby/messages").json()["data"]
        assert "buttons" not in now
        assert now["text"] == "May I pay 5?\n\nApproved by Ann"
        assert now["id"] == shown["id"]

    def test_a_second_press_is_a_conflict_and_a_repeated_one_is_not(self, acme):
        value = f"deny:{self.asked().pk}"
        presses = [acme.post(PRESSES, {"value": value, "author": "Ann"}, Idempotency_Key="k") for _ in range(2)]

        assert [press.status_code for press in presses] == [200, 200]
        assert acme.post(PRESSES, {"value": value, "author": "Ben"}).status_code == 409

    def test_a_press_says_in_the_audit_who_pressed_and_whose_token_told(self, acme):
        acme.post(PRESSES, {"value": f"deny:{self.asked().pk}", "author": "Ann"}, X_Request_ID="r-1")

        entry = AuditEntry.objects.get(request_id="r-1")
        assert (entry.action, entry.after["by"]) == ("approval.denied", "Ann")
        assert entry.actor.startswith("token:ajt_live_")

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"author": "Ann"}, "value"),
            ({"value": "hello", "author": "Ann"}, "value"),
            ({"value": "approve:5", "author": "Ann"}, "value"),
            ({"value": "x" * 2_001, "author": "Ann"}, "value"),
            ({"value": f"approve:{NOBODYS}"}, "author"),
            ({"value": f"approve:{NOBODYS}", "author": "Ann", "text": "x"}, "text"),
            ({"value": f"approve:{NOBODYS}", "author": "Ann", "arguments": [3]}, "arguments"),
            ({"value": f"approve:{NOBODYS}", "author": "Ann", "arguments": 5}, "arguments"),
            ({"value": f"deny:{NOBODYS}", "author": "Ann", "arguments": {"amount": 3}}, "arguments"),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_a_bad_press_is_named(self, acme, body, field):
        response = acme.post(PRESSES, body)

        assert response.status_code == 400, response.content
        assert factories.fields_of(response) == [field]

    def test_one_of_another_channel_or_of_nobody_is_a_404(self, acme):
        value = f"deny:{self.asked().pk}"

        for path, sent in (("web/hall", value), ("webhook/lobby", value), ("web/lobby", f"deny:{NOBODYS}")):
            response = acme.post(f"/services/channels/{path}/presses", {"value": sent, "author": "Ann"})
            assert (response.status_code, response.json()["code"]) == (404, "approval_not_found")

    def test_slacks_buttons_are_pressed_in_slack_alone(self, acme):
        approval = rows.approval(rows.parked(platform="slack", channel_code="C0ONE"))
        body = {"value": f"approve:{approval.pk}", "author": "U0ANN"}

        assert acme.post("/services/channels/slack/C0ONE/presses", body).status_code == 404
        approval.refresh_from_db()
        assert approval.status == "pending"

    def test_who_may_not_decide_is_refused(self, acme):
        value = f"deny:{self.asked(approvers=['Boss']).pk}"

        assert acme.post(PRESSES, {"value": value, "author": "Ann"}).status_code == 403
        assert acme.post(PRESSES, {"value": value, "author": "Boss"}).status_code == 200

    @pytest.mark.parametrize("path", ["web/lobby", "webhook/desk", "whatsapp/desk"])
    @pytest.mark.parametrize(
        "author",
        [
            *(
                "token:test",
                "token:finance",
                "Token:finance",
                "ｔｏｋｅｎ:finance",
                "tok\u200ben:finance",
                " token : finance",
            ),
            *("user:jane", "system:time-out", "agent", "Agent ", "agent:x", "person:U0BOSS", "app:finance"),
        ],
    )
    def test_nobody_speaks_or_presses_under_the_name_of_an_app_a_user_or_the_agent(self, acme, author, path):
        platform, code = path.split("/")
        Channel.objects.get_or_create(org_id="acme", platform=platform, code=code)
        job = rows.parked(platform=platform, channel_code=code)
        approval = rows.approval(job, approvers=["token:test", "token:finance"])
        at = f"/services/channels/{path}"
        answers = [
            acme.post(f"{at}/presses", {"value": f"approve:{approval.pk}", "author": author}),
            acme.post(f"{at}/messages", {"text": "Hi", "author": author}),
            acme.post(f"/services/agent-jobs/{approval.job_id}/messages", {"text": "Hi", "author": author}),
        ]

        assert [(found.status_code, factories.fields_of(found)) for found in answers] == [(400, ["author"])] * 3
        approval.refresh_from_db()
        assert approval.status == "pending"

    @pytest.mark.parametrize("approver", ["token:test", "token:finance", "user:jane", "U0BOSS", "Ben"])
    def test_no_author_of_a_chat_is_an_app_a_user_or_a_member_of_slack(self, acme, approver):
        approval = self.asked(approvers=[approver])
        names = ["test", "finance", "jane", "U0BOSS", "u0boss", "Ann", "ben"]
        refused = {
            acme.post(PRESSES, {"value": f"approve:{approval.pk}", "author": name}).json()["code"] for name in names
        }

        assert refused == {"not_an_approver"}
        approval.refresh_from_db()
        assert approval.status == "pending"


class TestTooLongToBeShown:
    """A press approves what its question shows. What has no room there is read and approved by API."""

    TOOL = Declared("pay", "http", "Pays.", {})

    def asked(self, **columns):
        note = {"a_note": "harmless " * 1_000, "amount": 999_999}
        question = question_text.worded(self.TOOL, note, address="/here")
        return rows.approval(rows.parked(), buttons=True, arguments=note, question=question, **columns)

    def test_it_is_denied_by_a_press_and_approved_by_api_alone(self, acme):
        approval = self.asked()
        at = f"/services/agent-jobs/{approval.job_id}/approvals/{approval.pk}"
        refused = acme.post(PRESSES, {"value": f"approve:{approval.pk}", "author": "Ann"})
        whole = acme.get(at)
        decided = acme.post(at, {"decision": "approve"})

        assert (refused.status_code, refused.json()["code"]) == (409, "approval_by_api_only")
        assert whole.json()["data"]["arguments"] == approval.arguments
        assert decided.json()["data"]["status"] == "approved"
        other = self.asked()
        assert acme.post(PRESSES, {"value": f"deny:{other.pk}", "author": "Ann"}).status_code == 200

    def test_a_press_that_brings_the_arguments_along_has_seen_them(self, acme):
        approval = self.asked()
        body = {"value": f"approve:{approval.pk}", "author": "Ann", "arguments": {"amount": 3}}

        assert acme.post(PRESSES, body).json()["data"]["edited_arguments"] == {"amount": 3}

    @pytest.mark.django_db(transaction=True)
    def test_its_message_has_no_button_that_approves(self, acme):
        self.asked()
        deliver_all()
        (shown,) = acme.get("/services/channels/web/lobby/messages").json()["data"]

        assert [button["label"] for button in shown["buttons"]] == ["Deny"]

    @pytest.mark.parametrize("at", [NOBODYS, "x"])
    def test_one_that_is_not_there_is_a_404(self, acme, at):
        approval = self.asked()

        assert acme.get(f"/services/agent-jobs/{approval.job_id}/approvals/{at}").status_code == 404


class TestEditsInAWebChat:
    """A chat client draws a form from a button's schema, and presses the button with the form's values."""

    def asked(self, org_id="acme", **columns):
        return rows.approval(rows.parked(org_id), buttons=True, **columns)

    def press(self, client, approval, arguments, *, by="Ann", path="web/lobby", **headers):
        body = {"value": f"approve:{approval.pk}", "author": by, "arguments": arguments}
        return client.post(f"/services/channels/{path}/presses", body, **headers)

    @pytest.mark.django_db(transaction=True)
    def test_the_tool_is_called_with_what_the_press_brought_and_the_message_says_so(self, acme):
        approval = self.asked()
        deliver_all()
        pressed = self.press(acme, approval, {"amount": 3})
        deliver_all()

        assert pressed.status_code == 200, pressed.content
        shown = pressed.json()["data"]
        assert (shown["status"], shown["decided_by"]) == ("approved", "Ann")
        assert (shown["arguments"], shown["edited_arguments"]) == ({"amount": 5}, {"amount": 3})
        (now,) = acme.get("/services/channels/web/lobby/messages").json()["data"]
        assert now["text"] == "May I pay 5?\n\nApproved, with other arguments, by Ann"
        assert AuditEntry.objects.get(action="approval.approved").after["edited_arguments"] == {"amount": 3}

    def test_the_very_same_arguments_are_no_edit(self, acme):
        assert "edited_arguments" not in self.press(acme, self.asked(), {"amount": 5}).json()["data"]

    def test_true_is_not_one(self, acme):
        refused = self.press(acme, self.asked(arguments={"amount": 1}), {"amount": True})

        assert (refused.status_code, factories.fields_of(refused)) == (400, ["arguments.amount"])

    @pytest.mark.parametrize(
        ("arguments", "field"), [({"amount": "much"}, "arguments.amount"), ({}, "arguments.amount")], ids=str
    )
    def test_what_the_tool_does_not_take_is_named_as_by_api_and_decides_nothing(self, acme, arguments, field):
        approval = self.asked()
        refused = self.press(acme, approval, arguments)
        address = f"/services/agent-jobs/{approval.job_id}/approvals/{approval.pk}"
        by_api = acme.post(address, {"decision": "approve", "arguments": arguments})

        assert (refused.status_code, factories.fields_of(refused)) == (400, [field])
        assert refused.json()["errors"] == by_api.json()["errors"]
        assert self.press(acme, approval, {"amount": 3}).status_code == 200

    @pytest.mark.parametrize(
        ("columns", "status", "code"),
        [
            ({"approvers": ["Boss"]}, 403, "not_an_approver"),
            ({"status": "denied", "decided_by": "Ben"}, 409, "approval_closed"),
            ({"status": "withdrawn"}, 409, "approval_closed"),
            ({"is_late": True}, 409, "approval_closed"),
            ({"kind": "budget"}, 400, "invalid"),
        ],
        ids=str,
    )
    def test_who_may_not_or_comes_too_late_is_refused_as_without(self, acme, columns, status, code):
        approval = self.asked(**columns)
        refused = self.press(acme, approval, {"amount": 3})

        assert (refused.status_code, refused.json()["code"]) == (status, code)
        approval.refresh_from_db()
        assert approval.edited_arguments is None

    def test_a_repeated_press_is_taken_once_and_another_is_a_conflict(self, acme):
        approval = self.asked()
        pressed = [self.press(acme, approval, {"amount": 3}, Idempotency_Key="k") for _ in range(2)]

        assert [press.status_code for press in pressed] == [200, 200]
        assert self.press(acme, approval, {"amount": 4}, Idempotency_Key="k").status_code == 422
        assert self.press(acme, approval, {"amount": 4}).status_code == 409
        approval.refresh_from_db()
        assert approval.edited_arguments == {"amount": 3}

    def test_one_of_another_channel_of_a_stranger_or_of_nobody_is_a_404(self, acme, rival):
        mine, theirs = self.asked(), self.asked("rival")
        for approval, path in ((mine, "web/hall"), (mine, "webhook/lobby"), (theirs, "web/lobby")):
            refused = self.press(acme, approval, {"amount": "much"}, path=path)
            assert (refused.status_code, refused.json()["code"]) == (404, "approval_not_found")
        assert set(Approval.objects.values_list("status", flat=True)) == {"pending"}
        assert [entry.object_id for entry in AuditEntry.objects.filter(action="access.denied")] == [str(theirs.pk)]

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("columns", [{"tool": "ask_approval"}, {"kind": "budget"}], ids=str)
    def test_a_button_with_nothing_to_change_shows_nothing(self, acme, columns):
        self.asked(**columns)
        deliver_all()
        (shown,) = acme.get("/services/channels/web/lobby/messages").json()["data"]

        assert [set(button) for button in shown["buttons"]] == [{"label", "value"}] * 2

    @pytest.mark.django_db(transaction=True)
    def test_what_a_form_is_drawn_of_is_read_in_one_query_however_many_wait(self, acme, django_assert_max_num_queries):
        self.asked()
        deliver_all()
        with CaptureQueriesContext(connection) as of_one:
            acme.get("/services/channels/web/lobby/messages")
        for _ in range(4):
            self.asked()
        deliver_all()
        with django_assert_max_num_queries(len(of_one)):
            shown = acme.get("/services/channels/web/lobby/messages").json()["data"]
        assert [message["buttons"][0]["arguments"] for message in shown] == [{"amount": 5}] * 5


@pytest.mark.django_db(transaction=True)
def test_a_webhook_gets_the_buttons_and_its_transcript_here_loses_them(acme):
    with FakeReceiver() as receiver:
        directory.register_channel("acme", platform="webhook", code="crm", address=receiver.address)
        approval = rows.approval(rows.parked(platform="webhook", channel_code="crm"), buttons=True)
        deliver_all()
        shown = [{"label": word.title(), "value": f"{word}:{approval.pk}"} for word in ("approve", "deny")]
        assert json.loads(receiver.received[0].body)["data"]["buttons"] == shown
        messages = "/services/channels/webhook/crm/messages"
        kept = [{**shown[0], **EDITABLE}, shown[1]]
        assert [message["buttons"] for message in acme.get(messages).json()["data"]] == [kept]

        pressed = acme.post("/services/channels/webhook/crm/presses", {"value": shown[1]["value"], "author": "Ann"})
        deliver_all()

        assert (pressed.status_code, pressed.json()["data"]["status"]) == (200, "denied")
        (message,) = acme.get(messages).json()["data"]
        assert "buttons" not in message
        assert len(receiver.received) == 1
