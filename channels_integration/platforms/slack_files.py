"""Reads small text files of a person's message from Slack's file host, while Slack waits for our answer to the event.

A file that cannot be read in that time, or at all, costs nothing but its text: the message names it, and has the
beginning that Slack puts into the event. Files are read only for messages that a job awaits. Slack wants the scope
`files:read` for it; without the scope it redirects, and redirects are not followed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings

from channels_integration import message_owner
from channels_integration.messages import Incoming
from channels_integration.models import Installation
from infra.egress import requests_client
from infra.sealing import SealingError
from infra.storable_text import storable

log = logging.getLogger(__name__)
MOST_BYTES = 64_000
_MOST_FILES = 3
# For all files of a message together: Slack waits 3 s.
_SECONDS = 1.5
_OWN_API, _OWN_FILES = "https://slack.com/", "https://files.slack.com/"
_TEXT_TYPES = {"application/json", "application/xml", "application/yaml", "application/x-yaml", "application/csv"}
# Slow downloads must not take all threads of a web process.
_slots = threading.BoundedSemaphore(4)


def texts(message: Mapping[str, Any], said: Incoming) -> Mapping[str, str]:
    """The texts of the message's files, by the files' ids; only of those that could be read."""
    wanted = list(_readable(message))[:_MOST_FILES]
    if not wanted or not message_owner.get().awaits(said) or not _slots.acquire(blocking=False):
        return {}
    try:
        return dict(_read(wanted, said))
    finally:
        _slots.release()


def _readable(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Id and address of each small text file at Slack's own host."""
    files = message.get("files")
    for file in files if isinstance(files, list) else ():
        if not isinstance(file, Mapping):
            continue
        names = [file.get(name) for name in ("id", "mimetype", "url_private_download")]
        size = file.get("size")
        if not all(isinstance(name, str) for name in names) or not isinstance(size, int) or not 0 < size <= MOST_BYTES:
            continue
        id_, kind, url = map(str, names)
        is_text = kind in _TEXT_TYPES or (kind.startswith("text/") and kind != "text/html")
        if is_text and url.startswith(_file_host()):
            yield id_, url


def _file_host() -> str:
    api = str(settings.SLACK_API_URL)
    return _OWN_FILES if api.startswith(_OWN_API) else api.partition("/api/")[0] + "/files/"  # the latter is a test's


def _read(wanted: list[tuple[str, str]], said: Incoming) -> Iterator[tuple[str, str]]:
    until = time.monotonic() + _SECONDS
    try:
        installation = Installation.objects.get(org_id=said.org_id, team_id=said.team)
        headers = {"Authorization": f"Bearer {installation.opened('sealed_bot_token')}"}
        for id_, url in wanted:
            seconds = until - time.monotonic()
            if seconds <= 0:
                return
            answer = requests_client.request("GET", url, body=None, headers=headers, seconds=seconds)
            size = len(answer.body)
            if answer.status == 200 and answer.is_whole and size <= MOST_BYTES:
                yield id_, storable(answer.body.decode("utf-8-sig"))
            else:
                log.info(
                    "file %s of %s was not read: HTTP %s, %s bytes, whole: %s",
                    *(id_, said.org_id, answer.status, size, answer.is_whole),
                )
    except (requests_client.HttpError, SealingError, UnicodeDecodeError, Installation.DoesNotExist) as error:
        log.info("files of a message of %s were not read: %s", said.org_id, type(error).__name__)
