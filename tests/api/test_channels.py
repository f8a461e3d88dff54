"""Channels, Slack installations and the messages of web chats, through the API."""

import time
from uuid import UUID

import pytest
from django.db.models.functions import Now

from agent_jobs.api import streams
from agent_jobs.models import AppToken, IdempotencyKey
from agent_jobs.states import JobStatus
from agent_jobs.tenants import row_limits
from channels_integration import web_messages
from channels_integration.models import Channel, Installation
from tests import factories, rows

CHANNELS = "/services/channels"
LOBBY = f"{CHANNELS}/web/lobby/messages"
INSTALLATIONS = f"{CHANNELS}/slack/installations"
WEBHOOK = {"platform": "webhook", "code": "crm", "name": "CRM", "address": "https://hooks.example.com/in"}
SLACK = {"team_id": "T1", "bot_token": "xoxb-canary-1", "signing_secret": "canary-secret-2", "name": "Acme"}


def say(api, text="hello", author="Ann", **fields):
    response = api.post(LOBBY, {"text": text, "author": author} | fields)
    assert response.status_code == 201, response.content
    return response.json()["data"]


def texts(response):
    assert response.status_code == 200, response.content
    return [message["text"] for message in response.json()["data"]]


@pytest.mark.django_db
class TestMessages:
    def test_a_message_of_a_person_has_the_promised_shape(self, acme):
        said = say(acme, "hello", "Ann")

        assert set(said) == {"id", "channel_code", "direction", "author", "text", "created_at"}
        assert (said["channel_code"], said["direction"], said["author"], said["text"]) == (
            "lobby",
            "in",
            "Ann",
            "hello",
        )
        assert said["created_at"].endswith("Z")
        assert acme.get(LOBBY).json()["data"] == [said]

    def test_messages_come_oldest_first_and_after_one_seen(self, acme):
        ids = [say(acme, str(number))["id"] for number in range(5)]

        assert texts(acme.get(LOBBY)) == ["0", "1", "2", "3", "4"]
        assert texts(acme.get(f"{LOBBY}?limit=2")) == ["0", "1"]
        assert texts(acme.get(f"{LOBBY}?after={ids[1]}")) == ["2", "3", "4"]
        assert texts(acme.get(f"{LOBBY}?after={ids[1]}&limit=1")) == ["2"]
        assert texts(acme.get(f"{LOBBY}?after={ids[4]}")) == []
        assert acme.get(f"{LOBBY}?limit=2").json()["meta"] == {"org_id": "acme", "count": 2, "limit": 2}

    def test_a_channel_where_nobody_has_spoken_is_empty(self, acme):
        assert texts(acme.get(LOBBY)) == []

    def test_a_reply_may_name_its_job(self, acme):
        job = rows.job(JobStatus.RUNNING)

        assert say(acme, job_id=str(job.pk))["job_id"] == str(job.pk)

    @pytest.mark.parametrize("org_id", ["rival", None])
    def test_a_reply_to_a_job_that_is_not_ours_is_a_404(self, acme, org_id):
        job_id = str(rows.job(org_id=org_id).pk) if org_id else "01930000-0000-7000-8000-000000000000"

        response = acme.post(LOBBY, {"text": "x", "author": "Ann", "job_id": job_id})

        assert (response.status_code, response.json()["code"]) == (404, "job_not_found")
        assert texts(acme.get(LOBBY)) == []

    def test_a_bridge_for_a_whole_platform_takes_jobs_and_replies_of_any_code(self, acme):
        bridge = {"platform": "whatsapp", "code": "*", "address": "https://hooks.example.com/in"}
        number = f"{CHANNELS}/whatsapp/+4930123/messages"
        target = {"org_id": "acme", "platform": "whatsapp", "code": "+4930123"}
        rows.job_type()
        assert acme.post(number, {"text": "Hi", "author": "Ann"}).status_code == 404

        assert factories.api("acme", "SERVICES:ADMIN").post(CHANNELS, bridge).status_code == 201

        assert acme.post("/services/agent-jobs", factories.job_request(target_channel=target)).status_code == 201
        assert acme.post(number, {"text": "Hi", "author": "Ann"}).status_code == 201
        assert texts(acme.get(number)) == ["Hi"]
        refused = acme.post("/services/agent-jobs", factories.job_request(target_channel=target | {"code": "*"}))
        assert factories.fields_of(refused) == ["target_channel.code"]
        assert acme.post(f"{CHANNELS}/whatsapp/*/messages", {"text": "Hi", "author": "Ann"}).status_code == 404

    def test_a_stranger_with_the_same_channel_sees_none_of_it(self, acme, rival):
        mine = say(acme, "canary")

        assert texts(rival.get(LOBBY)) == []
        assert "canary" not in rival.get(f"{LOBBY}?after={mine['id']}").content.decode()

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "text"),
            ({"text": "", "author": "A"}, "text"),
            ({"text": " ", "author": "A"}, "text"),
            ({"text": 5, "author": "A"}, "text"),
            ({"text": "x" * 40_001, "author": "A"}, "text"),
            ({"text": "x", "author": ""}, "author"),
            ({"text": "x"}, "author"),
            ({"text": "x", "author": "x" * 256}, "author"),
            ({"text": "x", "author": "A", "job_id": 5}, "job_id"),
            ({"text": "x", "author": "A", "direction": "out"}, "direction"),
        ],
        ids=str,
    )
    def test_a_bad_message_is_named_and_not_stored(self, acme, body, field):
        response = acme.post(LOBBY, body)

        assert response.status_code == 400
        assert field in factories.fields_of(response)
        assert texts(acme.get(LOBBY)) == []

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=101", "wait=31", "wait=-1", "wait=1.5", "after=x", "after=1", "before=x", "limit="]
    )
    def test_a_bad_parameter_is_named(self, acme, query):
        response = acme.get(f"{LOBBY}?{query}")

        assert response.status_code == 400
        assert factories.fields_of(response) == [query.partition("=")[0]]

    def test_reading_is_for_readers_and_speaking_for_writers(self, acme, reader):
        assert reader.get(LOBBY).status_code == 200
        assert reader.post(LOBBY, {"text": "x", "author": "A"}).status_code == 403

    def test_a_platform_without_a_transcript_is_a_404(self, acme):
        for path in ("pigeon/x", "slack/C1", "webhook/unregistered"):
            assert acme.get(f"{CHANNELS}/{path}/messages").status_code == 404
            assert acme.post(f"{CHANNELS}/{path}/messages", {"text": "x", "author": "A"}).status_code == 404

    @pytest.mark.parametrize("code", ["%00", "x" * 256, "%0A", "%20", "a%00b", "a%E2%80%AEb"])
    def test_a_code_that_cannot_be_is_a_404(self, acme, code):
        response = acme.post(f"{CHANNELS}/web/{code}/messages", {"text": "x", "author": "A"})

        assert response.status_code == 404
        assert acme.get(f"{CHANNELS}/web/{code}/messages").status_code == 404

    def test_a_name_that_cannot_be_is_a_404(self, acme, admin):
        for path in ("web/%00/messages", "%00/x/messages"):
            assert acme.get(f"{CHANNELS}/{path}").status_code == 404
        assert admin.delete(f"{CHANNELS}/web/%00").status_code == 404
        assert admin.delete(f"{INSTALLATIONS}/%00").status_code == 404

    def test_a_repeated_key_says_it_once(self, acme):
        answers = [acme.post(LOBBY, {"text": "x", "author": "A"}, Idempotency_Key="k") for _ in range(2)]

        assert answers[0].content == answers[1].content
        assert texts(acme.get(LOBBY)) == ["x"]

    def test_waiting_ends_when_the_time_is_over(self, acme):
        begun = time.monotonic()

        assert texts(acme.get(f"{LOBBY}?wait=1")) == []
        assert 0.9 < time.monotonic() - begun < 20

    def test_nobody_waits_for_what_is_there(self, acme):
        say(acme, "x")
        begun = time.monotonic()

        assert texts(acme.get(f"{LOBBY}?wait=30")) == ["x"]
        assert time.monotonic() - begun < 20

    def test_only_so_many_wait_at_once(self, acme, settings):
        settings.STREAMS_PER_ORG = 0
        refused = acme.get(f"{LOBBY}?wait=30")

        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert acme.get(LOBBY).status_code == 200

    def test_a_wait_is_for_a_later_message_of_this_very_channel(self, acme, rival):
        first = say(acme, "x")["id"]
        acme.post(f"{CHANNELS}/web/other/messages", {"text": "x", "author": "A"})
        say(rival, "y")
        readers = {
            (org_id, after): web_messages.Reader(org_id, "web", "lobby", after)
            for org_id in ("acme", "rival", "nobody")
            for after in (None, UUID(first), UUID(int=0))
        }

        with_news = web_messages.with_news(readers.values())

        assert {key for key, reader in readers.items() if reader not in with_news} == {
            ("acme", UUID(first)),
            *(("nobody", after) for after in (None, UUID(first), UUID(int=0))),
        }


