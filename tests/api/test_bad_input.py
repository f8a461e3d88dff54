"""Bad input: every 400 names the parameter or field, and nothing is stored. Never a 500, never HTML."""

import json

import pytest

from agent_jobs.models import Activity, Job
from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"


def channel(**fields):
    return {"org_id": "acme", "platform": "web", "code": "lobby"} | fields


def without(field, body=None):
    return {key: value for key, value in (body or factories.job_request()).items() if key != field}


BAD_FIELDS = [
    ({}, ["job_type_id"]),
    (without("target_channel"), ["target_channel"]),
    (without("job_type_id"), ["job_type_id"]),
    ({"target_channel": None}, ["target_channel"]),
    ({"target_channel": "C1"}, ["target_channel"]),
    ({"target_channel": []}, ["target_channel"]),
    ({"target_channel": {}}, ["target_channel.org_id", "target_channel.platform", "target_channel.code"]),
    ({"target_channel": channel(code=None)}, ["target_channel.code"]),
    ({"target_channel": channel(code="a\u202eb")}, ["target_channel.code"]),
    ({"target_channel": channel(code="a\u200bb")}, ["target_channel.code"]),
    ({"target_channel": channel(code="\ufeffa")}, ["target_channel.code"]),
    ({"target_channel": channel(code="a\u0085b")}, ["target_channel.code"]),
    ({"target_channel": channel(code="a\u2028b")}, ["target_channel.code"]),
    ({"target_channel": channel(type="x\u2066y")}, ["target_channel.type"]),
    ({"target_channel": channel(code=7)}, ["target_channel.code"]),
    ({"target_channel": channel(code=True)}, ["target_channel.code"]),
    ({"target_channel": channel(code="")}, ["target_channel.code"]),
    ({"target_channel": channel(code="  ")}, ["target_channel.code"]),
    ({"target_channel": channel(code="x" * 256)}, ["target_channel.code"]),
    ({"target_channel": channel(org_id=5)}, ["target_channel.org_id"]),
    ({"target_channel": channel(org_id=["acme"])}, ["target_channel.org_id"]),
    ({"target_channel": channel(platform="x" * 33)}, ["target_channel.platform"]),
    ({"target_channel": channel(platform="pigeon")}, ["target_channel.platform"]),
    ({"target_channel": channel(type=[])}, ["target_channel.type"]),
    ({"target_channel": channel(data="x")}, ["target_channel.data"]),
    ({"target_channel": channel(data=[])}, ["target_channel.data"]),
    ({"target_channel": channel(colour="red")}, ["target_channel.colour"]),
    ({"job_type_id": None}, ["job_type_id"]),
    ({"job_type_id": 5}, ["job_type_id"]),
    ({"job_type_id": ""}, ["job_type_id"]),
    ({"job_type_id": "x" * 129}, ["job_type_id"]),
    ({"config": []}, ["config"]),
    ({"config": "x"}, ["config"]),
    ({"config": {"max_follow_ups": -1}}, ["config.max_follow_ups"]),
    ({"config": {"max_follow_ups": "3"}}, ["config.max_follow_ups"]),
    ({"config": {"max_follow_ups": 1.5}}, ["config.max_follow_ups"]),
    ({"config": {"max_follow_ups": True}}, ["config.max_follow_ups"]),
    ({"config": {"max_follow_up": None}}, ["config.max_follow_up"]),
    ({"config": {"max_task_retries": 10**9}}, ["config.max_task_retries"]),
    ({"config": {"task_retry_interval": -1}}, ["config.task_retry_interval"]),
    ({"config": {"task_retry_interval": "5"}}, ["config.task_retry_interval"]),
    ({"config": {"max_time_to_complete": 0}}, ["config.max_time_to_complete"]),
    ({"config": {"max_time_to_complete": 10**12}}, ["config.max_time_to_complete"]),
    ({"config": {"start_prompt": 5}}, ["config.start_prompt"]),
    ({"config": {"start_prompt": ""}}, ["config.start_prompt"]),
    ({"config": {"start_prompt": "x" * 20_001}}, ["config.start_prompt"]),
    ({"config": {"start_prompt": "{{ name"}}, ["config.start_prompt"]),
    ({"config": {"profile_id": 5}}, ["config.profile_id"]),
    ({"config": {"profil_id": "x"}}, ["config.profil_id"]),
    ({"config": {"x": None}}, ["config.x"]),
    ({"params": []}, ["params"]),
    ({"params": "x"}, ["params"]),
    ({"scheduled_at": ""}, ["scheduled_at"]),
    ({"scheduled_at": 1_769_850_000}, ["scheduled_at"]),
    ({"scheduled_at": "tomorrow"}, ["scheduled_at"]),
    ({"scheduled_at": "2027-01-31T09:00:00"}, ["scheduled_at"]),
    ({"scheduled_at": "2027-99-99T09:00:00Z"}, ["scheduled_at"]),
    ({"scheduled_at": "2027-W05-1"}, ["scheduled_at"]),
    ({"scheduled_at": "9999-12-31T23:59:59Z"}, ["scheduled_at"]),
    ({"scheduled_at": "9999-12-31T23:59:59-12:00"}, ["scheduled_at"]),
    ({"scheduled_at": "2100-01-01T00:00:00Z"}, ["scheduled_at"]),
    ({"tags": ["a\u202eb"]}, ["tags"]),
    ({"tags": 5}, ["tags"]),
    ({"tags": [5]}, ["tags"]),
    ({"tags": ["x" * 65]}, ["tags"]),
    ({"tags": ["a,b"]}, ["tags"]),
    ({"tags": ["a", ""]}, ["tags"]),
    ({"tags": [f"t{i}" for i in range(51)]}, ["tags"]),
    ({"priority": 10}, ["priority"]),
    ({"priority": -1}, ["priority"]),
    ({"priority": "5"}, ["priority"]),
    ({"priority": 5.0}, ["priority"]),
    ({"priority": True}, ["priority"]),
    ({"id": "mine"}, ["id"]),
    ({"job_id": "mine"}, ["job_id"]),
    ({"status": "COMPLETED"}, ["status"]),
    ({"surprise": 1, "priority": 99}, ["priority", "surprise"]),
]


