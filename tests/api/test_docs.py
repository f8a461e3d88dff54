"""The OpenAPI document is whole and without warnings, and the page that shows it asks nobody else for anything."""

import io
import re

import pytest
import yaml
from django.contrib.staticfiles import finders
from django.core.management import call_command

from agent_jobs import dialects
from tests.api.test_isolation import ROWS

JOBS = "/services/agent-jobs"
EXTERNAL = re.compile(r"(https?:)?//(?!127\.0\.0\.1|localhost|testserver)[a-z0-9.-]+\.[a-z]+", re.IGNORECASE)


@pytest.fixture(scope="module")
def document():
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json", stdout=out)
    return yaml.safe_load(out.getvalue())


def test_the_document_is_valid_and_without_warnings(document):
    assert document["openapi"].startswith("3.")


def test_every_operation_is_described(document):
    described = {
        (path.removeprefix("/services/").replace("{", "<str:").replace("}", ">"), method.upper())
        for path, item in document["paths"].items()
        for method in item
        if path.startswith("/services/")
    }

    foreign = {f"{dialect.mount}{route}" for dialect in dialects.DIALECTS for route, _ in dialect.routes}
    assert described == {row for row in ROWS if row[0] != "agent-jobs/" and row[0] not in foreign}


def test_every_address_of_a_dialect_is_described_under_its_heading(document):
    for dialect in dialects.DIALECTS:
        for route, _ in dialect.routes:
            item = document["paths"][f"/{dialect.mount}{route}".replace("<str:", "{").replace(">", "}")]
            assert {tag for operation in item.values() for tag in operation["tags"]} == {dialect.name.title()}


def test_every_documented_status_of_the_job_endpoints_is_described(document):
    def statuses(path, method):
        return set(document["paths"][path][method]["responses"])

    assert statuses(JOBS, "post") >= {"201", "400", "401", "403", "404", "409", "411", "413", "415", "422", "503"}
    assert statuses(JOBS, "get") >= {"200", "400", "401", "403"}
    assert statuses(f"{JOBS}/{{job_id}}", "get") >= {"200", "400", "401", "403", "404"}
    assert statuses(f"{JOBS}/{{job_id}}", "delete") >= {"200", "400", "401", "403", "404", "409"}


def test_every_refusal_has_the_form_of_our_errors(document):
    """Dialects have formats of their own."""
    for path, item in document["paths"].items():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                if status >= "400" and path.startswith(("/services", "/organizations")):
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Refusal"}, (path, status)


def test_the_headers_of_answers_are_described(document):
    responses = document["paths"][JOBS]["post"]["responses"]
    everywhere = {"X-Request-ID", "RateLimit", "RateLimit-Policy"}
    assert set(responses["201"]["headers"]) == everywhere
    assert set(responses["429"]["headers"]) == set(responses["503"]["headers"]) == everywhere | {"Retry-After"}


def test_every_filter_and_the_key_are_described(document):
    listed = {parameter["name"] for parameter in document["paths"][JOBS]["get"]["parameters"]}
    assert listed >= {
        *("status", "scheduled_at", "scheduled_at_gte", "scheduled_at_lte", "created_at_gte", "created_at_lte"),
        *("job_type_id", "channel_code", "limit", "offset", "sort", "include", "tags", "org_id", "cursor"),
    }
    posted = {parameter["name"] for parameter in document["paths"][JOBS]["post"]["parameters"]}
    assert posted == {"delay", "org_id", "Idempotency-Key"}


def test_the_documents_examples_are_shown(document):
    body = document["paths"][JOBS]["post"]["requestBody"]["content"]["application/json"]
    assert len(body["examples"]) == 2


def test_operations_need_a_token(document):
    assert document["paths"][JOBS]["get"]["security"] == [{"appToken": []}]
    assert document["components"]["securitySchemes"]["appToken"]["scheme"] == "bearer"


@pytest.mark.parametrize(("query", "kind"), [("", "openapi"), ("?format=json", "json"), ("?format=yaml", "openapi")])
def test_the_document_is_served_to_everybody(client, query, kind):
    response = client.get(f"/schema{query}")

    assert response.status_code == 200
    assert kind in response["Content-Type"]


def test_the_page_is_served_and_asks_nobody_else(client):
    page = client.get("/docs")
    script = client.get("/docs?script=")

    assert page.status_code == script.status_code == 200
    assert "default-src 'none'" in page["Content-Security-Policy"]
    html = page.content.decode()
    assert not EXTERNAL.search(html)
    assert not EXTERNAL.search(script.content.decode())
    assert "<script>" not in html
    for address in re.findall(r'(?:src|href)="/static/([^"]+)"', html):
        assert finders.find(address), address
    assert len(re.findall(r'src="/static/', html)) == 2


def test_the_page_asks_no_validator_on_the_internet(client):
    assert '"validatorUrl": null' in client.get("/docs?script=").content.decode()
