"""The demo of `manage.py up`: one job from POST to COMPLETED, over HTTP like any client.

Not to be confused with `agent_jobs.demo`, which writes a month of made-up jobs. Management commands create the
organisation and the app token, because HTTP needs a token first. The demo can run again on the same data: it keeps what
exists and posts a new job. The data folder keeps the token (`demo-token`, readable by its owner only). The demo
replaces a token that the service refuses.
"""

import io
import json
import os
import secrets
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from config.embedded import write_private

ORG = "demo"
ADMIN = "demo"
LOBBY = "lobby"
MESSAGES = f"/services/channels/web/{LOBBY}/messages"
PROFILE: dict[str, Any] = {
    "id": "concierge",
    "name": "Concierge",
    "instructions": "Ask short questions and thank people for their answers.",
    "model": "scripted",
}
JOB_TYPES: tuple[dict[str, Any], ...] = (
    {
        "id": "standup-question",
        "name": "Stand-up question",
        "description": "Asks one person one question, follows up on silence, and ends with the answer.",
        "runner": "conversation",
        "params_schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
            "additionalProperties": False,
        },
        "default_config": {
            "start_prompt": "Hi {{ name }}, what are you working on today?",
            "max_follow_ups": 2,
            "follow_up_interval": 30,
            "profile_id": "concierge",
        },
    },
    {
        "id": "announcement",
        "name": "Announcement",
        "description": "Says one thing in a channel and is done.",
        "runner": "message",
        "params_schema": {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
            "additionalProperties": False,
        },
        "default_config": {"start_prompt": "{{ text }}"},
    },
)
SCHEDULE: dict[str, Any] = {
    "name": "Weekday stand-up",
    "description": "Announces the stand-up each weekday morning in Berlin.",
    "cron": "30 9 * * MON-FRI",
    "time_zone": "Europe/Berlin",
    "overlap": "forbid",
    "job": {
        "job_type_id": "announcement",
        "target_channel": {"org_id": ORG, "platform": "web", "type": "channel", "code": LOBBY},
        "params": {"text": "Stand-up in five minutes"},
    },
}
SCHEDULE_PATH = "/services/agent-schedules/by-key/demo-weekday-stand-up"
ANSWER = "The release notes. They will be out this afternoon."
READY_SECONDS = 120.0
COMPLETE_SECONDS = 120.0
TERMINAL = {"COMPLETED", "FAILED", "CANCELED"}


class DemoFailed(Exception):
    """The service did not behave as the demo shows. The message is for the person at the terminal."""


def main(web_url: str) -> int:
    folder = Path(os.environ["AGENT_JOBS_DATA_DIR"])
    token_file, password_file = folder / "demo-token", folder / "demo-password"
    try:
        _make_org()
        _make_admin(password_file)
        client = Client(web_url, _kept_token(token_file))
        client.wait_ready()
        if client.ask("GET", "/services/agent-jobs?limit=1")[0] == 401:
            client.token = _new_token(token_file)
        _make_catalogue(client)
        _show_job(client)
        _show_schedule(client)
    except DemoFailed as error:
        print(f"The demo stops here: {error}")
        return 1
    except OSError as error:
        print(f"The demo stops here: the service at {web_url} does not answer ({error})")
        return 1
    _show_ways_on(client, password_file.read_text().strip())
    return 0


