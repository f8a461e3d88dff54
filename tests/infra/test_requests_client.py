"""The guard against private addresses, and the deadlines of the only client to other people's servers."""

import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

import httpcore2
import pytest

from channels_integration.platforms import slack
from infra.egress import addresses, requests_client
from tests.fakes.webhook import Reply
from tests.infra.hostile_addresses import HOSTILE
from tests.waiting import PATIENCE, wait_for

PUBLIC = "93.184.216.34"


@pytest.fixture
def guarded(settings):
    settings.ALLOW_PRIVATE_ADDRESSES = False
    settings.DELIVERY_GRACE_SECONDS = 30


@pytest.fixture
def names(monkeypatch):
    """The addresses of each name, one answer for each look-up; connections are only recorded."""
    answers, tried = {}, []

    def resolve(host, *args, **kwargs):
        host = host.decode() if isinstance(host, bytes) else host
        if host not in answers:
            return original(host, *args, **kwargs)
        found = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in ip], socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in found]

    async def connect(backend, host, *args, **kwargs):
        tried.append(host)
        raise httpcore2.ConnectError("no network in tests")

    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect)
    return answers, tried


def post(url, **changes):
    return requests_client.post(url, body=b"{}", headers={}, is_guarded=True, **changes)


@pytest.mark.parametrize("url", HOSTILE)
def test_a_private_address_is_refused_before_any_connection(guarded, names, url):
    answers, tried = names
    answers |= {"inside.example": [["10.1.2.3"]], "mixed.example": [[PUBLIC, "10.1.2.3"]]}
    answers |= {"mapped.example": [["::ffff:10.1.2.3"]]}

    with pytest.raises(requests_client.Refused):
        post(url)
    assert tried == []


@pytest.mark.parametrize("url", HOSTILE)
def test_a_door_judges_the_text_and_looks_no_name_up(guarded, monkeypatch, url):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: pytest.fail("a name is looked up"))
    is_name = urlsplit(url).hostname.endswith(".example")

    told = {None} if is_name else {addresses.PRIVATE, "is not a valid address"}
    assert requests_client.refusal(url) in told


MISSHAPEN = [
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "example.com",
    "//example.com/",
    "",
    "https://",
    "https:///path",
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://@example.com/",
    "https://example.com:22/",
    "https://example.com:80/",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://example.com:x/",
    "https://exa mple.com/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/\r\nX: y",
    "https://example.com/\x00",
    "https://example.com/#fragment",
    "https://[::1%25lo]/",
    "https://[::1/",
    "https://" + "a" * 2_000 + ".com/",
]


@pytest.mark.parametrize("url", MISSHAPEN)
def test_an_address_of_the_wrong_shape_is_refused(guarded, names, url):
    with pytest.raises(requests_client.Refused):
        post(url)
    assert names[1] == []
    assert requests_client.refusal(url) is not None


@pytest.mark.parametrize("url", ["https://public.example/x?y=1", "https://public.example:8443/", f"https://{PUBLIC}/"])
def test_a_public_address_is_let_through(guarded, names, url):
    names[0]["public.example"] = [[PUBLIC]]

    assert requests_client.refusal(url) is None
    with pytest.raises(requests_client.NotConnected):
        post(url)
    assert names[1] == [PUBLIC]


def test_a_name_is_resolved_once_and_the_address_that_was_judged_is_used(guarded, names):
    """A name that answers differently the second time gets nowhere."""
    answers, tried = names
    answers["rebinding.example"] = [[PUBLIC], ["127.0.0.1"]]

    with pytest.raises(requests_client.NotConnected):
        post("https://rebinding.example/")
    assert tried == [PUBLIC]


def test_a_port_that_is_not_https_is_refused(guarded):
    assert requests_client.refusal("https://public.example:8443/") is None
    assert requests_client.refusal("https://public.example:9443/") == "must use port 443 or 8443"


