"""`manage.py run_executor` against a running service: results, bad binaries, kills, stops, cancels and restarts."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import commands
from tests.fakes.binaries import BinaryServer
from tests.live.processes import Service, stop
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def binaries() -> Iterator[BinaryServer]:
    with BinaryServer() as server:
        yield server


@pytest.fixture(scope="module")
def service(make_home: Callable[[], Path]) -> Iterator[Service]:
    with Service(make_home()) as service:
        service.web()
        service.worker()  # for the sweep of lapsed leases
        token = service.manage("create_token", "--org", "acme", "--scope", "SERVICES:EXECUTE", "--name", "e")
        service.environment["EXECUTOR_TOKEN"] = token.strip()
        body = {"id": "run", "name": "run", "runner": "external", "default_config": {"max_time_to_complete": 10}}
        service.ok("POST", "/services/organizations/acme/agent-jobs-type", body)
        yield service


class Executors:
    """Starts executor programs that claim jobs of one type only, so that tests do not take each other's jobs."""

    def __init__(self, service: Service, binaries: BinaryServer, job_type: str) -> None:
        self.service, self.binaries, self.job_type = service, binaries, job_type
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *options: str) -> "subprocess.Popen[bytes]":
        log_name = f"{self.job_type}-{name}"
        process = self.service.spawn(
            log_name,
            "manage.py",
            "run_executor",
            *("--server", f"http://127.0.0.1:{self.service.port}", "--token-env", "EXECUTOR_TOKEN"),
            *("--name", log_name, "--types", self.job_type, "--mode", "trusted", "--allow-private"),
            *("--cache", str(self.service.folder / "cache" / self.job_type), *options),
            # Neither a database nor Django's settings.
            DATABASE_URL="postgres://nowhere.invalid/x",
            DJANGO_SETTINGS_MODULE="no.such.module",
        )
        self.started.append(process)
        wait_for(lambda: self._is_ready(process, log_name), what=f"{name} is ready")
        return process

    def _is_ready(self, process: "subprocess.Popen[bytes]", name: str) -> bool:
        assert process.poll() is None, self.log(name)
        return "ready" in self.log(name)

    def log(self, name: str) -> str:
        return self.service.log(name if name.startswith(self.job_type) else f"{self.job_type}-{name}")

    def post(self, work: dict[str, Any], **fields: Any) -> str:
        body = {"job_type_id": "run", "work": {**work, "type": self.job_type}, **fields}
        return str(self.service.ok("POST", "/services/agent-jobs", body)["data"]["job_id"])

    def attempts(self, job_id: str) -> list[tuple[Any, ...]]:
        return self.service.sql(
            "SELECT executor_id, status FROM agent_jobs_task WHERE job_id = %s ORDER BY number", job_id
        )

    def report(self, job_id: str) -> dict[str, Any]:
        ((report,),) = self.service.sql(
            "SELECT report FROM agent_jobs_task WHERE job_id = %s ORDER BY number DESC LIMIT 1", job_id
        )
        return dict(report)


@pytest.fixture
def executors(service: Service, binaries: BinaryServer, request: pytest.FixtureRequest) -> Iterator[Executors]:
    used = Executors(service, binaries, f"t{abs(hash(request.node.name)) % 10**8}")
    yield used
    for process in used.started:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)


@pytest.mark.parametrize("mode", ["trusted", "sandbox"])
def test_a_binary_runs_with_its_arguments_and_secrets(executors: Executors, binaries: BinaryServer, mode: str) -> None:
    if mode == "sandbox" and not (able := commands.probe(commands.Mode.SANDBOX)).ok:
        pytest.skip(able.reason)
    executors.start("e1", "--mode", mode)
    binary = binaries.shell(f"greet-{mode}", 'echo "$1, $WHO: $AGENT_JOBS_ATTEMPT"; echo hm >&2; test "$2" != fail')
    done = executors.post({**binary, "arguments": ["Hello"], "environment": {"WHO": "Ann"}})
    failed = executors.post({**binary, "arguments": ["Hello", "fail"], "environment": {"WHO": "Bob"}})
    assert executors.service.wait_job(done, status="COMPLETED")["result"] == "Hello, Ann: 1"
    executors.service.wait_job(failed, status="FAILED", error_code="exit_code")
    report = executors.report(failed)
    assert (report["exit_code"], report["stdout"], report["stderr"]) == (1, "Hello, Bob: 1\n", "hm\n")
    assert binaries.asked[f"/greet-{mode}"] == 1, "the second job takes the binary from the cache"
    assert "Ann" not in executors.log("e1")


BAD: dict[str, tuple[Callable[[BinaryServer], dict[str, Any]], str, str]] = {
    "wrong hash": (
        lambda server: {**server.shell("wrong", "echo must never run"), "binary_sha256": "0" * 64},
        "hash_mismatch",
        "must have the SHA-256 000",
    ),
    "redirect": (
        lambda server: {"binary_url": f"{server.url}/redirect", "binary_sha256": "0" * 64},
        "download_refused",
        "the address redirects to",
    ),
    "ten gigabytes": (
        lambda server: {"binary_url": f"{server.url}/huge", "binary_sha256": "0" * 64},
        "binary_too_large",
        "more than 1,048,576 bytes",
    ),
    "endless": (
        lambda server: {"binary_url": f"{server.url}/endless", "binary_sha256": "0" * 64},
        "binary_too_large",
        "more than 1,048,576 bytes",
    ),
    "missing": (
        lambda server: {"binary_url": f"{server.url}/missing", "binary_sha256": "0" * 64},
        "download_failed",
        "answered 404",
    ),
    "broken": (
        lambda server: {"binary_url": f"{server.url}/broken", "binary_sha256": "0" * 64},
        "download_failed",
        "answered 503",
    ),
    "noise": (lambda server: server.add("noise", b"\x00\x01\x02" * 100), "not_executable", "cannot be executed"),
    "no #!": (lambda server: server.add("lines", b"echo must never run\n"), "not_executable", "begins with #!"),
}