@pytest.mark.django_db(transaction=True)
class TestWhileItWaits:
    @pytest.fixture
    def meanwhile(self, monkeypatch):
        """Runs an action after the first look has found nothing."""
        look, changes = streams.look, []

        def then_change(opened):
            found = look(opened)
            while changes:
                changes.pop()()
            return found

        monkeypatch.setattr(streams, "look", then_change)
        return changes.append

    def test_a_message_ends_the_waiting_at_once(self, meanwhile):
        api = factories.Api(factories.token())
        last = say(api, "before")["id"]
        meanwhile(lambda: say(api, "after"))
        begun = time.monotonic()

        assert texts(api.get(f"{LOBBY}?after={last}&wait=30")) == ["after"]
        assert time.monotonic() - begun < 20

    def test_a_token_that_is_revoked_meanwhile_is_told_nothing(self, meanwhile):
        api, other = factories.Api(factories.token()), factories.Api(factories.token())
        revoked = AppToken.objects.order_by("id").first()
        meanwhile(lambda: AppToken.objects.filter(pk=revoked.pk).update(revoked_at=Now()))
        meanwhile(lambda: say(other, "secret"))

        answer = api.get(f"{LOBBY}?wait=30")

        assert answer.status_code == 401
        assert b"secret" not in answer.content


