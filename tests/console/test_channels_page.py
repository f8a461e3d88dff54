import re
from datetime import UTC, datetime

import pytest
from uuid_utils.compat import uuid7

from agent_jobs.models import AuditEntry
from channels_integration import directory, web_messages
from channels_integration.models import InboundEvent, Installation, OutboundMessage
from tests import rows

PLACES = ("channels", "channels/outbox", "channels/installations")


def dead(org_id="acme", **columns):
    rows.org(org_id)
    fields = {
        "id": uuid7(),
        "org_id": org_id,
        "platform": "web",
        "code": "lobby",
        "text": "Hello Ann",
        "lane": f"{org_id}/web/lobby",
        "thread_key": "t",
        "status": "dead",
        "error_code": "channel_unreachable",
        "error_message": "nobody is there",
        **columns,
    }
    return OutboundMessage.objects.create(**fields)


def heard(team, org_id="acme"):
    at = datetime.now(UTC)
    ids = {"event_id": str(uuid7()), "lane": f"{org_id}/slack/C1", "code": "C1", "author": "U1", "text": "Hi"}
    return InboundEvent.objects.create(org_id=org_id, platform="slack", team=team, sent_at=at, **ids)


@pytest.fixture
def lobby(db):
    rows.org()
    directory.register_channel("acme", platform="web", code="lobby", name="The lobby")
    web_messages.say("acme", "web", "lobby", text="Is anybody there?", author="Ann")


def test_conversations_show_their_last_words(admin, lobby):
    html = admin.get("/console/acme/channels").content.decode()

    assert "The lobby" in html
    assert "Is anybody there?" in html


def test_an_admin_writes_in_a_web_chat(admin, lobby):
    page = "/console/acme/channels/web/lobby"

    answer = admin.post(f"{page}/say", {"text": "I am."})

    assert answer.status_code == 302
    html = admin.get(page).content.decode()
    assert "Is anybody there?" in html
    assert "I am." in html
    assert "Jane Doe" in html
    assert "Nothing was sent" in admin.get(admin.post(f"{page}/say", {"text": " "})["Location"]).content.decode()


def test_a_dead_message_says_why_and_can_be_sent_again(admin, db):
    message = dead()
    page = f"/console/acme/channels/outbox/{message.pk}/again"

    assert "nobody is there" in admin.get("/console/acme/channels/outbox").content.decode()
    assert "Send this message again?" in admin.get(page).content.decode()
    assert admin.post(page).status_code == 302

    again = OutboundMessage.objects.exclude(pk=message.pk).get()
    assert (again.text, again.owner_key, again.code) == ("Hello Ann", "", "lobby")
    assert AuditEntry.objects.get(action="message.redelivered").actor == "user:jane"


def test_only_a_dead_message_is_sent_again(admin, db):
    message = dead(status="withdrawn")

    told = admin.get(admin.post(f"/console/acme/channels/outbox/{message.pk}/again")["Location"]).content.decode()

    assert "It was not sent again" in told
    assert OutboundMessage.objects.count() == 1


@pytest.mark.parametrize("view", ["dead", "waiting", "sent", "nothing"])
def test_the_views_of_the_outbox_take_few_queries(admin, view, django_assert_max_num_queries):
    for _ in range(5):
        dead()

    with django_assert_max_num_queries(12):
        assert admin.get("/console/acme/channels/outbox", {"view": view}).status_code == 200


def test_a_slack_workspace_is_shown_and_disconnected_without_its_secrets(admin, db):
    rows.org()
    directory.install_slack("acme", team_id="T0ACME1", bot_token="xoxb-secret", signing_secret="e" * 32, name="Acme")

    html = admin.get("/console/acme/channels/installations").content.decode()
    assert "T0ACME1" in html
    assert "xoxb" not in html
    assert admin.get("/console/acme/channels/installations/T0ACME1/remove").status_code == 200
    admin.post("/console/acme/channels/installations/T0ACME1/remove")
    assert not Installation.objects.exists()


def test_a_slack_workspace_says_whether_it_is_heard_and_what_failed(admin, db, django_assert_max_num_queries):
    rows.org()
    for org_id, team in (("acme", "T0ACME1"), ("acme", "T0ACME2"), ("rival", "T0ACME1")):
        directory.install_slack(org_id, team_id=team, bot_token="xoxb-secret", signing_secret="e" * 32, name=team)

    def shown():
        with django_assert_max_num_queries(12):
            html = admin.get("/console/acme/channels/installations").content.decode()
        return dict(re.findall(r"<b>(T0\w+)</b>.*?</svg>([^<]*)</span>", html))

    assert shown() == {"T0ACME1": "Nothing heard yet", "T0ACME2": "Nothing heard yet"}
    heard("T0ACME1")
    heard("T0ACME2", org_id="rival")
    assert shown() == {"T0ACME1": "Connected", "T0ACME2": "Nothing heard yet"}
    dead("rival", platform="slack", error_code="channel_not_found")
    dead(platform="slack", details={"team_id": "T0ACME1"}, error_code="channel_not_found")
    assert shown() == {"T0ACME1": "1 failed in 24 h", "T0ACME2": "Nothing heard yet"}
    dead(platform="slack", details={"team_id": "T0ACME1"}, error_code="token_revoked")
    assert shown()["T0ACME1"] == "Slack refuses our token"


def test_a_member_reads_channels_and_may_not_act(member, lobby):
    message = dead()

    for place in (*PLACES, "channels/web/lobby"):
        assert member.get(f"/console/acme/{place}").status_code == 200
    assert member.post("/console/acme/channels/web/lobby/say", {"text": "Hi"}).status_code == 403
    assert member.post(f"/console/acme/channels/outbox/{message.pk}/again").status_code == 403
    assert OutboundMessage.objects.count() == 1


def test_channels_of_another_organisation_are_not_there(admin, stranger, lobby):
    theirs = dead("rival")
    directory.register_channel("rival", platform="web", code="den")

    assert admin.get("/console/acme/channels/web/den").status_code == 404
    assert admin.get(f"/console/acme/channels/outbox/{theirs.pk}/again").status_code == 404
    assert admin.post(f"/console/acme/channels/outbox/{theirs.pk}/again").status_code == 404
    for place in (*PLACES, "channels/web/lobby"):
        assert stranger.get(f"/console/acme/{place}").status_code == 404