class Client:
    """An API client with an app token. Uses only the standard library."""

    def __init__(self, web_url: str, token: str) -> None:
        self.web_url = web_url
        self.token = token
        # A proxy in the environment does not apply to this machine itself.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """Status and body of one request. Error statuses are returned, not raised."""
        request = urllib.request.Request(  # noqa: S310 - an address of our own web process
            self.web_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=40) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error.read())

    def want(self, method: str, path: str, body: object = None) -> Any:
        """The `data` of a successful answer. Raises DemoFailed with the service's message otherwise."""
        status, answer = self.ask(method, path, body)
        if status >= 300:
            details = "".join(f"; {each.get('field')}: {each.get('message')}" for each in answer.get("errors", []))
            raise DemoFailed(f"{method} {path} answered {status}: {answer.get('message', '')}{details}")
        return answer.get("data")

    def wait_ready(self) -> None:
        pause = threading.Event()
        give_up_at = time.monotonic() + READY_SECONDS
        missing = "the web process does not answer"
        while time.monotonic() < give_up_at:
            try:
                status, answer = self.ask("GET", "/health/ready")
            except OSError:
                status, answer = 0, {}
            if status == 200:
                return
            if checks := answer.get("checks"):
                missing = ", ".join(f"{name} {check['detail']}" for name, check in checks.items() if not check["ok"])
            pause.wait(0.25)
        raise DemoFailed(f"the service was not ready within {READY_SECONDS:g} s: {missing}")