def test_a_name_server_that_keeps_quiet_holds_nobody(guarded, names, monkeypatch):
    quiet = threading.Event()

    def resolve(*args, **kwargs):
        quiet.wait(PATIENCE)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 443))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        began = time.monotonic()
        with pytest.raises(requests_client.NotConnected):
            post("https://quiet.example/")
        assert 1 < time.monotonic() - began < 30
        assert names[1] == []
    finally:
        quiet.set()


def test_quiet_name_servers_hold_only_so_many_threads(guarded, monkeypatch):
    monkeypatch.setattr(addresses, "MOST_LOOK_UPS", 1)
    monkeypatch.setattr(addresses, "_under_way", {})  # other tests' names, not these, may still be looked up
    quiet = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: quiet.wait(PATIENCE) and [])
    monkeypatch.setattr(requests_client, "CONNECT_SECONDS", 0.05)
    try:
        for host, reason in (
            ("silent.example", "DNS look-up took too long"),
            ("other.example", "too many DNS look-ups"),
        ):
            with pytest.raises(requests_client.NotConnected, match=reason):
                post(f"https://{host}/")
    finally:
        quiet.set()


def test_slow_names_of_one_organisation_stop_no_look_up_of_others(guarded, names, monkeypatch):
    quiet, begun, resolve = threading.Event(), [], socket.getaddrinfo

    def sometimes(host, *args, **kwargs):
        if not str(host).endswith(".slow.example"):
            return resolve(host, *args, **kwargs)
        begun.append(host)
        quiet.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", sometimes)
    monkeypatch.setattr(requests_client, "CONNECT_SECONDS", 0.02)
    names[0]["public.example"] = [[PUBLIC]]
    try:
        with addresses.asking_for("rival"):
            for number in range(70):
                with suppress(requests_client.NotConnected):
                    post(f"https://n{number}.slow.example/")
        monkeypatch.setattr(requests_client, "CONNECT_SECONDS", 5.0)
        for org_id in ("acme", ""):
            with addresses.asking_for(org_id), suppress(requests_client.NotConnected):
                post("https://public.example/")
    finally:
        quiet.set()

    assert len(begun) == addresses.MOST_LOOK_UPS_OF_ONE
    assert names[1] == [PUBLIC, PUBLIC]


def test_all_who_ask_for_one_name_at_once_share_a_look_up(guarded, names, monkeypatch):
    asked, go = [], threading.Event()

    def slowly(host, *args, **kwargs):
        asked.append(host)
        go.wait(PATIENCE)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 443))]

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    monkeypatch.setattr(requests_client, "CONNECT_SECONDS", 30.0)

    def ask():
        with addresses.asking_for("acme"), suppress(requests_client.NotConnected):
            post("https://busy.example/")

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_for(lambda: asked, what="the first asks")
    go.set()
    for thread in threads:
        thread.join(PATIENCE)

    assert len(names[1]) == 20
    assert len(asked) < 20


def test_the_next_address_of_a_name_is_tried(receiver, monkeypatch):
    port = urlsplit(receiver.address).port
    listed = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", _only("two.example", listed))

    assert post(f"http://two.example:{port}/").status == 200
    assert receiver.received[0].headers["host"] == f"two.example:{port}"


def _only(name, listed, original=socket.getaddrinfo):
    return lambda host, *args, **kwargs: listed if host == name else original(host, *args, **kwargs)


class TlsServer:
    """Says nothing, or one byte now and then, where a handshake is due; writes down whose name was asked for."""

    def __init__(self, talk):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.over, self.heard = threading.Event(), []
        threading.Thread(target=self._serve, args=[talk], daemon=True).start()

    def _serve(self, talk):
        with suppress(OSError):
            connection, _ = self.listener.accept()
            with connection:
                self.heard.append(connection.recv(4_096))
                talk(connection, self.over)

    def stop(self):
        self.over.set()
        self.listener.close()


def _drip(connection, over):
    """The head of a record of 16 KiB, and then the rest byte by byte."""
    with suppress(OSError):
        connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
        while not over.wait(0.1):
            connection.sendall(b"\x00")