@pytest.mark.parametrize(("change", "fields"), BAD_FIELDS, ids=lambda value: str(value)[:60])
def test_a_bad_field_is_named_and_nothing_is_stored(acme, change, fields):
    is_whole = change == {} or ("params" in change and len(change) > 1)
    body = change if is_whole else factories.job_request() | change

    response = acme.post(JOBS, body)

    assert response.status_code == 400, response.content
    assert sorted(factories.fields_of(response)) == sorted(fields)
    assert isinstance(response.json()["message"], str)
    assert not Job.objects.exists()
    assert not Activity.objects.exists()


BAD_BODIES = [
    (b"", "job_type_id"),
    (b"nonsense", "body"),
    (b"[]", "body"),
    (b"null", "body"),
    (b'"x"', "body"),
    (b"\xff\xfe", "body"),
    (json.dumps(factories.job_request())[:-1].encode() + b', "params": {}}', "params"),
    (b'{"params": {"a": "\\u0000"}}', "params.a"),
    (b'{"params": {"\\u0000": 1}}', "params"),
    (b'{"params": {"a": "\\ud800"}}', "params.a"),
    (b'{"params": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "body"),
    (b'{"params": {"a": ' + b"1" * 4_000 + b"}}", "body"),
    (b'{"params": {"a": NaN}}', "body"),
    (b'{"params": {"a": Infinity}}', "body"),
    (b'{"params": {"a": 9007199254740993}}', "body"),
]


@pytest.mark.parametrize(("raw", "field"), BAD_BODIES, ids=lambda value: str(value)[:40])
def test_a_body_that_we_do_not_take_is_a_400(acme, raw, field):
    response = acme.send("POST", JOBS, raw=raw)

    assert response.status_code == 400
    assert field in factories.fields_of(response)
    assert not Job.objects.exists()


BAD_QUERIES = [
    ("limit=-1", "limit"),
    ("limit=0", "limit"),
    ("limit=1001", "limit"),
    ("limit=abc", "limit"),
    ("limit=", "limit"),
    ("limit=1.0", "limit"),
    ("limit=1_0", "limit"),
    ("limit=%D9%A3", "limit"),
    ("limit=%2B5", "limit"),
    ("limit=1000000000000000000000", "limit"),
    ("limit=5&limit=6", "limit"),
    ("limit=05", "limit"),
    ("limit=" + "1" * 5_000, "limit"),
    ("offset=00", "offset"),
    ("priority=05", "priority"),
    ("offset=-1", "offset"),
    ("offset=100000000000000000000", "offset"),
    ("sort=secret", "sort"),
    ("sort=secret:asc", "sort"),
    ("sort=zzz", "sort"),
    ("sort=priority", "sort"),
    ("sort=-priority,created_at", "sort"),
    ("sort=id__x", "sort"),
    ("sort=org__name", "sort"),
    ("sort=created_at:sideways", "sort"),
    ("sort=created_at:", "sort"),
    ("sort=-created_at:asc", "sort"),
    ("sort=created_at,created_at:desc", "sort"),
    ("sort=created_at,priority,channel_code,job_type_id", "sort"),
    ("sort=,", "sort"),
    ("sort=", "sort"),
    ("cursor=x", "cursor"),
    ("cursor=%F0%9F%98%80", "cursor"),
    ("status=DONE", "status"),
    ("status=", "status"),
    ("status=WAITING,", "status"),
    ("status=WAITING&status=DONE", "status"),
    ("created_at_gte=2027-99-99", "created_at_gte"),
    ("created_at_gte=yesterday", "created_at_gte"),
    ("created_at_gte=2027-01-01T00:00:00", "created_at_gte"),
    ("created_at_gte=2027-01-01T00:00:00+02:00", "created_at_gte"),
    ("created_at_lte=99999-01-01", "created_at_lte"),
    ("scheduled_at=1", "scheduled_at"),
    ("scheduled_at_gte=9999-12-31T23:59:59-10:00", "scheduled_at_gte"),
    ("scheduled_at_lte=x", "scheduled_at_lte"),
    ("job_type_id=%00", "job_type_id"),
    ("job_type_id=" + "x" * 300, "job_type_id"),
    ("channel_code=a%00b", "channel_code"),
    ("channel_code=%ED%A0%80", "query"),
    ("channel_code=%FF", "query"),
    ("priority=10", "priority"),
    ("tags=,", "tags"),
    ("include=everything", "include"),
    ("include=stats,", "include"),
    ("activities_limit_per_job=5", "activities_limit_per_job"),
    ("include=activities&activities_limit_per_job=101", "activities_limit_per_job"),
    ("include=activities&activities_total_limit=3001", "activities_total_limit"),
    ("include=activities&activities_sort=note", "activities_sort"),
    ("include=stats&activities_sort=created_at", "activities_sort"),
    ("secret__startswith=s", "secret__startswith"),
    ("channel_code__regex=(", "channel_code__regex"),
    ("org_id__in=rival", "org_id__in"),
    ("page=2", "page"),
    ("format=api", "format"),
    ("&".join(f"p{i}=1" for i in range(200)), "query"),
]


@pytest.mark.parametrize(("query", "field"), BAD_QUERIES, ids=lambda value: str(value)[:60])
def test_a_bad_parameter_is_named(acme, query, field):
    response = acme.get(f"{JOBS}?{query}")

    assert response.status_code == 400, response.content
    assert set(factories.fields_of(response)) == {field}


@pytest.mark.parametrize(
    "query",
    [
        *("delay=-1", "delay=10081", "delay=1.5", "delay=abc", "delay=", "delay=1&delay=2", "dealy=5", "delay=%00"),
        *(
            "delay=00000005",
            "delay=00",
            "delay=%D9%A3",
            "delay=%C2%B2",
            "delay=+5",
            "delay=5%20",
            "delay=" + "9" * 5000,
        ),
    ],
)
def test_a_bad_delay_stores_nothing(acme, query):
    response = acme.post(f"{JOBS}?{query}", factories.job_request())

    assert response.status_code == 400
    assert factories.fields_of(response) == [query.partition("=")[0]]
    assert not Job.objects.exists()


def test_null_for_an_optional_field_is_as_its_absence(acme):
    optional = dict.fromkeys(("config", "params", "scheduled_at", "tags", "priority"))
    rows.job_type(key="plain", default_config={})
    body = factories.job_request(**optional, job_type_id="plain", target_channel=channel(type=None, data=None))

    stated = acme.post(JOBS, body)
    absent = acme.post(JOBS, {"job_type_id": "plain", "target_channel": channel()})

    assert stated.status_code == 201, stated.content
    different = {"id", "job_id", "created_at", "updated_at", "state_since", "scheduled_at", "execution_log", "flags"}
    one, other = (
        {key: value for key, value in answer.json()["data"].items() if key not in different}
        for answer in (stated, absent)
    )
    assert one == other


def test_null_in_the_config_is_as_its_absence_and_in_params_a_value(acme):
    rows.job_type(key="asks", default_config={"max_follow_ups": 2})
    config = {"max_follow_ups": None, "profile_id": None}

    shown = acme.post(JOBS, factories.job_request(job_type_id="asks", config=config, params={"name": None})).json()[
        "data"
    ]

    assert shown["config"] == {"max_follow_ups": 2}
    assert shown["params"] == {"name": None}


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "gzip, identity", "aws-chunked"])
def test_an_encoded_body_is_a_415(acme, coding):
    answer = acme.post(JOBS, factories.job_request(), **{"Content-Encoding": coding})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_content_encoding")
    assert not Job.objects.exists()


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_identity_is_no_encoding(acme, coding):
    assert acme.post(JOBS, factories.job_request(), **{"Content-Encoding": coding}).status_code == 201


