"""The guard for clients that are not ours: judges at each connection, pins to what was judged, bounds the answers."""

import asyncio
import json
import socket
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from infra.egress import addresses, async_client
from infra.egress.addresses import Rules
from tests.fakes.openai import FakeOpenAI, completion
from tests.infra.hostile_addresses import HOSTILE
from tests.waiting import PATIENCE

PUBLIC = "93.184.216.34"
GUARDED, DEVELOPMENT = Rules(), Rules(allow_private=True)


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(lambda request: completion("Hello")) as fake:
        yield fake


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """The addresses of each name, one answer for each look-up."""
    answers: dict[str, list[list[str]]] = {}
    original = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        host = host.decode() if isinstance(host, bytes) else host
        if host not in answers:
            return original(host, *args, **kwargs)
        found = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        return [(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return answers


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def post(url: str, rules: Rules = DEVELOPMENT, *, times: int = 1, **options: Any) -> Any:
    async with async_client.client(rules, max_bytes=options.pop("max_bytes", 10_000)) as client:
        for _ in range(times):
            response = await client.post(url, json={}, timeout=60, **options)
        return response


def failure_of(url: str, rules: Rules = GUARDED, **options: Any) -> BaseException:
    with pytest.raises(async_client.FAILURES) as failure:
        run(post(url, rules, **options))
    return failure.value


@pytest.mark.parametrize("url", HOSTILE)
def test_a_private_address_is_refused(names: dict[str, list[list[str]]], url: str) -> None:
    names |= {"inside.example": [["10.1.2.3"]], "mixed.example": [[PUBLIC, "10.1.2.3"]]}
    names |= {"mapped.example": [["::ffff:10.1.2.3"]]}
    error = failure_of(url)
    # Some of these are no addresses at all to the client itself.
    assert async_client.refused(error) is not None or type(error).__name__ == "InvalidURL"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://user:password@example.com/",
        "https://example.com:22/",
        "https://example.com:80/",
        f"https://example.com/{'x' * 2_000}",
    ],
)
def test_a_misshapen_address_is_refused(url: str) -> None:
    assert async_client.refused(failure_of(url)) is not None


def test_a_name_is_looked_up_once_and_the_connection_made_to_what_was_judged(
    server: FakeOpenAI, names: dict[str, list[list[str]]]
) -> None:
    """A name that changes between the judgement and the connection would be looked up twice: the second leads away."""
    port = server.base_url.rsplit(":", 1)[1].removesuffix("/v1")
    names["rebound.example"] = [["127.0.0.1"], [PUBLIC]]
    assert run(post(f"http://rebound.example:{port}/v1")).status_code == 200
    assert server.headers[0]["host"] == f"rebound.example:{port}"
    assert names["rebound.example"] == [[PUBLIC]]


def test_a_name_that_led_outside_when_it_was_saved_is_judged_again(
    server: FakeOpenAI, names: dict[str, list[list[str]]]
) -> None:
    port = int(server.base_url.rsplit(":", 1)[1].removesuffix("/v1"))
    names["rebound.example"] = [["127.0.0.1"]]
    error = failure_of(f"https://rebound.example:{port}/v1", Rules(ports=(port,)))
    assert async_client.refused(error) == addresses.PRIVATE
    assert server.requests == []


def test_a_connection_is_kept_for_the_next_request(server: FakeOpenAI, names: dict[str, list[list[str]]]) -> None:
    port = server.base_url.rsplit(":", 1)[1].removesuffix("/v1")
    names["once.example"] = [["127.0.0.1"], [PUBLIC]]
    assert run(post(f"http://once.example:{port}/v1", times=3)).status_code == 200
    assert len(server.requests) == 3


def test_the_next_address_of_a_name_is_tried(server: FakeOpenAI, names: dict[str, list[list[str]]]) -> None:
    port = server.base_url.rsplit(":", 1)[1].removesuffix("/v1")
    names["two.example"] = [["127.0.0.2", "127.0.0.1"]]  # the fake listens on the second alone
    assert run(post(f"http://two.example:{port}/v1")).status_code == 200


def test_an_answer_is_bounded(server: FakeOpenAI) -> None:
    size = len(json.dumps(completion("Hello").body.decode()))
    assert run(post(server.base_url, max_bytes=size)).status_code == 200
    assert async_client.unfit(failure_of(server.base_url, DEVELOPMENT, max_bytes=100)) == "is longer than 100 bytes"


def test_proxies_and_passwords_of_the_environment_are_not_used(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password canary\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert run(post(server.base_url)).status_code == 200
    assert "authorization" not in server.headers[0]


def test_a_cookie_is_neither_kept_nor_sent(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        server,
        "answer",
        lambda request: replace(completion("Hello"), headers={"Set-Cookie": "tenant=acme; Path=/"}),
    )
    run(post(server.base_url, times=3))

    assert [name for headers in server.headers for name in headers if name.lower() == "cookie"] == []
    assert len(server.headers) == 3


def test_who_asks_is_known_in_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: quiet.wait(PATIENCE) and [])
    monkeypatch.setattr(async_client, "CONNECT_SECONDS", 0.05)

    def failed(host: str) -> str:
        work = post(f"https://{host}.example/", GUARDED)
        with pytest.raises(async_client.FAILURES) as failure:
            asyncio.run_coroutine_threadsafe(work, async_client.loop()).result(PATIENCE)
        return str(failure.value)

    try:
        with addresses.asking_for("rival"):
            told = [failed(f"n{number}") for number in range(10)]
        with addresses.asking_for("acme"):
            told.append(failed("ours"))
    finally:
        quiet.set()
    most = addresses.MOST_LOOK_UPS_OF_ONE
    assert ["too many" in each for each in told] == [False] * most + [True] * (10 - most) + [False]


def test_a_name_server_that_keeps_quiet_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: quiet.wait(PATIENCE) and [])
    monkeypatch.setattr(async_client, "CONNECT_SECONDS", 0.1)
    error = failure_of("https://quiet.example/")
    quiet.set()
    assert "DNS look-up took too long" in str(error)
    assert async_client.refused(error) is None  # worth another try
