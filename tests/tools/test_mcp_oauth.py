"""MCP servers that need a token: how one is had by client credentials, kept, renewed, and who never gets the secret."""

import pytest
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer

from agent_jobs import tools
from agent_jobs.errors import PermanentError, RetryableError, RunError
from agent_jobs.tools import mcp_tool, tool_secrets
from tests import rows
from tests.fakes.authorization import METADATA, FakeAuthorization
from tests.fakes.mcp import FakeMcp, says
from tests.tools.official_server import listening, serving

pytestmark = pytest.mark.django_db
CLIENT, SECRET = "agent-jobs", "c1ient/s3cret+odd="


@pytest.fixture(autouse=True)
def acme():
    mcp_tool.forget()
    rows.org("acme")
    tool_secrets.store("acme", "tickets", SECRET, hosts=["127.0.0.1"], actor=rows.TESTER)


@pytest.fixture
def authorization():
    with FakeAuthorization(CLIENT, SECRET) as server:
        yield server


@pytest.fixture
def fake(authorization):
    """A server that takes the tokens of `authorization` as long as they stand in `tokens`."""
    with FakeMcp() as server:
        server.authorized_by = [authorization.issuer]
        server.tokens = Granted(authorization)
        yield server


class Granted(set):
    """The tokens of an authorization server, without those that were taken back."""

    def __init__(self, authorization):
        super().__init__()
        self.authorization, self.taken_back = authorization, set()
        self.uses = 1_000

    def __contains__(self, token):
        self.uses -= 1
        return self.uses >= 0 and token in self.authorization.granted and token not in self.taken_back


def declared(fake, authorization, *, url="", **oauth):
    credentials = {"issuer": authorization.issuer, "client_id": CLIENT, "client_secret": "{secret:tickets}", **oauth}
    return {"type": "mcp", "name": "crm", "url": url or fake.url, "timeout_seconds": 30, "oauth": credentials}


def find(stated, org_id="acme"):
    assert tools.check([stated]) == []
    return tools.offered(org_id, [stated], allowed=None)[0]


def call(tool, org_id="acme"):
    return tools.call(org_id, tool, {"id": "7"}, key="step-1")


def bearers(fake):
    return [headers.get("authorization", "") for _, _, headers in fake.requests]


def refusal(stated):
    with pytest.raises(RunError) as error:
        find(stated)
    assert SECRET not in error.value.message
    return error.value


def test_a_token_is_had_by_the_standard_metadata_and_kept_for_the_next_calls(fake, authorization):
    tool = find(declared(fake, authorization))
    answers = [call(tool).text for _ in range(3)]

    assert answers == ['find {"id": "7"}'] * 3
    assert authorization.paths == [METADATA, "/token"]
    assert set(bearers(fake)) == {"", f"Bearer {authorization.granted[0]}"}
    assert bearers(fake).count("") == 1
    (asked,) = authorization.asked
    assert asked["resource"] == fake.url
    assert SECRET not in str(fake.requests)


def test_a_token_that_the_server_takes_no_longer_is_renewed_within_the_call(fake, authorization):
    tool = find(declared(fake, authorization))
    fake.tokens.taken_back.add(authorization.granted[0])

    assert call(tool).text == 'find {"id": "7"}'
    assert len(authorization.granted) == 2
    assert call(tool).text == 'find {"id": "7"}'
    assert len(authorization.granted) == 2


def test_a_token_is_not_used_until_the_last_second_of_its_life(fake, authorization):
    authorization.expires_in = 20
    tool = find(declared(fake, authorization))
    call(tool)

    assert len(authorization.granted) == 2


