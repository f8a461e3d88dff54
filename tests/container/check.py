"""Checks the container files without a container engine: `make check-container`.

Compose's own program resolves docker-compose.yml, the compose specification's schema holds it, hadolint reads the
Dockerfile. (`test_environment.py` beside this compares the variables, in every test run.) Building and starting the
image is `.ci/image.sh`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SECRETS = {
    "AGENT_JOBS_SECRET_KEY": "s" * 50,
    "AGENT_JOBS_TOKEN_PEPPER": "p" * 50,
    "AGENT_JOBS_SEALING_KEYS": "k1:" + "A" * 43 + "=",
    "POSTGRES_PASSWORD": "ownerpassword",
    "POSTGRES_APP_PASSWORD": "apppassword",
}
# What only those may know who are named: a word of each secret.
KNOWN_BY = {
    "ownerpassword": {"migrate", "postgres"},
    "k1:AAAA": {"web", "worker"},
    "s" * 50: {"web", "worker", "beat"},
    "p" * 50: {"web", "worker", "beat"},
}
_AT, _PLACE = "postgresql://", "@postgres:5432/agent_jobs"
BY_FILE = {
    "DATABASE_URL": "",
    "DATABASE_URL_FILE": "/run/secrets/database_url",
    **{f"{name}_FILE": f"/run/secrets/{name.lower()}" for name in SECRETS},
}


def main() -> int:
    compose = _compose_program()
    by_value = _resolve(compose, SECRETS)
    by_file = _resolve(compose, BY_FILE)
    web, web_by_file = (resolved["services"]["web"]["environment"] for resolved in (by_value, by_file))
    expect(web["DATABASE_URL"] == f"{_AT}agent_jobs_app:apppassword{_PLACE}", "the service's database address")
    for name in ("web", "worker", "beat"):
        user = urlsplit(by_value["services"][name]["environment"]["DATABASE_URL"]).username
        owner = by_value["services"]["postgres"]["environment"]["POSTGRES_USER"]
        expect(user != owner, f"the database role of {name}: it is PostgreSQL's superuser")
    migrate = by_value["services"]["migrate"]
    expect(migrate["environment"]["DATABASE_URL"] == f"{_AT}agent_jobs:ownerpassword{_PLACE}", "the owner's address")
    expect("grant_app_role agent_jobs_app" in " ".join(migrate["command"]), "the grant after migrations")
    for secret, known_by in KNOWN_BY.items():
        told = {name for name, service in by_value["services"].items() if secret in json.dumps(service)}
        expect(told == known_by, f"who knows the secret {secret[:12]}… ({told} rather than {known_by})")
    folders = {
        name: {each["source"] for each in service.get("volumes", []) if each["target"] == "/run/secrets"}
        for name, service in by_value["services"].items()
    }
    service = folders["web"]
    expect(service == folders["worker"] == folders["beat"] != set(), "one folder of secrets of the service")
    expect(not service & (folders["postgres"] | folders["migrate"]), "the service's secrets, which others see")
    expect(web_by_file["DATABASE_URL"] == "", "a database address by file alone")
    expect(web_by_file["AGENT_JOBS_SECRET_KEY_FILE"] == "/run/secrets/agent_jobs_secret_key", "a secret by file")
    for name in ("web", "worker", "beat", "postgres", "redis"):
        own = by_value["services"][name].get("healthcheck", {})
        expect(name == "web" or "test" in own, f"a health check of {name} (web has the image's)")
    data = [each["target"] for each in by_value["services"]["postgres"]["volumes"] if each["type"] == "volume"]
    expect(data == ["/var/lib/postgresql"], "PostgreSQL 18's data volume")
    _run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")
    _run(BIN / "hadolint", "Dockerfile")
    print("container files: well")
    return 0


def expect(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"docker-compose.yml: {what} is not as it should be")


def _compose_program() -> Path:
    import compose

    program = Path(compose.__file__).parent / "docker-compose"
    program.chmod(0o755)  # the package lays it down without the right to run; the environment is ours alone
    return program


def _resolve(compose: Path, variables: dict[str, str]) -> dict[str, dict[str, dict[str, dict[str, object]]]]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    command = [compose, "--env-file", os.devnull, "--file", "docker-compose.yml", "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode or "level=warning" in done.stderr:
        sys.exit(f"docker compose config: {done.stderr}")
    return json.loads(done.stdout)


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