def test_what_is_wrong_with_query_and_body_is_told_at_once(acme):
    response = acme.post(f"{JOBS}?delay=x&deley=1", factories.job_request(priority=99, config={"nonsense": 1}))

    assert set(factories.fields_of(response)) == {"delay", "deley", "priority"}


@pytest.mark.parametrize(
    "query", ["include=stats", "include_limit=101", "include_limit=5", "include=activities&include_sort=x"]
)
def test_a_bad_parameter_of_the_detail_is_a_400(acme, query):
    assert acme.get(f"{JOBS}/{rows.job().pk}?{query}").status_code == 400


@pytest.mark.parametrize(
    "body", [{"reason": 5}, {"reason": "x" * 1_001}, {"why": "x"}, {"reason": "ok", "force": True}]
)
def test_a_bad_cancellation_cancels_nothing(acme, body):
    job = rows.job()

    response = acme.delete(f"{JOBS}/{job.pk}", body)

    assert response.status_code == 400
    job.refresh_from_db()
    assert job.status == "WAITING"


def test_params_are_held_against_the_job_types_schema(acme):
    schema = {"type": "object", "required": ["name"], "properties": {"n": {"type": "integer"}}}
    rows.job_type(key="strict", params_schema=schema)

    response = acme.post(JOBS, factories.job_request(job_type_id="strict", params={"n": "1"}))

    assert response.status_code == 400
    assert set(factories.fields_of(response)) == {"params.name", "params.n"}
    assert not Job.objects.exists()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "JUNK", "CONNECT"])
