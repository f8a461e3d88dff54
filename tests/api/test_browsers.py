"""Headers, cookies and sessions of browsers, and the limit of wrong passwords."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from axes.models import AccessAttempt
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from freezegun import freeze_time

from tests import factories
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]
JOBS = "/services/agent-jobs"
LOGIN = "/admin/login/?next=/admin/"
PASSWORD = "correct horse battery"
PRODUCTION = {
    "DATABASE_URL": "postgresql://agent_jobs@127.0.0.1:1/agent_jobs",
    "AGENT_JOBS_SECRET_KEY": "k7" * 5 + "Qw3rtyUiopAsdfGhjklZxcvbnm0192837465abcdefghijklm",
    "AGENT_JOBS_TOKEN_PEPPER": "p" * 50,
    "AGENT_JOBS_ALLOWED_HOSTS": "jobs.example.com",
    "AGENT_JOBS_TRUSTED_PROXIES": "10.0.0.0/8",
    "AGENT_JOBS_HTTPS": "1",
    "AGENT_JOBS_DATA_DIR": "/dev/null/none",
}


def in_production(*command, **changes):
    """Runs Python with nothing of this machine's environment but what finds the programs."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**environment, **PRODUCTION, **changes},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.fixture
def person(django_user_model, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a real one takes half a second
    return django_user_model.objects.create_superuser("jane", password=PASSWORD)


def log_in(client, password=PASSWORD, **environ):
    return client.post(LOGIN, {"username": "jane", "password": password}, **environ)


def is_in(client):
    return client.get("/admin/").status_code == 200


# --- With the settings of production ---------------------------------------------------------------------------
def test_django_finds_nothing_to_say_about_the_settings_of_production():
    done = in_production("manage.py", "check", "--deploy", "--fail-level", "WARNING")

    assert (done.returncode, done.stderr) == (0, "")


def test_and_would_say_so_if_there_were_something():
    done = in_production("manage.py", "check", "--deploy", "--fail-level", "WARNING", AGENT_JOBS_HTTPS="0")

    assert done.returncode == 1
    assert "security.W012" in done.stderr


def test_cookies_and_headers_over_https():
    """Asked of a process with these settings, since they are read once."""
    script = """
import django, json
django.setup()
from axes.models import AccessAttempt
from django.test import Client
from django.conf import settings
https = {"secure": True, "headers": {"Host": "jobs.example.com"}}
live, plain, health = (
    Client().get("/health/live", **https),
    Client().get("/docs", headers={"Host": "jobs.example.com"}),
    Client().get("/health/live", headers={"Host": "jobs.example.com"}),
)
page = Client().get("/admin/login/", **https)
print(json.dumps({
    "hsts": live["Strict-Transport-Security"],
    "plain": [plain.status_code, plain["Location"]],
    "health": health.status_code,
    "csrf": page.cookies["__Host-csrf"].OutputString().split("; ")[1:],
    "session": [settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_SECURE, settings.SESSION_COOKIE_HTTPONLY],
}))
"""
    done = in_production("-c", script, DJANGO_SETTINGS_MODULE="config.settings")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)

    assert seen["hsts"] == "max-age=31536000"
    assert seen["plain"] == [301, "https://jobs.example.com/docs"]
    assert seen["health"] == 200
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=Lax"} <= set(seen["csrf"])
    assert seen["session"] == ["__Host-session", True, True]


