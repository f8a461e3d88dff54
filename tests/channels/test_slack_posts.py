"""The form of a message that reaches Slack, and the contents that never do."""

import pytest

from channels_integration import directory, outbox, platforms
from channels_integration.messages import Target
from channels_integration.platforms import slack as slack_platform
from tests.channels import doubles
from tests.channels.sending import deliver_all, message, post, row
from tests.fakes.slack import FakeSlack, Fault, Step

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_metadata_holds_an_opaque_id_and_nothing_else(slack):
    outgoing = post(data={"team_id": "T0ACME", "secret": "canary"}, owner_key="owner-canary")
    deliver_all()

    request = slack.posts[0].request
    assert request["metadata"] == {"event_type": "agent_jobs_message", "event_payload": {"id": str(outgoing.id)}}
    assert "canary" not in str(request)
    assert (request["unfurl_links"], request["unfurl_media"], request["link_names"]) == (False, False, False)


@pytest.mark.parametrize("text", ["<!channel> wake up", "<!here>", "<@U123>", "a & b < c > d", "<https://x|y>"])
def test_nobody_is_called_and_nothing_is_linked_by_what_an_agent_says(slack, text):
    post(text)
    deliver_all()

    sent = slack.posts[0].request["text"]
    assert "<" not in sent
    assert ">" not in sent
    assert slack.posts[0].text == text


def test_markdown_and_mentions_that_are_allowed_are_shown_as_such(slack):
    post("**Hi** <@U0ANN>, <@U0BEA>", mentions=("U0ANN",))
    deliver_all()

    assert slack.posts[0].request["text"] == "*Hi* <@U0ANN>, &lt;@U0BEA&gt;"


@pytest.mark.parametrize("error", ["thread_not_found", "message_not_found", "cannot_reply_to_message"])
def test_a_message_whose_thread_is_gone_opens_a_new_one_which_the_next_continues(slack, error):
    post("one"), deliver_all()
    slack.script(Step(Fault.NAMED, error=error))
    second = post("two")
    post("three")
    deliver_all()

    first, new, last = slack.posts
    assert (new.thread_ts, last.thread_ts) == (None, new.ts)
    assert row(second).thread == new.ts != first.ts
    assert [delivery.receipt.thread for delivery in doubles.deliveries] == [first.ts, new.ts, new.ts]


def test_a_message_to_a_gone_thread_of_unknown_outcome_is_found_at_the_top_level(slack):
    post("one"), deliver_all()
    slack.script(Step(Fault.NAMED, error="thread_not_found"), Fault.DROP_AFTER)
    slack.drop("C0ONE", slack.posts[0].ts)
    second = post("two")
    deliver_all()

    assert [posted.text for posted in slack.posts] == ["one", "two"]
    assert row(second).thread == slack.posts[1].ts


def test_a_thread_that_is_forgotten_is_opened_anew(slack):
    post("one"), deliver_all()
    outbox.forget_thread("rival", "owner")
    assert outbox.forget_thread("acme", "owner") == 1
    post("two"), deliver_all()

    assert [posted.thread_ts for posted in slack.posts] == [None, None]


def test_the_retries_that_slacks_own_library_makes_are_off(slack):
    outgoing = message()
    assert slack_platform._client(outgoing.target, None).retry_handlers == []
    slack.script("drop_before")
    with pytest.raises(Exception, match="no answer"):
        platforms.get("slack").send(outgoing, thread="", before_post=lambda: None)

    assert slack.calls("chat.postMessage") == 1


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_proxies_of_the_environment_are_not_followed(slack, monkeypatch, variable):
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    outgoing = post()
    deliver_all()

    assert row(outgoing).status == "sent"


def test_the_token_of_the_team_that_is_named_is_used(slack, settings):
    with FakeSlack(team_id="T0OTHER", bot_token="xoxb-other") as other:
        directory.install_slack("acme", team_id="T0OTHER", bot_token="xoxb-other", signing_secret="other-secret")
        settings.SLACK_API_URL = other.api_url
        post(data={"team_id": "T0OTHER"})
        deliver_all()

        assert len(other.posts) == 1


def test_a_token_is_shown_in_no_log(slack, caplog):
    caplog.set_level("DEBUG")
    slack.script("error_500", "drop_before")
    post()
    deliver_all()

    assert slack.bot_token not in caplog.text


REASONS = [
    ({"code": "C0ONE"}, None),
    ({"code": "D0ANN"}, None),
    ({"code": "C0ONE", "data": {"team_id": "T0ACME"}}, None),
    ({"code": "general"}, "target_channel.code"),
    ({"code": "#general"}, "target_channel.code"),
    ({"code": "U0ANN"}, "target_channel.code"),
    ({"code": "c0one"}, "target_channel.code"),
    ({"code": "C0ONE", "data": {"team_id": "T0NOBODY"}}, "target_channel.data.team_id"),
    ({"code": "C0ONE", "data": {"team_id": 5}}, "target_channel.data.team_id"),
    ({"code": "C0ONE", "org_id": "rival"}, "target_channel.platform"),
]


@pytest.mark.parametrize(("changes", "field"), REASONS, ids=str)
def test_a_place_that_cannot_be_reached_is_told_by_field(slack, changes, field):
    reason = directory.unreachable_reason(Target(**{"org_id": "acme", "platform": "slack", **changes}))

    assert (reason and reason[0]) == field
    assert reason is None or reason[1].split()[0] in {"is", "must", "names"}, "no predicate of the field"


def test_with_two_teams_the_team_must_be_named(slack):
    directory.install_slack("acme", team_id="T0OTHER", bot_token="xoxb-other", signing_secret="other-secret")

    assert directory.unreachable_reason(Target("acme", "slack", "C0ONE"))[0] == "target_channel.data.team_id"
    assert directory.unreachable_reason(Target("acme", "slack", "C0ONE", data={"team_id": "T0OTHER"})) is None
