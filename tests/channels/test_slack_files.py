"""Small text files of a person's message are read; whatever keeps them from it, the message is heard."""

import json
import time
from typing import Any

import pytest

from channels_integration import inbound
from channels_integration.models import InboundEvent, Installation
from channels_integration.platforms import slack_files
from tests.channels.doubles import Owner
from tests.channels.sending import SIGNING_SECRET
from tests.fakes.slack import FakeSlack, sign

pytestmark = pytest.mark.django_db
CSV = "id,name\n1,Zoë\n" * 20
PATH = "/files/T0ACME-F1/download/a.csv"


@pytest.fixture(autouse=True)
def a_job_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Owner, "awaits", lambda self, incoming: incoming.thread != "")


def shared(slack: FakeSlack, **fields: Any) -> dict[str, Any]:
    file = {"id": "F1", "name": "a.csv", "mimetype": "text/csv", "size": 300, "preview": "id,name", "lines_more": 20}
    return file | {"url_private_download": slack.address + PATH} | fields


def heard(slack: FakeSlack, *files: Any, thread: str = "1767225000.000001") -> str:
    event = {"type": "message", "subtype": "file_share", "channel": "C0ONE", "user": "U1", "text": "Look"}
    event |= {"ts": "1767225600.000100", "thread_ts": thread, "files": list(files)}
    body = json.dumps(slack.envelope(event)).encode()
    assert inbound.receive("slack", headers=sign(body, SIGNING_SECRET, at=time.time()), body=body).status == 200
    return InboundEvent.objects.get().text


def test_the_whole_text_of_a_small_text_file_is_read(slack: FakeSlack) -> None:
    slack.files[PATH] = ("text/csv", b"\xef\xbb\xbf" + CSV.encode() + b"\x00")
    assert heard(slack, shared(slack)) == f"Look\n(file: a.csv, text/csv, 300 bytes)\n(its text:)\n{CSV.strip()}"


def test_of_a_longer_text_the_beginning_is_read(slack: FakeSlack) -> None:
    slack.files[PATH] = ("text/plain", b"x" * 60_000)
    assert heard(slack, shared(slack, size=60_000)).endswith("(its beginning:)\n" + "x" * 20_000)


def test_three_files_of_a_message_are_read(slack: FakeSlack) -> None:
    slack.files[PATH] = ("text/csv", b"a")
    assert heard(slack, *[shared(slack, id=f"F{n}") for n in range(5)]).count("(its text:)\na") == 3


NOT_ASKED_FOR: list[dict[str, Any]] = [
    {"mimetype": "image/png"},
    {"mimetype": "text/html"},
    {"size": slack_files.MOST_BYTES + 1},
    {"size": None},
    {"url_private_download": None},
    {"url_private_download": "http://127.0.0.1:9/files/a.csv"},
    {"id": None},
]


@pytest.mark.parametrize("fields", NOT_ASKED_FOR, ids=str)
def test_what_is_no_small_text_file_at_slack_is_not_asked_for(slack: FakeSlack, fields: dict[str, Any]) -> None:
    slack.files[PATH] = ("text/csv", CSV.encode())
    assert heard(slack, shared(slack, **fields)).endswith("(its beginning:)\nid,name")
    assert slack.calls("file") == 0


def test_nothing_is_asked_for_if_no_job_listens(slack: FakeSlack) -> None:
    slack.files[PATH] = ("text/csv", CSV.encode())
    assert heard(slack, shared(slack), thread="").endswith("(its beginning:)\nid,name")
    assert slack.calls("file") == 0


@pytest.mark.parametrize(
    "content", [None, b"x" * (slack_files.MOST_BYTES + 1), "Zoë".encode("latin-1")], ids=["gone", "larger", "latin"]
)
def test_a_file_that_cannot_be_read_leaves_its_preview(slack: FakeSlack, content: bytes | None) -> None:
    if content is not None:
        slack.files[PATH] = ("text/csv", content)
    assert heard(slack, shared(slack)).endswith("(its beginning:)\nid,name")


def test_without_the_scope_the_preview_is_read(slack: FakeSlack) -> None:
    slack.files[PATH] = ("text/csv", CSV.encode())
    slack.bot_token = "xoxb-of-another-app"
    assert heard(slack, shared(slack)).endswith("(its beginning:)\nid,name")
    assert slack.calls("file") == 1


def test_a_slow_file_is_not_waited_for(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slack_files, "_SECONDS", 0.2)
    slack.files[PATH], slack.file_seconds = ("text/csv", CSV.encode()), 20.0
    began = time.monotonic()
    assert heard(slack, shared(slack)).endswith("(its beginning:)\nid,name")
    assert time.monotonic() - began < 10


def test_many_slow_files_do_not_take_all_threads(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slack_files._slots, "acquire", lambda blocking: False)
    assert heard(slack, shared(slack)).endswith("(its beginning:)\nid,name")


def test_a_token_that_cannot_be_opened_loses_no_message(slack: FakeSlack) -> None:
    Installation.objects.update(sealed_bot_token="broken")
    assert heard(slack, shared(slack)).endswith("(its beginning:)\nid,name")
