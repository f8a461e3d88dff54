"""Schemas and templates of tenants at the door: what is too costly is a 400 that names its field, never a 500."""

import pytest

from tests import factories

pytestmark = pytest.mark.django_db
TYPES = "/services/organizations/acme/agent-jobs-type"
JOBS = "/services/agent-jobs"
OBJECTS = [{"a": number} for number in range(1_000)]
STRANGERS = [{"a": -number - 1} for number in range(4_000)]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        (
            {
                "params_schema": {
                    "$defs": {"e": {"enum": OBJECTS}},
                    "items": {"allOf": [{"not": {"$ref": "#/$defs/e"}}] * 100},
                }
            },
            "params_schema",
        ),
        ({"result_schema": {"pattern": r"\w{30000}"}}, "result_schema"),
        ({"default_config": {"start_prompt": "{{ " + "9" * 5_000 + " }}"}}, "default_config.start_prompt"),
        ({"default_config": {"start_prompt": "{{ name|center(9) }}"}}, "default_config.start_prompt"),
        (
            {"default_config": {"start_prompt": "{{ " + "(" * 4_000 + "1" + ")" * 4_000 + " }}"}},
            "default_config.start_prompt",
        ),
    ],
)
def test_a_job_type_with_a_costly_program_is_refused(acme, fields, field):
    response = acme.post(TYPES, {"id": "costly", "name": "Costly", "runner": "message", **fields})

    assert response.status_code == 400, response.content
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_a_job_whose_params_take_too_long_to_validate_is_refused(acme):
    schema = {"properties": {"xs": {"items": {"items": {"not": {"enum": OBJECTS}}}}}}
    acme.post(TYPES, {"id": "costly", "name": "Costly", "runner": "message", "params_schema": schema})

    response = acme.post(JOBS, factories.job_request(job_type_id="costly", params={"xs": [STRANGERS] * 4}))

    assert response.status_code == 400, response.content
    assert [(error["field"], error["code"]) for error in response.json()["errors"]] == [("params", "too_complex")]


@pytest.mark.parametrize(
    ("prompt", "params", "code"),
    [
        ("{{ 1|round(16000000, 'ceil') }}", {}, "invalid"),
        ("{{ params.get }}", {}, "invalid"),
        ("{% for a in s %}{% for b in s %}{% endfor %}{% endfor %}", {"s": "x" * 9_000}, "invalid"),
        (
            "{% for a in s %}{% if " + "s == t and " * 20 + "a %}{% endif %}{% endfor %}",
            {"s": [*range(9_000)], "t": [*range(9_000)]},
            "too_complex",
        ),
    ],
)
def test_a_job_whose_prompt_is_too_costly_is_refused(acme, prompt, params, code):
    response = acme.post(JOBS, factories.job_request(config={"start_prompt": prompt}, params=params))

    assert response.status_code == 400, response.content
    found = [(error["field"], error["code"]) for error in response.json()["errors"]]
    assert found == [("config.start_prompt", code)]
    assert "0x" not in response.content.decode()
