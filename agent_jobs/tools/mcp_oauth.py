"""Access tokens of MCP servers, by OAuth client credentials (MCP's authorization, OAuth 2.1).

The official SDK finds the authorization server by the standard metadata (RFC 9728, RFC 8414) and asks it for a token.
This module bounds where the client's secret may go: only to the declared issuer, and there only to a token endpoint on
one of the secret's hosts. A token opens what the secret opens, so it goes only to servers on these hosts. All requests
pass the guarded client of the session. Tokens are cached in this process by organisation and server; the SDK fetches
another one when the server answers 401.
"""

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal

from mcp.client.auth import OAuthFlowError, TokenStorage
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from agent_jobs.errors import PermanentError, RetryableError
from agent_jobs.tools import tool_secrets
from agent_jobs.tools.declarations import SECRET, is_covered
from agent_jobs.tools.mcp_wire import IS_AUTHORIZING, Seen
from agent_jobs.tools.tool_secrets import Filled
from infra.bounded_cache import BoundedCache
from infra.egress import addresses, async_client

FAILURES = (OAuthFlowError,)
# Tokens by server.
_KEPT: BoundedCache[OAuthToken] = BoundedCache(500)
# A token without a stated life is asked for again after so long, and any token so long before its end.
_UNSTATED_SECONDS = 3_600.0
_EARLY_SECONDS = 30.0
_ERROR_CODE = re.compile(r"[a-z_]{1,64}")
_METHODS: tuple[Literal["client_secret_basic", "client_secret_post"], ...] = (
    "client_secret_basic",
    "client_secret_post",
)


def client_credentials(
    org_id: str, stated: Mapping[str, Any], filled: Filled, seen: Seen
) -> "ServerAuthorization | None":
    """The authorization of one session with a server; None if the declaration has no `oauth`.

    Raises PermanentError if the secret is missing, cannot be opened or does not allow the server's host.
    """
    if (oauth := stated.get("oauth")) is None:
        return None
    (name,) = SECRET.findall(oauth["client_secret"])
    secret, hosts = tool_secrets.opened(org_id, name, tool=stated["name"], host=addresses.host_of(stated["url"]))
    filled.mask(secret)
    mark = hashlib.sha256(secret.encode()).hexdigest()
    key = hashlib.sha256(json.dumps([org_id, stated["url"], oauth, mark], sort_keys=True).encode()).hexdigest()
    return ServerAuthorization(stated, secret, hosts, _SessionTokens(key, filled), seen)


def forget() -> None:
    """Drop the cached tokens."""
    _KEPT.clear()


class ServerAuthorization(ClientCredentialsOAuthProvider):
    """Adds a token to the requests of one session, and records in `seen` why there is none."""

    def __init__(
        self, stated: Mapping[str, Any], secret: str, hosts: tuple[str, ...], tokens: TokenStorage, seen: Seen
    ) -> None:
        oauth = stated["oauth"]
        super().__init__(stated["url"], tokens, oauth["client_id"], secret, issuer=oauth["issuer"])
        self._server, self._scope, self._hosts, self._seen = stated["name"], oauth.get("scope"), hosts, seen

    async def async_auth_flow(
        self, request: async_client.Request
    ) -> AsyncGenerator[async_client.Request, async_client.Response]:
        flow = super().async_auth_flow(request)
        try:
            outgoing = await flow.__anext__()
            while True:
                if outgoing is not request:
                    self._seen.authorizing = outgoing.url.host
                    outgoing.extensions[IS_AUTHORIZING] = True
                response = yield outgoing
                self._seen.authorizing = ""
                outgoing = await flow.asend(response)
        except StopAsyncIteration:
            return
        except OAuthFlowError as error:
            if self._seen.refusal is None:
                said = f"the tool server {self._server} gives no way to a token: {str(error)[:300]}"
                self._seen.refusal = RetryableError(said, code="tool_server_invalid")
            raise
        finally:
            await flow.aclose()

    async def _perform_authorization(self) -> async_client.Request:
        metadata, client = self.context.oauth_metadata, self.context.client_info
        supported = (metadata and metadata.token_endpoint_auth_methods_supported) or _METHODS[:1]
        if client is not None and (method := next((name for name in _METHODS if name in supported), None)):
            self.context.client_info = client.model_copy(update={"token_endpoint_auth_method": method})
        if self._scope:
            self.context.client_metadata.scope = self._scope
        asked = await super()._perform_authorization()
        if not is_covered(asked.url.host, self._hosts):
            said = f"the tool {self._server} would send its client secret to {asked.url.host}"
            said += f", which is not one of the secret's hosts: {', '.join(self._hosts) or 'none'}"
            self._seen.refusal = PermanentError(said, code="tool_secret_refused")
            raise OAuthFlowError(said)
        return asked

    async def _handle_token_response(self, response: async_client.Response) -> None:
        if response.status_code not in (200, 201):
            await response.aread()
            said = f"the authorization server of the tool server {self._server} answered {response.status_code}"
            if code := _error_code(response):
                said += f" ({code})"
            if response.status_code in (408, 425, 429) or response.status_code >= 500:
                self._seen.refusal = RetryableError(said, code="tool_server_unavailable")
            else:
                self._seen.refusal = PermanentError(said, code="tool_server_refused")
        await super()._handle_token_response(response)


def _error_code(response: async_client.Response) -> str:
    """The code of an OAuth error; other words of the server may repeat the secret."""
    try:
        code = response.json()["error"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""


class _SessionTokens:
    """The SDK's storage for one session. Answers of the server are masked, if they repeat a token."""

    def __init__(self, key: str, filled: Filled) -> None:
        self._key, self._filled = key, filled

    async def get_tokens(self) -> OAuthToken | None:
        if (token := _KEPT.get(self._key)) is not None:
            self._filled.mask(token.access_token)
        return token

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._filled.mask(tokens.access_token)
        seconds = _UNSTATED_SECONDS if tokens.expires_in is None else tokens.expires_in - _EARLY_SECONDS
        _KEPT.put(self._key, tokens, seconds=seconds)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError("this client is never registered")
