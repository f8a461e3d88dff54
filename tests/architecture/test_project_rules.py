"""Rules of this project that no linter knows, read off the source. Each is tried against what it must find."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, SOURCES, parsed, walked, written


def calls(source: ast.AST | Path) -> Iterator[ast.Call]:
    tree = parsed(source) if isinstance(source, Path) else source
    return (node for node in walked(tree) if isinstance(node, ast.Call))


def name_of(call: ast.Call) -> str:
    return written(call.func).split(".")[-1]


def options(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: written(keyword.value) for keyword in call.keywords}


@dataclass(frozen=True)
class Rule:
    """`finds` yields line numbers. `except_in`: where an exception is allowed, with a reason there."""

    finds: Callable[[ast.AST], Iterator[int]]
    planted: tuple[str, ...]
    fine: tuple[str, ...] = ()
    except_in: tuple[str, ...] = ()


def called(matches: Callable[[ast.Call], bool]) -> Callable[[ast.AST], Iterator[int]]:
    return lambda tree: (call.lineno for call in calls(tree) if matches(call))


def imported(*modules: str) -> Callable[[ast.AST], Iterator[int]]:
    def finds(tree: ast.AST) -> Iterator[int]:
        for node in walked(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            if any(name == module or name.startswith(f"{module}.") for name in names for module in modules):
                yield node.lineno

    return finds


def waits_in_celery(call: ast.Call) -> bool:
    if name_of(call) == "retry" and written(call.func).startswith("self."):
        return True
    kept = {"eta", "countdown", "acks_late", "autoretry_for", "expires"}
    is_celerys = {"apply_async", "send_task", "shared_task", "task", "signature", "s", "si"}
    return name_of(call) in is_celerys and bool(kept & set(options(call)))


def slack_clients_that_send_twice(tree: ast.AST) -> Iterator[int]:
    known = {"WebClient", "AsyncWebClient"}
    for node in walked(tree):
        if isinstance(node, ast.ClassDef) and known & {written(base).split(".")[-1] for base in node.bases}:
            known.add(node.name)
    return (
        call.lineno for call in calls(tree) if name_of(call) in known and options(call).get("retry_handlers") != "[]"
    )


RAW_INPUT = re.compile(r"\brequest\.(GET|POST|data|query_params|META|headers|body|COOKIES)\b")


def asks_by_raw_input(call: ast.Call) -> bool:
    inputs = [written(argument) for argument in call.args] + list(options(call).values())
    is_query = name_of(call) in {"order_by", "filter", "exclude", "annotate", "alias", "values", "values_list"}
    return is_query and any(RAW_INPUT.search(text) for text in inputs)


def logs_what_was_sent(call: ast.Call) -> bool:
    if not re.search(r"(^|\.)(\w*log|\w*logger|logging)\.\w+$", written(call.func)):
        return False
    said = " ".join([*(written(argument) for argument in call.args), *options(call).values()])
    return bool(re.search(r"\.headers\b|\.body\b|\brequest\.data\b|\bMETA\b|\.COOKIES\b", said))


def strings(tree: ast.AST, pattern: str) -> Iterator[int]:
    return (
        node.lineno
        for node in walked(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(pattern, node.value, re.I)
    )


def assigns(tree: ast.AST, name: str, *values: str) -> Iterator[int]:
    return (
        node.lineno
        for node in walked(tree)
        if isinstance(node, ast.Assign)
        and any(written(target) == name for target in node.targets)
        and written(node.value) in values
    )


def mentions(*names: str) -> Callable[[ast.AST], Iterator[int]]:
    return lambda tree: (
        node.lineno for node in walked(tree) if isinstance(node, ast.Name | ast.Attribute) and _last(node) in names
    )


def _last(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


RULES = {
    "waiting is left to rows and not to Celery": Rule(
        called(waits_in_celery),
        (
            "ring.apply_async(eta=later)",
            "ring.apply_async((), countdown=5)",
            "app.send_task('x', expires=3)",
            "ring.s(countdown=1)",
            "@app.task(acks_late=True)\ndef f(): pass",
            "def f(self):\n    raise self.retry()",
        ),
        ("ring.apply_async(queue='x')", "client.retry()"),
    ),
    "Slack's client does not send a second time by itself": Rule(
        slack_clients_that_send_twice,
        (
            "WebClient(token=t)",
            "slack_sdk.WebClient(token=t, retry_handlers=[x])",
            "class Mine(WebClient): pass\nMine(token=t)",
        ),
        ("WebClient(token=t, retry_handlers=[])",),
    ),
    "nobody sleeps": Rule(
        lambda tree: (
            *called(lambda call: written(call.func) == "time.sleep")(tree),
            *imported("time.sleep")(tree),
        ),
        ("time.sleep(1)", "from time import sleep"),
        ("pause.wait(1)",),
    ),
    "no order or filter comes straight from a request": Rule(
        called(asks_by_raw_input),
        (
            "Job.objects.order_by(request.GET['sort'])",
            "jobs.filter(**request.query_params)",
            "jobs.exclude(code=self.request.data['code'])",
            "jobs.values(*request.GET.getlist('fields'))",
        ),
        ("jobs.filter(org_id=request.auth.org_id)", "jobs.order_by(*page.order)"),
    ),
    "no query is written past the ORM but in a cursor": Rule(
        called(
            lambda call: name_of(call) in {"raw", "extra", "RawSQL"} and isinstance(call.func, ast.Attribute | ast.Name)
        ),
        ("Job.objects.raw('SELECT 1')", "jobs.extra(where=['x'])", "jobs.annotate(x=RawSQL('x', []))"),
        ("cursor.execute('SELECT 1')",),
    ),
    "headers and bodies are not logged": Rule(
        called(logs_what_was_sent),
        (
            "log.info('%s', request.headers)",
            "logger.warning(f'{request.body}')",
            "logging.error('x', extra={'sent': request.data})",
            "self._log.debug(request.META)",
        ),
        ("log.info('%s', request.path)",),
    ),
    "no setting of a session outlives its transaction": Rule(
        lambda tree: strings(
            tree, r"set_config\([^)]*,\s*false\s*\)|^\s*SET\s+(?!LOCAL\b)(SESSION\b|\w+(\.\w+)?\s*(=|TO\b))"
        ),
        ("run('SELECT set_config(%s, %s, false)')", "run('SET app.org = 1')", "run('SET SESSION x TO 1')"),
        ("run('SELECT set_config(%s, %s, true)')", "run('SET LOCAL x = 1')"),
    ),
    "programs are started in one place": Rule(
        imported("subprocess", "os.system", "os.popen", "pty", "commands"),
        ("import subprocess", "from subprocess import run", "from os import system"),
        ("import os",),
        # The children for a job's last attempt and for tenants' schemas and templates, and tenants' commands; the
        # development stack is none of the service's.
        ("agent_jobs/runners/invocation.py", "agent_jobs/sandbox/pool.py", "infra/commands/", "config/"),
    ),
    "no shell is asked": Rule(
        called(lambda call: options(call).get("shell") == "True" or written(call.func) in {"os.system", "os.popen"}),
        ("subprocess.run(x, shell=True)", "os.system('x')", "os.popen('x')"),
    ),
    "nothing is read that may carry code": Rule(
        lambda tree: (
            *imported("pickle", "marshal", "shelve", "dill")(tree),
            *called(lambda call: written(call.func) in {"yaml.load", "eval", "exec", "compile"})(tree),
        ),
        ("import pickle", "from marshal import loads", "yaml.load(text)", "eval(text)", "exec(text)"),
        ("re.compile('x')", "yaml.safe_load(text)"),
        ("agent_jobs/runners/invocation.py",),  # between a worker and its own child
    ),
    "templates of others run in a sandbox": Rule(
        called(lambda call: name_of(call) in {"Environment", "Template"} and "Sandbox" not in written(call.func)),
        ("jinja2.Environment()", "Template(text)"),
        ("SandboxedEnvironment()", "ImmutableSandboxedEnvironment()"),
    ),
    "HTML is escaped": Rule(
        mentions("mark_safe", "SafeString", "SafeText", "html_safe"),
        ("mark_safe(text)", "safestring.SafeString(text)", "from_x = html_safe"),
        ("format_html('<b>{}</b>', text)",),
    ),
    "certificates are looked at": Rule(
        lambda tree: (
            *called(lambda call: options(call).get("verify") == "False")(tree),
            *mentions("_create_unverified_context", "CERT_NONE")(tree),
            *assigns(tree, "session.verify", "False"),
        ),
        ("requests.get(u, verify=False)", "ssl._create_unverified_context()", "session.verify = False"),
        ("requests.get(u, verify=bundle)",),
    ),
    "a form needs its token": Rule(
        mentions("csrf_exempt"),
        ("@csrf_exempt\ndef f(): pass",),
        (),
        ("channels_integration/urls.py",),  # Slack signs what it sends
    ),
    "other people's servers are asked through one client": Rule(
        imported("urllib.request", "http.client", "aiohttp", "httpx", "httpx2", "httpcore2", "requests", "urllib3"),
        ("import requests", "from urllib import request", "import http.client"),
        ("from urllib.parse import urlsplit",),
        # The guarded clients; the shape of a request that slack_sdk hands over; our own web process, from the
        # development stack.
        (
            "infra/egress/",
            "channels_integration/platforms/slack.py",
            "config/",
        ),
    ),
    "a client keeps no cookies": Rule(
        lambda tree: (
            node.lineno
            for function in walked(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            if "NoCookies" not in written(function)
            for node in walked(function)
            if isinstance(node, ast.Call)
            if re.fullmatch(r"httpx2?\.(Async)?Client", written(node.func))
        ),
        ("def f():\n    return httpx2.AsyncClient()", "def f():\n    return httpx.Client()"),
        ("def f():\n    return httpx2.AsyncClient(cookies=CookieJar(addresses.NoCookies()))",),
    ),
    "who needs no token is written down here": Rule(
        lambda tree: assigns(tree, "authentication_classes", "()", "[]"),
        ("class V:\n    authentication_classes = ()", "class V:\n    authentication_classes = []"),
        ("class V:\n    authentication_classes = (X,)",),
        (
            "agent_jobs/api/docs.py",
            "agent_jobs/api/health.py",
            "agent_jobs/dialects/base.py",
        ),
    ),
    "a serializer names its fields": Rule(
        lambda tree: assigns(tree, "fields", "'__all__'"),
        ("class Meta:\n    fields = '__all__'",),
        ("class Meta:\n    fields = ('a',)",),
    ),
}
PLANTED = [(name, snippet) for name, rule in RULES.items() for snippet in rule.planted]
FINE = [(name, snippet) for name, rule in RULES.items() for snippet in rule.fine]


@pytest.mark.parametrize("name", RULES)
def test_every_source_keeps_the_rule(name: str) -> None:
    rule = RULES[name]
    broken = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        if not str(path.relative_to(ROOT)).startswith(rule.except_in or ("nowhere",))
        for line in rule.finds(parsed(path))
    ]
    assert broken == []


@pytest.mark.parametrize(("name", "snippet"), PLANTED)
def test_the_rule_finds_what_breaks_it(name: str, snippet: str) -> None:
    assert list(RULES[name].finds(ast.parse(snippet)))


@pytest.mark.parametrize(("name", "snippet"), FINE)
def test_the_rule_lets_pass_what_keeps_it(name: str, snippet: str) -> None:
    assert not list(RULES[name].finds(ast.parse(snippet)))


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.except_in])
def test_an_exception_is_still_needed(name: str) -> None:
    rule = RULES[name]
    for place in rule.except_in:
        paths = [path for path in SOURCES if str(path.relative_to(ROOT)).startswith(place)]
        assert any(list(rule.finds(parsed(path))) for path in paths), place


def test_only_lifecycle_writes_a_status_of_a_job() -> None:
    """The one exception is the first status, which a job is created with."""
    writers = set()
    for path in SOURCES:
        if path.is_relative_to(ROOT / "agent_jobs"):
            text = path.read_text()
            if re.search(r'UPDATE agent_jobs_job\b(?:(?!""").)*?\bstatus\s*=', text, re.S) or re.search(
                r"\b(?:Job\.objects|jobs?|rows|movable)\b[^\n]*\.update\([^)]*\bstatus=", text, re.S
            ):
                writers.add(path)
    package = ROOT / "agent_jobs" / "lifecycle"
    assert {path.name for path in writers if path.is_relative_to(package)} >= {"claims.py", "moves.py"}
    assert {path for path in writers if not path.is_relative_to(package)} == set()


