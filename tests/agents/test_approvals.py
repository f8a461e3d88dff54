"""A tool that needs approval parks the job until a person has decided, once, or the time for that is over."""

from functools import partial
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now

from agent_jobs import jobs, lifecycle
from agent_jobs.approvals import decisions
from agent_jobs.approvers import Person
from agent_jobs.errors import Conflict, Forbidden, Invalid, NotFound
from agent_jobs.legal_moves import Event
from agent_jobs.lifecycle import in_seconds
from agent_jobs.models import Approval, Job
from agent_jobs.states import JobStatus
from channels_integration.models import OutboundMessage
from tests import rows
from tests.agents import scripted_models
from tests.agents.scripted_models import Actor, asked, call, decide, done, said, work
from tests.conversations import again, let_time_pass
from tests.races import at_once

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everywhere")]
CAREFUL = {"type": "send_message", "requires_approval": True}


@pytest.fixture
def parked(request: pytest.FixtureRequest) -> Any:
    """A job that waits for approval of a message, its agent, and the rest of its part."""
    tool = {**CAREFUL, **getattr(request, "param", {})}
    job = scripted_models.job(tools=[tool])
    actor = Actor(call("send_message", text="Fire!"), done(text=""))
    with scripted_models.playing(actor):
        work()
        assert again(job).waiting_for == "approval"
        yield job, actor


def late(job: Job) -> None:
    Approval.objects.filter(job=job).update(expires_at=Now())
    let_time_pass(job)


def test_it_asks_with_buttons_and_holds_no_worker(parked: Any) -> None:
    job, _ = parked
    question = OutboundMessage.objects.get(owner_key=str(job.pk))
    assert '"text": "Fire!"' in question.text
    assert [label for label, _ in question.buttons] == ["Approve", "Deny"]
    assert question.buttons[0][1] == f"approve:{asked(job).pk}"
    assert again(job).lease_until is None
    assert again(job).status == JobStatus.RUNNING
    assert work() == 0


@pytest.mark.parametrize(
    ("tool", "reply", "labels"),
    [
        (CAREFUL, call("send_message", text="Fire!"), ["Approve", "Edit", "Deny"]),
        ({"type": "ask_approval"}, call("ask_approval", question="Shall I?"), ["Approve", "Deny"]),
    ],
    ids=["a tool's call", "a question of the agent's own"],
)
def test_where_there_are_forms_the_arguments_of_a_call_can_be_edited(tool: Any, reply: Any, labels: list[str]) -> None:
    job = scripted_models.job(tools=[tool], platform="slack", channel_code="C0ONE")
    with scripted_models.playing(Actor(reply)):
        work()
    question = OutboundMessage.objects.get(owner_key=str(job.pk))
    assert [label for label, _ in question.buttons] == labels
    assert {value.partition(":")[2] for _, value in question.buttons} == {str(asked(job).pk)}


def test_what_is_approved_is_done_once_and_told(parked: Any) -> None:
    job, actor = parked
    decide(job)
    work()
    assert said(job)[1:] == ["Fire!"]
    assert len(actor.turns) == 2
    assert actor.turns[1].steps[0].answers == {"c1": "Sent."}
    assert again(job).status == JobStatus.COMPLETED


def test_what_is_denied_is_not_done_and_the_agent_hears_why(parked: Any) -> None:
    job, actor = parked
    decide(job, "deny", reason="not today")
    work()
    assert len(said(job)) == 1
    assert "U0BOSS denied this" in actor.turns[1].steps[0].answers["c1"]
    assert "not today" in actor.turns[1].steps[0].answers["c1"]


def test_the_end_of_what_is_approved_is_shown_and_where_the_whole_is() -> None:
    job = scripted_models.job(tools=[CAREFUL])
    with scripted_models.playing(Actor(call("send_message", text="x" * 9_000 + "\u202eFire!"))):
        work()
    question, approval = OutboundMessage.objects.get(owner_key=str(job.pk)), asked(job)

    assert "\\u202eFire!" in question.text
    assert f"GET /services/agent-jobs/{job.pk}/approvals/{approval.pk}." in question.text
    assert [label for label, _ in question.buttons] == ["Deny"]


def test_arguments_are_the_approvers_to_change_and_the_agent_is_told(parked: Any) -> None:
    job, actor = parked
    decide(job, arguments={"text": "Water!"}, reason="no fire")
    work()
    assert said(job)[1:] == ["Water!"]
    told = actor.turns[1].steps[0].answers["c1"]
    assert "U0BOSS" in told
    assert '{"text": "Water!"}' in told
    assert "no fire" in told
    assert told.endswith("Sent.")


def test_the_words_of_an_approval_are_told(parked: Any) -> None:
    job, actor = parked
    decide(job, reason="go, but be quick")
    work()
    assert 'approved this, with these words: "go, but be quick".\nSent.' in actor.turns[1].steps[0].answers["c1"]


def test_the_words_of_an_approval_that_the_agent_asked_for_are_told() -> None:
    job = scripted_models.job(tools=[{"type": "ask_approval"}])
    actor = Actor(call("ask_approval", question="Shall I?"), done(text=""))
    with scripted_models.playing(actor):
        work()
        decide(job, reason="go, but be quick")
        work()
    told = actor.turns[1].steps[0].answers["c1"]
    assert "approved this" in told
    assert "go, but be quick" in told