# --- Headers ---------------------------------------------------------------------------------------------------
POLICY = {
    *("default-src 'none'", "script-src 'self'", "style-src 'self'", "font-src 'self'", "connect-src 'self'"),
    *("img-src 'self' data:", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"),
}
COMMON = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Beside COMMON, the policy, X-Request-ID and Content-Length. A header that is not here is not sent.
ANSWERS = {
    ("GET", JOBS, "acme"): (200, {"Content-Type": "application/json", "Allow": "GET, POST, HEAD, OPTIONS"}),
    ("GET", f"{JOBS}/x", "acme"): (404, {"Content-Type": "application/json", "Allow": "GET, DELETE, HEAD, OPTIONS"}),
    ("GET", JOBS, "nobody"): (
        401,
        {
            "Content-Type": "application/json",
            "Allow": "GET, POST, HEAD, OPTIONS",
            "WWW-Authenticate": 'Bearer realm="agent-jobs"',
        },
    ),
    ("GET", "/nothing", "acme"): (404, {"Content-Type": "application/json"}),
    ("PUT", JOBS, "acme"): (405, {"Content-Type": "application/json", "Allow": "GET, POST, HEAD, OPTIONS"}),
    ("GET", "/health/live", "nobody"): (200, {"Content-Type": "application/json", "Allow": "GET, HEAD, OPTIONS"}),
    ("POST", "/channels/slack/events", "nobody"): (401, {"Content-Type": "application/json"}),
    ("POST", "/channels/slack/interactions", "nobody"): (401, {"Content-Type": "application/json"}),
}


def policy_of(answer):
    return set(answer["Content-Security-Policy"].split("; "))


@pytest.mark.parametrize(("method", "path", "who"), ANSWERS, ids=str)
def test_these_headers_are_sent_and_no_others(request, method, path, who):
    status, expected = ANSWERS[method, path, who]
    answer = request.getfixturevalue(who).send(method, path, {} if method == "POST" else None)

    headers = dict(answer.headers)
    assert headers.pop("X-Request-ID")
    assert headers.pop("Content-Length") == str(len(answer.content))
    assert answer.status_code == status
    assert policy_of(answer) == POLICY
    del headers["Content-Security-Policy"]
    assert headers == COMMON | expected


def test_pages_of_the_admin_need_no_inline_script(client, person):
    log_in(client)
    for path in ("/admin/", "/admin/agent_jobs/job/", "/admin/agent_jobs/org/add/"):
        page = client.get(path)
        assert page.status_code == 200
        html = page.content.decode()
        assert policy_of(page) == POLICY
        assert "<script>" not in html
        assert " onclick=" not in html
        assert " style=" not in html


# --- Sessions --------------------------------------------------------------------------------------------------
def test_the_sessions_cookie_is_out_of_reach_of_scripts_and_other_sites(client, person):
    cookie = log_in(client).cookies["session"]

    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (True, "Lax", "/", "")
    assert cookie["max-age"] == 30 * 60


def test_a_login_needs_the_token_of_its_form(person):
    assert log_in(Client(enforce_csrf_checks=True)).status_code == 403


@pytest.mark.parametrize(("minutes", "expected"), [(29, True), (31, False)])
def test_a_session_ends_after_half_an_hour_without_a_request(client, person, minutes, expected):
    start = timezone.now()
    with freeze_time(start, ignore=["psycopg"]) as clock:
        log_in(client)
        clock.tick(timedelta(minutes=minutes))
        assert is_in(client) is expected


def test_a_session_ends_after_eight_hours_however_busy(client, person):
    with freeze_time(timezone.now(), ignore=["psycopg"]) as clock:
        log_in(client)
        for _ in range(24):
            assert is_in(client)
            clock.tick(timedelta(minutes=20))
        clock.tick(timedelta(seconds=2))
        assert not is_in(client)
        assert not Session.objects.exists()
        log_in(client)
        assert is_in(client)


def test_the_eight_hours_begin_with_the_login(client, person):
    with freeze_time(timezone.now(), ignore=["psycopg"]) as clock:
        session = client.session
        session["before"] = "the login"
        session.save()
        clock.tick(timedelta(minutes=25))
        log_in(client)
        for _ in range(23):
            clock.tick(timedelta(minutes=20))
            assert is_in(client)
        clock.tick(timedelta(minutes=10))
        assert is_in(client)  # 8 h 15 min after the first sight of them


def test_a_request_a_second_writes_the_session_once_a_minute(client, person, django_assert_num_queries):
    log_in(client)
    before = Session.objects.get().expire_date
    for _ in range(3):
        client.get("/admin/")
    assert Session.objects.get().expire_date == before

    with freeze_time(timezone.now() + timedelta(seconds=61), ignore=["psycopg"]):
        client.get("/admin/")
    assert Session.objects.get().expire_date > before


def test_the_api_neither_takes_nor_touches_a_session(client, person):
    log_in(client)
    with freeze_time(timezone.now() + timedelta(minutes=5), ignore=["psycopg"]):
        before = Session.objects.get().expire_date
        for method in ("get", "post", "delete"):
            answer = getattr(client, method)(JOBS)
            assert answer.status_code == 401
            assert not answer.cookies
        assert Session.objects.get().expire_date == before


def test_a_token_is_no_login(client):
    token = factories.token("acme", "SERVICES:ADMIN")

    assert client.get("/admin/", headers={"Authorization": f"Bearer {token}"}).status_code == 302


# --- Passwords -------------------------------------------------------------------------------------------------
def test_five_wrong_passwords_lock_the_name_out_from_that_address(client, person):
    here, there = {"REMOTE_ADDR": "203.0.113.1"}, {"REMOTE_ADDR": "203.0.113.2"}
    wrong = [log_in(client, "wrong", **here).status_code for _ in range(5)]

    locked = log_in(client, **here)

    assert wrong == [200, 200, 200, 200, 429]
    assert locked.status_code == 429
    assert not is_in(client)
    assert log_in(client, **there).status_code == 302  # its owner, from elsewhere


def test_made_up_names_from_one_address_are_refused_before_a_password_is_hashed(client, person, settings):
    settings.RATE_ADDRESS = "60/minute"
    here, there = {"REMOTE_ADDR": "203.0.113.1"}, {"REMOTE_ADDR": "203.0.113.2"}
    answers = [client.post(LOGIN, {"username": f"guess{n}", "password": "x"}, **here) for n in range(25)]

    assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 5
    assert answers[-1].json()["code"] == "throttled"
    assert int(answers[-1]["Retry-After"]) > 0
    assert AccessAttempt.objects.count() == 20, "who is refused leaves no row"
    assert log_in(client, **here).status_code == 429
    assert log_in(client, **there).status_code == 302


def test_the_lock_opens_after_a_quarter_of_an_hour(client, person):
    start = timezone.now()
    with freeze_time(start, ignore=["psycopg"]) as clock:
        for _ in range(5):
            log_in(client, "wrong")
        clock.tick(timedelta(minutes=14))
        assert log_in(client).status_code == 429
        clock.tick(timedelta(minutes=16))
        assert log_in(client).status_code == 302


def test_a_right_password_clears_the_wrong_ones(client, person):
    for _ in range(3):
        assert [log_in(client, "wrong").status_code for _ in range(4)] == [200] * 4
        assert log_in(client).status_code == 302


def test_addresses_of_one_ipv6_subscriber_are_one(client, person):
    for number in range(5):
        log_in(client, "wrong", REMOTE_ADDR=f"2001:db8::{number + 1}")

    assert log_in(client, REMOTE_ADDR="2001:db8::99").status_code == 429
    assert log_in(client, REMOTE_ADDR="2001:db8:0:1::99").status_code == 302


def test_a_forwarded_address_counts_only_from_our_proxy(client, person, settings):
    for number in range(5):
        log_in(client, "wrong", HTTP_X_FORWARDED_FOR=f"198.51.100.{number}")
    assert log_in(client, HTTP_X_FORWARDED_FOR="198.51.100.99").status_code == 429

    settings.TRUSTED_PROXIES = ["127.0.0.1"]
    assert log_in(client, HTTP_X_FORWARDED_FOR="198.51.100.99").status_code == 302
