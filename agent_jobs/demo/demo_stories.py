"""Histories of made-up jobs: one function for each kind of story. Each ends where its job is now."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from agent_jobs.demo import demo_cast
from agent_jobs.demo.demo_cast import DemoType
from agent_jobs.demo.demo_recorder import Recorder
from agent_jobs.states import TaskStatus, WaitingFor

_ZONE = ZoneInfo("Europe/Berlin")
_CALLED_OFF = ("settled by phone", "asked twice", "no longer needed")
_CREDIT_NOTE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "invoice": {"type": "string"},
        "amount": {"type": "number", "minimum": 0},
        "currency": {"type": "string", "enum": ["EUR", "GBP", "SEK"]},
        "reason": {"type": "string"},
        "due_date": {"type": "string"},
    },
    "required": ["invoice", "amount"],
}
_RELEASE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "service": {"type": "string"},
        "version": {"type": "string"},
        "environment": {"type": "string", "enum": ["staging", "production"]},
        "window_minutes": {"type": "integer", "minimum": 5, "maximum": 120},
        "notify": {"type": "string"},
    },
    "required": ["service", "version", "environment"],
}


def invoice(rec: Recorder, kind: DemoType) -> None:
    """A chase: question, silence and follow-ups over the night, an answer, perhaps an approval."""
    params, rng = rec.job.params, rec.rng
    words = {**params, "first": str(params["name"]).split()[0]}
    opening, reply = rng.choice(demo_cast.CHASES)
    rec.begin()
    rec.model(rng.uniform(1.4, 3.1), rng.randint(1_800, 2_600))
    rec.tool("erp.get_invoice", {"invoice": params["invoice"]}, rng.uniform(0.3, 0.8), f"{params['invoice']} is open")
    rec.model(rng.uniform(1.1, 2.4), rng.randint(2_000, 3_000))
    rec.say(opening.format(**words))
    rec.end("waiting for a reply")
    for number, hours in enumerate((2.0, 4.0, 8.0)):
        answers_after = rng.lognormvariate(7.6, 1.1)
        if answers_after < hours * 3_600:
            if _stops(rec, answers_after, WaitingFor.REPLY, until=rec.at + timedelta(hours=hours)):
                return None
            break
        if _stops(rec, hours * 3_600, WaitingFor.REPLY, until=rec.at + timedelta(hours=hours)):
            return None
        if (opens := _quiet_until(rec.at)) is not None:
            rec.begin()
            rec.activity("job.deferred", f"quiet hours: held until {opens:%H:%M}")
            rec.go_on(0.1)
            rec.end("put off to the end of quiet hours")
            if _stops(rec, (opens - rec.at).total_seconds(), WaitingFor.QUIET_HOURS, until=opens):
                return None
        rec.begin()
        rec.model(rng.uniform(1.0, 2.2), rng.randint(2_200, 3_200))
        rec.say(demo_cast.FOLLOW_UPS[number].format(**words))
        rec.job.follow_ups_sent += 1
        rec.job.follow_ups_total += 1
        rec.end("waiting for a reply")
    else:
        if rng.random() < 0.4:
            return _fail(rec, kind)
        return rec.finish("COMPLETED", "", result="no_response: nobody answered, after 3 follow-ups")
    rec.hear(str(params["name"]), reply)
    rec.begin()
    rec.model(rng.uniform(2.0, 3.4), rng.randint(3_000, 3_800))
    rec.tool("wms.get_delivery_note", {"note": "DN-8812"}, rng.uniform(0.6, 1.5), "38 of 40 pallets signed for")
    rec.model(rng.uniform(2.0, 3.2), rng.randint(3_100, 3_900))
    if "pallets" in reply:
        rec.say(
            "DN-8812 shows 38 of 40 pallets signed for, so they are right. Shall I credit 5 % and move the due date?"
        )
        rec.end("waiting for a reply")
        if _stops(rec, rng.uniform(600, 7_000), WaitingFor.REPLY, until=rec.at + timedelta(hours=2)):
            return None
        rec.hear(str(params["name"]), "Yes please, go ahead. 10 December is fine.")
        rec.begin()
        rec.model(rng.uniform(1.8, 2.6), rng.randint(3_200, 3_600))
        if _approved(rec, "erp.issue_credit_note", _credit(rec), _CREDIT_NOTE, 80.0):
            return None
    rec.begin()
    rec.model(rng.uniform(1.0, 2.0), rng.randint(2_400, 3_400))
    rec.say(rng.choice(demo_cast.THANKS).format(**words))
    rec.end("done")
    if rng.random() < kind.failing:
        return _fail(rec, kind)
    rec.finish("COMPLETED", "", result=f"{params['customer']} will pay {params['invoice']} by 10 December")
    return None


def standup(rec: Recorder, kind: DemoType) -> None:
    rng, name = rec.rng, str(rec.job.params["name"])
    words = {"first": name.split()[0]}
    question, answer = rng.choice(demo_cast.STANDUPS)
    rec.begin()
    rec.model(rng.uniform(0.9, 1.8), rng.randint(600, 900))
    if rng.random() < kind.failing:
        rec.end("channel_unreachable", TaskStatus.FAILED)
        return _fail(rec, kind)
    rec.say(question.format(**words))
    rec.end("waiting for a reply")
    after = rng.lognormvariate(6.6, 1.0)
    if _stops(rec, min(after, 5_400), WaitingFor.REPLY, until=rec.at + timedelta(minutes=90)):
        return None
    rec.hear(name, answer)
    rec.begin()
    rec.model(rng.uniform(0.8, 1.6), rng.randint(700, 1_100))
    rec.say(rng.choice(demo_cast.THANKS).format(**words))
    rec.end("done")
    rec.finish("COMPLETED", "", result=f"Answered after {max(int(after // 60), 1)} min")
    return None


def report(rec: Recorder, kind: DemoType) -> None:
    """A report in many quick steps. Some fail after four attempts, because a tool does not answer."""
    rng, region = rec.rng, str(rec.job.params["region"])
    rec.begin()
    rec.say(f"I am preparing the {region} report.")
    for tool in ("crm.list_regions", "crm.get_targets", "erp.orders", "erp.returns", "erp.margins", "fx.rates"):
        if rng.random() < 0.5:
            rec.model(rng.uniform(0.9, 2.2), rng.randint(1_500, 2_600))
        rec.tool(tool, {"region": region, "as_of": f"{rec.at:%Y-%m-%d}"}, rng.uniform(0.3, 0.9), "ok")
    rec.model(rng.uniform(2.4, 3.6), rng.randint(4_000, 6_000))
    if rng.random() >= kind.failing:
        rec.tool("warehouse.query", _measure(region), rng.uniform(1.5, 6.0), "1,204 rows")
        rec.model(rng.uniform(4.0, 9.0), rng.randint(5_000, 9_000))
        rec.say(f"The {region} report is ready: 14 of 14 sections, no figure is missing.")
        rec.end("done")
        return rec.finish("COMPLETED", "", result="14 of 14 sections")
    for minutes in (5, 10, 20, None):
        rec.tool("warehouse.query", _measure(region), 30.0, "time-out after 30.0 s", error="tool_unreachable")
        rec.end("tool_unreachable: warehouse.query did not answer within 30 s", TaskStatus.FAILED)
        rec.job.failed_attempts += 1
        if minutes is None:
            break
        rec.activity("task.failed", f"attempt failed, next one in {minutes * 60} s: tool_unreachable")
        if _stops(rec, minutes * 60, WaitingFor.RETRY, until=rec.at + timedelta(minutes=minutes)):
            return None
        rec.begin()
    return _fail(rec, kind)


def sync(rec: Recorder, kind: DemoType) -> None:
    rng = rec.rng
    rec.begin()
    if rng.random() < kind.failing:
        for seconds in (5, 20, 60, 90, None):
            rec.go_on(rng.uniform(0.8, 2.0))
            rec.end("http_502: POST answered 502", TaskStatus.FAILED)
            rec.job.failed_attempts += 1
            if seconds is None:
                break
            rec.activity("task.failed", f"attempt failed, next one in {seconds} s: http_502")
            rec.go_on(seconds)
            rec.begin()
        return _fail(rec, kind)
    rec.go_on(rng.lognormvariate(0.3, 0.6))
    rec.end("done")
    return rec.finish("COMPLETED", "", result=f"200, {rng.randint(3, 90)} items changed")


def deploy(rec: Recorder, kind: DemoType) -> None:
    rng = rec.rng
    service, version, _, environment = str(rec.job.params["release"]).split()
    rec.begin()
    rec.model(rng.uniform(1.2, 2.0), rng.randint(1_400, 2_000))
    rec.tool("ci.checks", {"service": service, "version": version}, rng.uniform(0.8, 2.0), "1,204 checks passed")
    rec.say(f"{service} {version} passed 1,204 checks. Two migrations, both quick. May I release it to {environment}?")
    arguments = {
        "service": service,
        "version": version,
        "environment": environment,
        "window_minutes": 30,
        "notify": "#releases, #oncall",
    }
    if _approved(rec, "deploy.release", arguments, _RELEASE, 30.0):
        return
    rec.begin()
    rec.tool("deploy.status", {"service": service}, rng.uniform(20, 90), "healthy")
    rec.model(rng.uniform(0.8, 1.4), rng.randint(1_600, 2_100))
    rec.say(f"{service} {version} is on {environment} and healthy.")
    rec.end("done")
    rec.finish("COMPLETED", "", result="Released by Jonas Weiß")


def long(rec: Recorder, kind: DemoType) -> None:
    rng = rec.rng
    rec.begin()
    rec.go_on(rng.lognormvariate(5.6, 0.7))
    if rng.random() < kind.failing:
        rec.end(f"{kind.errors[0][0]}: {kind.errors[0][1]}", TaskStatus.FAILED)
        return _fail(rec, kind)
    if rec.is_over:
        return rec.wait(WaitingFor.RETRY, until=rec.now + timedelta(hours=20))
    rec.end("done")
    return rec.finish(
        "COMPLETED", "", result="Exit 0, 41 tables match" if "database" in rec.job.params else "4 formats"
    )


STORIES: Mapping[str, Callable[[Recorder, DemoType], None]] = {
    "invoice": invoice,
    "standup": standup,
    "report": report,
    "sync": sync,
    "deploy": deploy,
    "long": long,
}


def _stops(rec: Recorder, seconds: float, waiting_for: str, *, until: datetime) -> bool:
    """Let the job wait. True if the story ends here: somebody cancels it, or the wait ends some hours after now."""
    began = rec.at
    rec.go_on(min(seconds, 420) if rec.is_called_off else seconds)
    if not rec.is_over:
        if rec.is_called_off:
            rec.finish("CANCELED", rec.rng.choice(_CALLED_OFF), actor="user:ben")
        return rec.is_called_off
    rec.at = began
    rec.wait(waiting_for, until=max(until, rec.now + timedelta(hours=rec.rng.uniform(2, 14))))
    return True


def _approved(rec: Recorder, tool: str, arguments: dict[str, Any], schema: dict[str, Any], minutes: float) -> bool:
    """Ask for an approval; True if it is still open."""
    approval = rec.ask(tool, f"May I call {tool}?", arguments, schema, minutes)
    rec.end("waiting for approval")
    began = rec.at
    rec.go_on(rec.rng.uniform(90, 2_400))
    if rec.is_over:
        rec.at = began
        approval.expires_at = rec.now + timedelta(minutes=rec.rng.uniform(12, 140))
        rec.wait(WaitingFor.APPROVAL, until=approval.expires_at)
        return True
    rec.approve(approval, by=rec.rng.choice(("user:jonas", "user:ann", "user:ben")), reason="Looks fine.")
    return False


def _fail(rec: Recorder, kind: DemoType) -> None:
    code, message = rec.rng.choice(kind.errors) if kind.errors else ("unexpected_error", "It could not go on")
    rec.finish("FAILED", message, result=f"{code}: {message}", code=code)


def _credit(rec: Recorder) -> dict[str, Any]:
    return {
        "invoice": rec.job.params["invoice"],
        "amount": 214.5,
        "currency": "EUR",
        "reason": "2 of 40 pallets missing, DN-8812",
        "due_date": "2026-12-10",
    }


def _measure(region: str) -> dict[str, Any]:
    return {"region": region.upper(), "measure": "stock_value", "as_of": "2026-11-25"}


def _quiet_until(at: datetime) -> datetime | None:
    """The next morning, if it is between 18:00 and 08:00."""
    local = at.astimezone(_ZONE)
    if 8 <= local.hour < 18:
        return None
    morning = local.replace(hour=8, minute=0, second=0, microsecond=0)
    return morning if morning > local else morning + timedelta(days=1)
