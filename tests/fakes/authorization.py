"""An OAuth authorization server that gives out tokens for client credentials, and misbehaves on demand.

It takes what RFC 6749 (2.3.1, 4.4) and RFC 8414 say, and refuses everything else with their errors.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.fakes.loopback import LoopbackFake, LoopbackHandler

METADATA = "/.well-known/oauth-authorization-server"


class FakeAuthorization(LoopbackFake):
    """`granted` are the tokens that it gave out, `asked` the forms of token requests, each with its `authorization`."""

    def __init__(self, client_id: str, client_secret: str, *, host: str = "127.0.0.1") -> None:
        self.client_id, self.client_secret = client_id, client_secret
        self.granted: list[str] = []
        self.asked: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.metadata: dict[str, Any] = {}  # stands in for the usual fields
        self.refusals: list[tuple[int, Mapping[str, Any]]] = []  # the next answers of the token endpoint
        self.expires_in: int | None = 3_600
        super().__init__()
        self.issuer = f"http://{host}:{self._server.server_port}"

    def described(self) -> dict[str, Any]:
        usual = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "response_types_supported": ["code"],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }
        return {**usual, **self.metadata}

    def token(self, form: dict[str, str]) -> tuple[int, Mapping[str, Any]]:
        self.asked.append(form)
        if self.refusals:
            return self.refusals.pop(0)
        if form.get("grant_type") != "client_credentials":
            return 400, {"error": "unsupported_grant_type"}
        methods = self.described()["token_endpoint_auth_methods_supported"]
        is_basic = form["authorization"].startswith("Basic ")
        if ("client_secret_basic" if is_basic else "client_secret_post") not in methods:
            return 401, {"error": "invalid_client"}
        given = (form.get("client_id", ""), form.get("client_secret", ""))
        if is_basic:
            name, _, secret = base64.b64decode(form["authorization"].removeprefix("Basic ")).decode().partition(":")
            given = (unquote(name), unquote(secret))
        if given != (self.client_id, self.client_secret):
            return 401, {"error": "invalid_client", "error_description": f"not {given[1]}"}
        self.granted.append(f"t0ken-{len(self.granted) + 1}-of-{self.client_id}")
        life = {} if self.expires_in is None else {"expires_in": self.expires_in}
        return 200, {"access_token": self.granted[-1], "token_type": "Bearer", **life}

    def _handler(self) -> type[LoopbackHandler]:
        fake = self

        class Handler(LoopbackHandler):
            def do_GET(self) -> None:
                fake.paths.append(self.path)
                self._send(*((200, fake.described()) if self.path == METADATA else (404, {})))

            def do_POST(self) -> None:
                fake.paths.append(self.path)
                given = parse_qs(self.read().decode(), strict_parsing=True)
                form = {name: values[0] for name, values in given.items()}
                self._send(*fake.token({**form, "authorization": self.headers.get("Authorization", "")}))

            def _send(self, status: int, said: Mapping[str, Any]) -> None:
                self.send(status, json.dumps(said).encode())

        return Handler