def test_changed_arguments_have_to_fit_the_tool(parked: Any) -> None:
    job, _ = parked
    with pytest.raises(Invalid) as refused:
        decide(job, arguments={"text": 3})
    assert refused.value.errors[0].field == "arguments.text"
    assert asked(job)


@pytest.mark.parametrize("parked", [{"approvers": ["U0BOSS"]}], indirect=True)
def test_only_an_approver_decides(parked: Any) -> None:
    job, _ = parked
    with pytest.raises(Forbidden):
        decide(job, by="U0CAT")
    decide(job, by="U0BOSS")


def test_another_organisation_decides_nothing(parked: Any) -> None:
    job, _ = parked
    with pytest.raises(NotFound):
        decisions.decide("rival", asked(job).pk, "approve", by=Person("slack", "U0BOSS"), actor=rows.TESTER)


@pytest.mark.parametrize(
    ("parked", "status", "outcome"),
    [
        ({"on_timeout": "deny"}, JobStatus.COMPLETED, []),
        ({"on_timeout": "approve"}, JobStatus.COMPLETED, ["Fire!"]),
        ({"on_timeout": "fail"}, JobStatus.FAILED, []),
    ],
    indirect=["parked"],
)
def test_its_time_runs_out_as_the_tool_says(parked: Any, status: str, outcome: list[str]) -> None:
    job, _ = parked
    late(job)
    work()
    assert again(job).status == status
    assert said(job)[1:] == outcome
    assert again(job).error_code == ("approval_expired" if status == JobStatus.FAILED else "")


def test_nobody_decides_when_the_time_is_over(parked: Any) -> None:
    job, _ = parked
    Approval.objects.filter(job=job).update(expires_at=Now())
    with pytest.raises(Conflict):
        decide(job)


def test_waking_a_moment_too_soon_asks_nothing_twice(parked: Any) -> None:
    job, _ = parked
    let_time_pass(job)
    work()
    assert again(job).waiting_for == "approval"
    assert len(said(job)) == 1
    assert OutboundMessage.objects.filter(owner_key=str(job.pk)).count() == 1
    decide(job)
    work()
    assert said(job)[1:] == ["Fire!"]


def test_what_people_write_meanwhile_is_kept_for_the_agent(parked: Any) -> None:
    job, actor = parked
    scripted_models.reply(job, "what is this about?")
    assert work() == 0
    decide(job)
    work()
    assert [line.text for line in actor.turns[1].lines if line.is_human] == ["what is this about?"]


def test_a_worker_that_dies_after_the_decision_calls_it_all_the_same_once(parked: Any) -> None:
    job, _ = parked
    decide(job)
    Job.objects.filter(pk=job.pk).update(queue_at=None, lease_until=in_seconds(30), lease_token=F("lease_token") + 1)
    scripted_models.crash(job)
    work()
    assert said(job)[1:] == ["Fire!"]


def test_a_canceled_job_has_nothing_left_to_approve(parked: Any) -> None:
    job, _ = parked
    approval = asked(job)
    jobs.cancel("acme", job.pk, actor=rows.TESTER)
    assert Approval.objects.get(pk=approval.pk).status == "withdrawn"
    with pytest.raises(Conflict):
        decisions.decide("acme", approval.pk, "approve", by=Person("slack", "U0BOSS"), actor=rows.TESTER)


@pytest.mark.parametrize("event", ["cancel", "fail"])
@pytest.mark.parametrize("is_taken_back", [False, True])
def test_one_that_was_being_asked_for_when_its_job_ended_is_withdrawn_too(event: str, is_taken_back: bool) -> None:
    """Written down by a worker that had not come so far as to park the job; perhaps it died at that."""
    job = rows.job(JobStatus.RUNNING, runner="conversation", lane="agents")
    approval = rows.approval(job)
    if is_taken_back:
        scripted_models.crash(job)
    if event == "cancel":
        jobs.cancel("acme", job.pk, actor=rows.TESTER)
    else:
        lifecycle.move_one(Event.FAIL, again(job), actor=rows.TESTER, error_code="deadline_exceeded")
    assert Approval.objects.get(pk=approval.pk).status == "withdrawn"


def test_an_agent_may_ask_of_its_own_accord() -> None:
    job = scripted_models.job(tools=[{"type": "ask_approval"}])
    actor = Actor(call("ask_approval", question="Shall I?", details="It costs 3 EUR."), done(text=""))
    with scripted_models.playing(actor):
        work()
        assert said(job) == ["Shall I?\nIt costs 3 EUR."]
        decide(job)
        work()
    assert actor.turns[1].steps[0].answers == {"c1": "Approved."}


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_decide_once() -> None:
    job = scripted_models.job(tools=[CAREFUL])
    with scripted_models.playing(Actor(call("send_message", text="Fire!"))):
        work()
    approval = asked(job)

    def press(number: int) -> Approval:
        decision = "approve" if number % 2 else "deny"
        return decisions.decide("acme", approval.pk, decision, by=Person("slack", f"U{number}"), actor=rows.TESTER)

    outcomes = at_once(*[partial(press, number) for number in range(20)])
    (winner,) = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Conflict)]
    assert Approval.objects.get(pk=approval.pk).decided_by == f"U{winner}"