def test_activities_are_written_in_one_place() -> None:
    """`lifecycle.activities.note` and the statements of the hot path beside it."""
    has_own_statement = {
        "agent_jobs/budgets/call_activity.py",  # an upsert: a late reply corrects the activity of its call
        "agent_jobs/conversation/replies.py",  # a person's message, its activity and its count are one round trip
        "agent_jobs/demo/demo_filling.py",  # a month of made-up history
        "agent_jobs/turns/left_out_tools.py",  # turns that find the same reasons write them once
    }
    writers = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if not path.is_relative_to(ROOT / "agent_jobs" / "lifecycle")
        if re.search(
            r"INSERT INTO agent_jobs_activity\b|\bActivity\.objects\.(bulk_)?create\(|\bActivity\(org", path.read_text()
        )
    }
    assert writers == has_own_statement


def test_no_lease_or_due_time_is_decided_by_a_processes_own_clock() -> None:
    """Promise I17: clocks of processes may be wrong, the database's counts."""
    decides_nothing = {
        "agent_jobs/tenants/app_tokens.py",  # notes roughly when a token was last used
        "agent_jobs/runners/webhook_request.py",  # the time of a signature, as its receiver checks it
        "agent_jobs/dialects/chadburn/chadburn_views.py",  # says when a rate limit ends, as its clients read it
        "agent_jobs/console/sessions.py",
        "agent_jobs/console/visits.py",  # says how long ago something was
        "agent_jobs/management/commands/demo_data.py",  # history is written up to now
        "agent_jobs/dialects/workspace/workspace_logins.py",  # stamps tokens, whose readers check their own clock
        "agent_jobs/api/job_messages.py",  # when an app brought a reply in
        "agent_jobs/api/jobs.py",  # refuses a date that is years away
    }
    deciders = [path for path in SOURCES if path.is_relative_to(ROOT / "agent_jobs")]
    readers = {
        str(path.relative_to(ROOT))
        for path in deciders
        for call in calls(path)
        if written(call.func) in {"timezone.now", "datetime.now", "time.time"}
    }
    assert readers == decides_nothing


def test_no_module_has_more_than_400_lines() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: size for name, size in sizes.items() if size > 400} == {}


def test_a_docstring_begins_with_its_subject() -> None:
    """A text that begins in the middle of a sentence makes its reader guess what it speaks of."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path in (*SOURCES, *sorted((ROOT / "tests").rglob("*.py")))
        for node in ast.walk(parsed(path))
        if isinstance(node, documented) and (text := ast.get_docstring(node))
        if text.partition(" ")[0] in {"Of", "In", "What", "Which", "Who", "Whose"}
    ]
    assert found == []


def test_the_names_of_tests_are_the_same_in_each_process() -> None:
    """A text among a test's parameters is part of its name, and pytest's processes must agree on all names."""
    chance = {"uuid4", "uuid7", "token_hex", "token_urlsafe", "now", "time", "random"}
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        for text in _without_dicts(decorator)
        if isinstance(text, ast.JoinedStr) or (isinstance(text, ast.Call) and ast.unparse(text.func) == "str")
        for call in ast.walk(text)
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in chance
    ]
    assert found == []


def _without_dicts(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Dict):
            yield child
            yield from _without_dicts(child)