def test_a_method_that_is_not_there_is_a_405(acme, method):
    response = acme.send(method, JOBS)

    assert response.status_code == 405
    assert "GET" in response["Allow"]
    assert response.json()["code"] == "method_not_allowed"


def test_an_address_that_is_not_there_is_a_404_in_json(acme):
    for path in ("/nowhere", "/services", "/services/nowhere", f"{JOBS}/a/b", "/services/%00"):
        response = acme.get(path)
        assert response.status_code == 404
        assert response.json()["code"] == "not_found"
        assert response.json()["meta"]["request_id"] == response["X-Request-ID"]


@pytest.mark.parametrize(
    "job_id", ["1", "job123", "%00", "null", "é", "x" * 500, "{00000000-0000-0000-0000-000000000000}"]
)
def test_what_cannot_be_an_id_is_the_id_of_no_job(acme, job_id):
    for response in (acme.get(f"{JOBS}/{job_id}"), acme.delete(f"{JOBS}/{job_id}")):
        assert response.status_code == 404
        assert response.json()["code"] == "job_not_found"


def test_an_address_without_an_id_is_the_documents_400(acme):
    for response in (acme.get(f"{JOBS}/"), acme.delete(f"{JOBS}/")):
        assert response.status_code == 400
        assert factories.fields_of(response) == ["id"]


def test_a_head_is_a_get_without_a_body(acme):
    response = acme.send("HEAD", JOBS)

    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/*;q=0", "nonsense"])
def test_answers_are_json_whatever_is_accepted(acme, accept):
    response = acme.get(JOBS, Accept=accept)

    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