class Timeline:
    """Prints each event of one job once, with the seconds since the job was posted."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._began = time.monotonic()
        self._seen: set[str] = set()
        self._last_wait = ""
        self._last_message = ""
        self.has_answered = False

    def tell(self, what: str, text: str) -> None:
        print(f"  {time.monotonic() - self._began:6.2f} s  {what:<13}  {text}".rstrip(), flush=True)

    def look(self) -> dict[str, Any]:
        """Print the new events of the job and its channel. Answers the agent's first question, as Ada. Returns
        the job.
        """
        path = f"/services/agent-jobs/{self._job_id}?include=activities&include_limit=100&include_sort=created_at"
        job: dict[str, Any] = self._client.want("GET", path)
        for activity in job.get("Activities", []):
            if activity["id"] not in self._seen:
                self._seen.add(activity["id"])
                self.tell(activity["activity_type_code"], activity.get("note") or "")
        waiting_for = job.get("waiting_for") or ""
        if waiting_for != self._last_wait:
            self._last_wait = waiting_for
            if waiting_for:
                self.tell("job waits", f"{job['job_status']}: for {waiting_for}")
        for message in self._new_messages():
            who = message["author"] if message["direction"] == "in" else "agent"
            self.tell("web chat", f"{who}: {message['text']}")
            if message["direction"] == "out" and not self.has_answered:
                self._answer()
        return job

    def _new_messages(self) -> Iterator[dict[str, Any]]:
        while True:
            after = f"&after={urllib.parse.quote(self._last_message)}" if self._last_message else ""
            page = self._client.want("GET", f"{MESSAGES}?limit=100{after}")
            for message in page:
                self._last_message = message["id"]
                if message.get("job_id") == self._job_id:
                    yield message
            if len(page) < 100:
                return

    def _answer(self) -> None:
        self.has_answered = True
        self.tell("web chat", "(this demo now answers in Ada's place, by a POST)")
        self._client.want("POST", MESSAGES, {"text": ANSWER, "author": "Ada", "job_id": self._job_id})


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {"message": body.decode(errors="replace")[:200]}
    return answer if isinstance(answer, dict) else {"data": answer}


def _make_org() -> None:
    _command("create_org", [ORG], {"name": "Demo", "allow_commands": True})


def _make_admin(password_file: Path) -> None:
    """An admin for the console. Its password is made once and stays in the data folder, readable by its owner only."""
    if not password_file.exists():
        write_private(password_file, secrets.token_urlsafe(12) + "\n")
    options = {"org": ORG, "username": ADMIN, "role": "admin", "full_name": "Demo Admin"}
    _command("create_user", [], {**options, "password_file": str(password_file)})


def _kept_token(token_file: Path) -> str:
    try:
        return token_file.read_text().strip() or _new_token(token_file)
    except FileNotFoundError:
        return _new_token(token_file)


def _new_token(token_file: Path) -> str:
    token = _command("create_token", [], {"org": ORG, "scopes": ["SERVICES:WRITE"], "name": "manage.py up"}).strip()
    write_private(token_file, token + "\n")
    return token


def _command(name: str, arguments: list[str], options: dict[str, Any]) -> str:
    """The output of a management command. Loads Django here, after the web process has started."""
    import django
    from django.apps import apps
    from django.core.management import CommandError, call_command

    if not apps.ready:
        django.setup()
    printed = io.StringIO()
    try:
        call_command(name, *arguments, stdout=printed, **options)
    except CommandError as error:
        raise DemoFailed(f"{name}: {error}") from None
    return printed.getvalue()


def _make_catalogue(client: Client) -> None:
    place = f"/services/organizations/{ORG}"
    for path, entry in ((f"{place}/profiles", PROFILE), *((f"{place}/agent-jobs-type", each) for each in JOB_TYPES)):
        status, answer = client.ask("GET", f"{path}/{entry['id']}")
        if status == 404:
            client.want("POST", path, entry)
        elif status != 200:
            raise DemoFailed(f"GET {path}/{entry['id']} answered {status}: {answer.get('message', '')}")


def _show_job(client: Client) -> None:
    starts_at = datetime.now(UTC) + timedelta(seconds=1)
    job = client.want(
        "POST",
        "/services/agent-jobs",
        {
            "target_channel": {"org_id": ORG, "platform": "web", "type": "channel", "code": LOBBY},
            "job_type_id": "standup-question",
            "params": {"name": "Ada"},
            "scheduled_at": starts_at.isoformat().replace("+00:00", "Z"),
        },
    )
    print(f"\nA demo: job {job['job_id']}, `standup-question` in the web chat `{LOBBY}`, a second from now.\n")
    timeline = Timeline(client, job["job_id"])
    pause = threading.Event()
    give_up_at = time.monotonic() + COMPLETE_SECONDS
    while True:
        job = timeline.look()
        if job["job_status"] in TERMINAL:
            break
        if time.monotonic() > give_up_at:
            raise DemoFailed(f"the job is still {job['job_status']} after {COMPLETE_SECONDS:g} s")
        pause.wait(0.05)
    pause.wait(0.5)  # the closing words may be delivered a moment after the end
    timeline.look()
    print(f"\nThe job ended {job['job_status']}: {job.get('result')}")
    if job["job_status"] != "COMPLETED":
        raise DemoFailed(f"the job ended {job['job_status']} and not COMPLETED")


def _show_schedule(client: Client) -> None:
    """Make the schedule, or leave it as it is, and print its next firings."""
    schedule = client.want("PUT", SCHEDULE_PATH, SCHEDULE)
    print(f"\nA schedule: `{schedule['name']}`. {schedule['describes']}. It fires next at")
    for firing in schedule.get("next_runs", []):
        print(f"  {firing['local'][:16]} in {schedule['time_zone']}   {firing['at'][:16].replace('T', ' ')} UTC")


def _show_ways_on(client: Client, password: str) -> None:
    body = {
        "target_channel": {"org_id": ORG, "platform": "web", "type": "channel", "code": LOBBY},
        "job_type_id": "announcement",
        "params": {"text": "Hello from curl"},
    }
    print(
        f"""
Console    {client.web_url}/console/   (sign in as `{ADMIN}` with the password {password})
API        {client.web_url}/services/agent-jobs
Schedules  {client.web_url}/services/agent-schedules
Docs       {client.web_url}/docs
Web chat   {client.web_url}{MESSAGES}
Token      {client.token}   (organisation `{ORG}`, SERVICES:WRITE)

Post a job of your own:

curl -sS -X POST {client.web_url}/services/agent-jobs -H 'Authorization: Bearer {client.token}' \
-H 'Content-Type: application/json' -d '{json.dumps(body)}'

and read what it said:

curl -sS '{client.web_url}{MESSAGES}' -H 'Authorization: Bearer {client.token}'
""",
        flush=True,
    )


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    sys.exit(main(sys.argv[1]))