@pytest.mark.django_db
class TestRegistered:
    def test_a_webhook_is_registered_listed_and_unregistered(self, admin):
        made = admin.post(CHANNELS, WEBHOOK)

        assert made.status_code == 201, made.content
        shown = made.json()["data"]
        assert shown.items() >= {"org_id": "acme", **WEBHOOK}.items()
        listed = [channel for channel in admin.get(CHANNELS).json()["data"] if channel["platform"] == "webhook"]
        assert [channel["code"] for channel in listed] == ["crm"]
        assert admin.delete(f"{CHANNELS}/webhook/crm").status_code == 200
        assert admin.delete(f"{CHANNELS}/webhook/crm").status_code == 404

    def test_a_secret_that_is_made_here_is_told_once_and_kept_sealed(self, admin):
        first = admin.post(CHANNELS, WEBHOOK, Idempotency_Key="k")
        repeated = admin.post(CHANNELS, WEBHOOK, Idempotency_Key="k")
        again = admin.post(CHANNELS, WEBHOOK)

        secret = first.json()["data"]["secret"]
        assert secret.startswith("whsec_")
        for response in (repeated, again, admin.get(CHANNELS)):
            assert "secret" not in response.content.decode()
        assert secret not in str(IdempotencyKey.objects.get().answer)

    def test_a_secret_that_is_given_is_not_told(self, admin):
        given = "whsec_" + "A" * 44

        assert given not in admin.post(CHANNELS, WEBHOOK | {"secret": given}).content.decode()

    def test_a_bridge_lets_jobs_name_its_platform(self, admin):
        target = {"org_id": "acme", "platform": "whatsapp", "code": "+4912345"}
        before = admin.post("/services/agent-jobs", factories.job_request(target_channel=target))
        assert before.status_code == 400
        assert factories.fields_of(before)[0].startswith("target_channel.")

        admin.post(CHANNELS, WEBHOOK | {"platform": "whatsapp", "code": "+4912345"})

        assert admin.post("/services/agent-jobs", factories.job_request(target_channel=target)).status_code == 201

    def test_a_stranger_neither_sees_nor_removes_it(self, admin, rival_admin):
        admin.post(CHANNELS, WEBHOOK)

        assert "crm" not in rival_admin.get(CHANNELS).content.decode()
        assert rival_admin.delete(f"{CHANNELS}/webhook/crm").status_code == 404
        assert "crm" in admin.get(CHANNELS).content.decode()

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"platform": ""}, "platform"),
            ({"platform": "x" * 33}, "platform"),
            ({"code": 5}, "code"),
            ({"code": "x" * 256}, "code"),
            ({"address": "nonsense"}, "address"),
            ({"address": "ftp://example.com"}, "address"),
            ({"address": 5}, "address"),
            ({"address": ""}, "address"),
            ({"secret": "short"}, "secret"),
            ({"platform": "slack"}, "platform"),
            ({"platform": "web"}, "address"),
            ({"code": "a/b"}, "code"),
            ({"sealed_secret": "x"}, "sealed_secret"),
        ],
        ids=str,
    )
    def test_a_bad_channel_is_named(self, admin, change, field):
        response = admin.post(CHANNELS, WEBHOOK | change)

        assert response.status_code == 400, response.content
        assert factories.fields_of(response) == [field]

    def test_the_list_is_paged(self, admin):
        for code in ("c", "a", "b"):
            admin.post(CHANNELS, WEBHOOK | {"code": code})
        first = admin.get(f"{CHANNELS}?limit=2").json()
        second = admin.get(f"{CHANNELS}?limit=2&cursor={first['meta']['next_cursor']}").json()
        skipped = admin.get(f"{CHANNELS}?offset=1&sort=-code").json()

        assert [[channel["code"] for channel in page["data"]] for page in (first, second)] == [["a", "b"], ["c"]]
        assert first["meta"].items() >= {"org_id": "acme", "count": 2, "total": 3, "limit": 2, "offset": 0}.items()
        assert [channel["code"] for channel in skipped["data"]] == ["b", "a"]
        assert factories.fields_of(admin.get(f"{CHANNELS}?limit=0")) == ["limit"]

    def test_there_is_room_for_so_many(self, admin, rival_admin, monkeypatch):
        monkeypatch.setattr(row_limits, "MOST_CHANNELS", 2)
        answers = [admin.post(CHANNELS, WEBHOOK | {"code": code}) for code in ("a", "b", "c", "a")]

        assert [answer.status_code for answer in answers] == [201, 201, 409, 201]
        assert answers[2].json()["code"] == "too_many_channels"
        assert rival_admin.post(CHANNELS, WEBHOOK).status_code == 201

    def test_there_is_room_for_so_many_web_chats(self, acme, monkeypatch):
        monkeypatch.setattr(row_limits, "MOST_CHATS", 2)
        answers = [
            acme.post(f"{CHANNELS}/web/{code}/messages", {"text": "x", "author": "A"}) for code in ("a", "b", "c", "a")
        ]

        assert [answer.status_code for answer in answers] == [201, 201, 409, 201]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", CHANNELS, WEBHOOK),
        ("POST", CHANNELS, WEBHOOK | {"code": "old", "address": "https://evil.example/in"}),
        ("POST", CHANNELS, WEBHOOK | {"code": "old", "secret": "whsec_" + "A" * 44}),
        ("POST", CHANNELS, {"platform": "web", "code": "lobby"}),
        ("DELETE", f"{CHANNELS}/webhook/old", None),
        ("POST", INSTALLATIONS, SLACK | {"signing_secret": "mine-by-now"}),
        ("POST", INSTALLATIONS, SLACK | {"team_id": "T2"}),
        ("DELETE", f"{INSTALLATIONS}/T1", None),
    ],
    ids=str,
)
def test_where_messages_go_and_with_which_secrets_is_for_admins(acme, reader, admin, method, path, body):
    admin.post(CHANNELS, WEBHOOK | {"code": "old"})
    admin.post(INSTALLATIONS, SLACK)
    before = [list(model.objects.order_by("pk").values()) for model in (Channel, Installation)]
    answers = [client.send(method, path, body) for client in (reader, acme)]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "insufficient_scope")}
    assert [list(model.objects.order_by("pk").values()) for model in (Channel, Installation)] == before
    assert reader.get(CHANNELS).status_code == reader.get(INSTALLATIONS).status_code == 200