def test_another_organisation_and_another_secret_have_tokens_of_their_own(fake, authorization):
    find(declared(fake, authorization))
    rows.org("rival")
    tool_secrets.store("rival", "tickets", SECRET, hosts=["127.0.0.1"], actor=rows.TESTER)
    find(declared(fake, authorization), "rival")
    assert len(authorization.granted) == 2

    authorization.client_secret = "an0ther-secret"
    tool_secrets.store("acme", "tickets", "an0ther-secret", hosts=["127.0.0.1"], actor=rows.TESTER)
    call(find(declared(fake, authorization)))
    assert len(authorization.granted) == 3


def test_the_client_says_its_secret_in_the_way_that_the_server_supports(fake, authorization):
    authorization.metadata = {"token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_post"]}

    assert call(find(declared(fake, authorization))).text == 'find {"id": "7"}'
    assert (authorization.asked[0]["client_secret"], authorization.asked[0]["authorization"]) == (SECRET, "")


def test_a_stated_scope_is_asked_for_instead_of_the_servers(fake, authorization):
    authorization.metadata = {"scopes_supported": ["everything"]}
    find(declared(fake, authorization, scope="tools.read"))
    mcp_tool.forget()
    find(declared(fake, authorization))

    assert [form["scope"] for form in authorization.asked] == ["tools.read", "everything"]


def test_the_secret_is_sent_to_no_token_endpoint_outside_its_hosts(fake, authorization):
    with FakeAuthorization(CLIENT, SECRET, host="localhost") as thief:
        authorization.metadata = {"token_endpoint": f"{thief.issuer}/token"}
        error = refusal(declared(fake, authorization))

        assert (type(error), error.code) == (PermanentError, "tool_secret_refused")
        assert "would send its client secret to localhost" in error.message
        assert thief.paths == []
    assert authorization.asked == []


def test_a_token_is_sent_to_no_server_outside_the_secrets_hosts(fake, authorization):
    """Else a declaration would turn the secret into a token for a server of its choice."""
    stated = declared(fake, authorization, url=fake.url.replace("127.0.0.1", "localhost"))
    error = refusal(stated)

    assert (type(error), error.code) == (PermanentError, "tool_secret_refused")
    assert (fake.requests, authorization.paths) == ([], [])
    (complaint,) = tool_secrets.complaints("acme", [stated])
    assert (complaint.field, complaint.code) == ("tools.0.oauth", "secret_not_for_host")
    assert tool_secrets.complaints("acme", [declared(fake, authorization)]) == []


def test_a_server_that_names_another_issuer_gets_no_token(fake, authorization):
    with FakeAuthorization(CLIENT, SECRET) as thief:
        fake.authorized_by = [thief.issuer]
        error = refusal(declared(fake, authorization))

        assert (type(error), error.code) == (RetryableError, "tool_server_invalid")
        assert thief.asked == []


@pytest.mark.parametrize(
    ("refused", "kind", "code", "words"),
    [
        ((401, {"error": "invalid_client", "error_description": SECRET}), PermanentError, "tool_server_refused",
         "the authorization server of the tool server crm answered 401 (invalid_client)"),
        ((400, {"error": f"no {SECRET}"}), PermanentError, "tool_server_refused", "answered 400"),
        ((503, {}), RetryableError, "tool_server_unavailable", "answered 503"),
        ((200, {"token_type": "Bearer"}), RetryableError, "tool_server_invalid", "gives no way to a token"),
    ],
)  # fmt: skip
def test_a_refusal_of_the_authorization_server_is_told_as_its_own(fake, authorization, refused, kind, code, words):
    authorization.refusals = [refused]
    error = refusal(declared(fake, authorization))

    assert (type(error), error.code) == (kind, code)
    assert words in error.message
    assert fake.asked("tools/list") == []


def test_an_authorization_server_that_is_away_is_told_as_its_own(fake, authorization):
    stated = declared(fake, authorization)
    authorization.__exit__()
    error = refusal(stated)

    assert (type(error), error.code) == (RetryableError, "tool_server_unreachable")
    assert "the authorization server 127.0.0.1 of crm was not reached" in error.message