def test_a_bad_binary_fails_its_job_with_a_code_and_a_sentence(executors: Executors, binaries: BinaryServer) -> None:
    executors.start("e1", "--max-binary-mib", "1")
    jobs = {case: executors.post(make(binaries)) for case, (make, _, _) in BAD.items()}
    for case, job_id in jobs.items():
        job = executors.service.wait_job(job_id, status="FAILED")
        _, code, said = BAD[case]
        assert said in job["result"], case
        assert job["error_code"] == code, case
        assert "must never run" not in str(executors.report(job_id))
    kept = list((executors.service.folder / "cache" / executors.job_type).iterdir())
    assert len(kept) == 2, "only the binaries with the right hash are kept"


def test_endless_output_ends_at_the_time_limit_with_head_and_tail(executors: Executors, binaries: BinaryServer) -> None:
    executors.start("e1")
    job_id = executors.post(
        binaries.shell("yes", "echo first; while :; do echo y; done"), config={"attempt_timeout_seconds": 2}
    )
    executors.service.wait_job(job_id, status="FAILED")
    report = executors.report(job_id)
    assert report["stdout"].startswith("first\n")
    assert len(report["stdout"].encode()) <= 1024 * 1024


def test_the_job_of_a_killed_executor_is_done_by_the_other_once(
    executors: Executors, binaries: BinaryServer, make_home: Callable[[], Path]
) -> None:
    marks = make_home() / "marks"
    marks.mkdir()
    marks.chmod(0o777)
    lines = f"echo begun >> {marks}/begun; while [ ! -e {marks}/go ]; do sleep 0.1; done; echo done >> {marks}/done"
    job_id = executors.post(binaries.shell("slow", lines))
    first = executors.start("e1", "--concurrency", "1")
    wait_for(lambda: (marks / "begun").exists(), what="the first executor runs it")
    executors.start("e2", "--concurrency", "1")
    os.kill(first.pid, signal.SIGKILL)
    first.wait(PATIENCE)
    # The rest of the lease is not waited for: nobody renews it any more.
    lapsed = "UPDATE agent_jobs_job SET lease_until = now() WHERE id = %s RETURNING executor_id"
    assert executors.service.sql(lapsed, job_id) == [(f"{executors.job_type}-e1",)]
    wait_for(
        lambda: (marks / "begun").read_text().count("begun") == 2,
        what="the second executor runs it",
    )
    (marks / "go").touch()
    executors.service.wait_job(job_id, status="COMPLETED")
    names = [f"{executors.job_type}-{name}" for name in ("e1", "e2")]
    assert executors.attempts(job_id) == [(names[0], "TIMEOUT"), (names[1], "COMPLETED")]
    assert (marks / "done").read_text() == "done\n"


def test_a_stop_lets_the_running_job_end(executors: Executors, binaries: BinaryServer) -> None:
    process = executors.start("e1")
    job_id = executors.post(binaries.shell("three", "sleep 3; echo slept"))
    wait_for(lambda: "running" in executors.log("e1"), what="it runs")
    assert stop(process) == 0
    assert executors.service.job(job_id)["result"] == "slept"
    assert "stopped" in executors.log("e1")


def test_a_stop_without_grace_gives_the_job_back_at_once(executors: Executors, binaries: BinaryServer) -> None:
    process = executors.start("e1", "--grace", "0")
    job_id = executors.post(binaries.shell("long", "sleep 600"))
    wait_for(lambda: "running" in executors.log("e1"), what="it runs")
    assert stop(process) == 0
    job = executors.service.job(job_id)
    assert (job["status"], job["crash_count"]) == ("WAITING", 0)
    assert executors.attempts(job_id)[0][1] == "RELEASED"


def test_a_canceled_job_is_ended_and_reported_by_nobody(executors: Executors, binaries: BinaryServer) -> None:
    executors.start("e1")
    job_id = executors.post(binaries.shell("forever", "sleep 600"))
    wait_for(lambda: "running" in executors.log("e1"), what="it runs")
    executors.service.ok("DELETE", f"/services/agent-jobs/{job_id}")
    wait_for(lambda: "canceled" in executors.log("e1"), what="the executor has ended it")
    assert executors.attempts(job_id) == [(f"{executors.job_type}-e1", "CANCELED")]


def test_a_result_is_kept_while_the_service_restarts(executors: Executors, binaries: BinaryServer) -> None:
    executors.start("e1")
    job_id = executors.post(binaries.shell("two", "sleep 2; echo late"))
    wait_for(lambda: "running" in executors.log("e1"), what="it runs")
    web = next(one for one in executors.service.processes if b"config.serve" in _command(one) and one.poll() is None)
    web.kill()
    web.wait(PATIENCE)
    wait_for(lambda: "the result is kept" in executors.log("e1"), what="the job has ended meanwhile")
    executors.service.web()
    assert executors.service.wait_job(job_id, status="COMPLETED")["result"] == "late"


def test_an_executor_that_the_service_refuses_says_so_and_ends(service: Service) -> None:
    process = service.spawn(
        "refused",
        "manage.py",
        "run_executor",
        *("--server", f"http://127.0.0.1:{service.port}", "--token-env", "WRONG", "--mode", "trusted"),
        *("--cache", str(service.folder / "cache" / "refused")),
        WRONG=service.token,  # WRITE alone
    )
    assert process.wait(PATIENCE) == 2
    assert "SERVICES:EXECUTE" in service.log("refused")


def _command(process: "subprocess.Popen[bytes]") -> bytes:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return b""