@pytest.mark.django_db
class TestInstallations:
    def test_there_is_room_for_so_many(self, admin, monkeypatch):
        monkeypatch.setattr(row_limits, "MOST_INSTALLATIONS", 2)
        answers = [admin.post(INSTALLATIONS, SLACK | {"team_id": f"T{n}"}) for n in (1, 2, 3, 1)]

        assert [answer.status_code for answer in answers] == [201, 201, 409, 201]
        assert answers[2].json()["code"] == "too_many_installations"

    def test_secrets_go_in_and_never_come_out(self, admin):
        made = admin.post(INSTALLATIONS, SLACK)

        assert made.status_code == 201, made.content
        assert made.json()["data"].items() >= {"org_id": "acme", "team_id": "T1", "name": "Acme"}.items()
        listed = admin.get(INSTALLATIONS)
        assert [installation["team_id"] for installation in listed.json()["data"]] == ["T1"]
        for response in (made, listed):
            assert "canary" not in response.content.decode()

    def test_an_installation_is_removed(self, admin):
        admin.post(INSTALLATIONS, SLACK)

        assert admin.delete(f"{INSTALLATIONS}/T1").status_code == 200
        assert admin.delete(f"{INSTALLATIONS}/T1").status_code == 404
        assert admin.get(INSTALLATIONS).json()["data"] == []

    def test_a_stranger_neither_sees_nor_removes_it(self, admin, rival_admin):
        admin.post(INSTALLATIONS, SLACK)

        assert rival_admin.get(INSTALLATIONS).json()["data"] == []
        assert rival_admin.delete(f"{INSTALLATIONS}/T1").status_code == 404
        assert len(admin.get(INSTALLATIONS).json()["data"]) == 1

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"bot_token": 5}, "bot_token"),
            ({"signing_secret": ""}, "signing_secret"),
            ({"team_id": None}, "team_id"),
            ({"bot_token": "hello"}, "bot_token"),
        ],
    )
    def test_a_bad_installation_is_named(self, admin, change, field):
        response = admin.post(INSTALLATIONS, SLACK | change)

        assert response.status_code == 400
        assert factories.fields_of(response) == [field]
        assert admin.get(INSTALLATIONS).json()["data"] == []

    def test_a_job_for_slack_needs_an_installation(self, admin):
        target = {"org_id": "acme", "platform": "slack", "code": "C1"}
        before = admin.post("/services/agent-jobs", factories.job_request(target_channel=target))

        admin.post(INSTALLATIONS, SLACK)

        assert before.status_code == 400
        assert admin.post("/services/agent-jobs", factories.job_request(target_channel=target)).status_code == 201