@pytest.mark.parametrize("talk", [_drip, lambda connection, over: over.wait(PATIENCE)], ids=["drips", "quiet"])
def test_a_handshake_that_does_not_end_is_cut_and_nothing_was_written(monkeypatch, talk):
    server = TlsServer(talk)
    listed = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", _only("slow.example", listed))
    began = time.monotonic()
    try:
        with pytest.raises(requests_client.NotConnected):
            post(f"https://slow.example:{server.port}/")
        assert 1 < time.monotonic() - began < 30
        wait_for(lambda: server.heard, what="the handshake is heard")
    finally:
        server.stop()

    assert b"slow.example" in server.heard[0]  # the name, not the address, is what the certificate has to be for


def test_slacks_own_address_is_guarded_and_one_that_the_operator_states_is_not(monkeypatch, settings):
    seen = []

    def post(url, **options):
        seen.append((url, options["is_guarded"]))
        raise requests_client.NotConnected("no network in tests")

    monkeypatch.setattr(requests_client, "post", post)
    for base in ("https://slack.com/api/", "http://127.0.0.1:9/api/"):
        client = slack._Client(token="xoxb-1", base_url=base, retry_handlers=[], logger=slack._quiet)
        with pytest.raises(requests_client.NotConnected):
            client.auth_test()

    assert seen == [("https://slack.com/api/auth.test", True), ("http://127.0.0.1:9/api/auth.test", False)]


def test_a_name_that_does_not_resolve_now_may_do_so_later(guarded, names, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert requests_client.refusal("https://later.example/") is None
    with pytest.raises(requests_client.NotConnected):
        post("https://later.example/")


def test_a_cookie_is_neither_kept_nor_sent(receiver):
    receiver.replies = [Reply(200, headers={"Set-Cookie": "tenant=acme; Domain=127.0.0.1; Path=/"})]
    for _ in range(2):
        post(receiver.address)

    assert len(receiver.received) == 2
    assert not any("cookie" in received.headers for received in receiver.received)


def test_a_redirect_is_an_answer_and_is_not_followed(receiver):
    receiver.replies = [Reply(302, headers={"Location": receiver.address})]

    assert post(receiver.address).status == 302
    assert len(receiver.received) == 1


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_proxies_and_passwords_of_the_environment_are_not_used(receiver, monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login canary password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))

    assert post(receiver.address).status == 200
    assert "authorization" not in receiver.received[0].headers


def test_the_answer_is_capped(receiver):
    receiver.replies = [Reply(200, body=b"x" * 3_000_000)]
    answer = post(receiver.address)

    assert (len(answer.body), answer.is_whole) == (requests_client.MAX_ANSWER_BYTES, False)


def test_nobody_listening_is_surely_nothing_written():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(requests_client.NotConnected):
            post(f"http://127.0.0.1:{closed.getsockname()[1]}/")


@pytest.mark.parametrize("reply", [Reply(is_dropped=True), Reply(hang=60), Reply(drip=0.05)], ids=str)
def test_a_connection_without_an_answer_is_perhaps_something_and_has_an_end(receiver, settings, reply):
    settings.DELIVERY_GRACE_SECONDS = 1
    receiver.replies = [reply]
    began = time.monotonic()
    with pytest.raises(requests_client.NoAnswer):
        post(receiver.address)

    assert time.monotonic() - began < 30


def test_a_body_that_drips_is_cut_at_the_deadline(receiver, settings):
    settings.DELIVERY_GRACE_SECONDS = 1
    receiver.replies = [Reply(200, headers={"Content-Length": "100"}, body=b"short")]
    began = time.monotonic()
    answer = post(receiver.address)

    assert (answer.status, answer.is_whole) == (200, False)
    assert time.monotonic() - began < 30


def test_a_request_ends_well_within_the_grace(settings):
    for grace in (1, 5, 30, 300):
        settings.DELIVERY_GRACE_SECONDS = grace
        assert requests_client.send_seconds() <= grace / 2
        assert requests_client.send_seconds() < 7


def test_what_must_happen_before_the_first_byte_can_stop_it(receiver):
    def stop():
        raise KeyError("too late")

    with pytest.raises(KeyError):
        post(receiver.address, before_post=stop)
    threading.Event().wait(0.05)
    assert receiver.received == []