@pytest.mark.parametrize(("uses", "asked"), [(0, 0), (2, 1)], ids=["of the session", "of the call itself"])
def test_a_call_for_which_no_token_is_had_surely_did_nothing(fake, authorization, uses, asked):
    tool = find(declared(fake, authorization))
    fake.tokens.uses = uses
    authorization.refusals = [(503, {})]
    with pytest.raises(RetryableError, match="answered 503"):
        call(tool)

    assert len(fake.asked("tools/call")) == asked
    fake.tokens.uses = 1_000
    assert call(tool).text == 'find {"id": "7"}'


def test_a_server_that_takes_no_token_of_its_own_authorization_server_is_refused(fake, authorization):
    fake.tokens = set()
    error = refusal(declared(fake, authorization))

    assert (type(error), error.code) == (PermanentError, "tool_server_refused")
    assert "answered 401" in error.message


def test_answers_repeat_neither_token_nor_secret(fake, authorization, caplog):
    caplog.set_level("DEBUG")
    tool = find(declared(fake, authorization))
    fake.calls = lambda params: says(f"{authorization.granted[0]} {SECRET}")

    assert call(tool).text == "****** ******"
    assert "s3cret" not in caplog.text
    assert authorization.granted[0] not in caplog.text


def test_a_missing_secret_is_told_before_anything_is_sent(fake, authorization):
    error = refusal(declared(fake, authorization, client_secret="{secret:other}"))

    assert error.code == "tool_secret_missing"
    assert (fake.requests, authorization.paths) == ([], [])


def test_the_official_server_takes_the_token(authorization):
    class Verifier:
        async def verify_token(self, token):
            if token not in authorization.granted:
                return None
            resource = authorization.asked[authorization.granted.index(token)]["resource"]
            return AccessToken(token=token, client_id=CLIENT, scopes=["tools.call"], resource=resource)

    bound, url = listening()
    named = {"issuer_url": authorization.issuer, "resource_server_url": f"{url}/mcp", "required_scopes": ["tools.call"]}
    named |= {"validate_token_resource": True}
    official = MCPServer("official", token_verifier=Verifier(), auth=AuthSettings(**named))

    @official.tool()
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    with serving(official.streamable_http_app(), bound):
        (tool,) = tools.offered("acme", [declared(None, authorization, url=f"{url}/mcp")], allowed=None)
        assert tools.call("acme", tool, {"a": 2, "b": 3}, key="step-1").text == "5"
    assert [form["scope"] for form in authorization.asked] == ["tools.call"]


@pytest.mark.parametrize(
    "odd",
    [
        {"issuer": "http://user@auth.example.com"},
        {"issuer": "https://auth.example.com/?a=1"},
        {"issuer": 5},
        {"client_secret": "literal"},
        {"client_secret": "Bearer {secret:tickets}"},
        {"client_secret": "{secret:}"},
        {"client_id": ""},
        {"client_id": None},
        {"scope": ["a"]},
        {"token_url": "https://auth.example.com/token"},
    ],
    ids=str,
)
def test_a_declaration_that_does_not_hold_is_refused(odd):
    oauth = {"issuer": "https://auth.example.com", "client_id": "a", "client_secret": "{secret:tickets}", **odd}
    stated = {"type": "mcp", "name": "crm", "url": "https://mcp.example.com/mcp", "oauth": oauth}

    assert [error.field for error in tools.check([stated])] == ["tools.0.oauth"]


def test_a_header_of_the_same_purpose_may_not_stand_beside_it():
    oauth = {"issuer": "https://auth.example.com", "client_id": "a", "client_secret": "{secret:tickets}"}
    stated = {"type": "mcp", "name": "crm", "url": "https://mcp.example.com/mcp", "oauth": oauth}
    stated["headers"] = {"authorization": "Bearer {secret:tickets}"}

    assert [error.field for error in tools.check([stated])] == ["tools.0.oauth"]
