"""A replay takes over what is recorded: up to a step nothing is asked, called or paid for a second time."""

import pytest

from agent_jobs import jobs, lifecycle, llm
from agent_jobs.errors import Invalid
from agent_jobs.jobs.repeats import Changes
from agent_jobs.legal_moves import Event
from agent_jobs.models import Job, Step
from agent_jobs.states import JobStatus
from tests import rows
from tests.agents import scripted_models
from tests.agents.scripted_models import Actor, call, done, said, steps, work
from tests.conversations import again

pytestmark = pytest.mark.django_db


def replay(job: Job, from_step: int) -> Job:
    return jobs.replay("acme", job.pk, Changes(from_step=from_step), actor=rows.TESTER)


@pytest.fixture
def source() -> Job:
    """A job that has ended: model 1, tool 2, model 3, tool 4, model 5, and a second turn after a reply."""
    rows.job_type(runner="conversation", tools=[{"type": "send_message"}])
    job = scripted_models.job()
    actor = Actor(
        call("send_message", text="A"),
        call("send_message", text="B"),
        llm.Reply(text="C?"),
        call("send_message", text="D"),
        done("the end", text="E"),
    )
    with scripted_models.playing(actor):
        work()
        scripted_models.reply(job)
        work()
    assert again(job).status == JobStatus.COMPLETED
    assert [number for number, _ in enumerate(steps(job), 1)] == [1, 2, 3, 4, 5, 6, 7, 8]
    return job


# from_step → what the model is still asked, and what is said
@pytest.mark.parametrize(
    ("from_step", "asked", "words"),
    [
        (1, 3, ["new", "new", "new?"]),
        (2, 2, ["A", "new", "new?"]),
        (3, 2, ["new", "new?"]),
        (4, 1, ["B", "new?"]),
        (5, 1, ["new?"]),
        (6, 0, ["C?"]),
    ],
)
def test_what_is_recorded_below_the_step_is_not_done_again(
    source: Job, from_step: int, asked: int, words: list[str]
) -> None:
    new = [call("send_message", text="new"), call("send_message", text="new"), llm.Reply(text="new?")]
    actor = Actor(*new[3 - asked :])
    job = replay(source, from_step)
    with scripted_models.playing(actor):
        work()
    assert len(actor.turns) == asked
    assert said(job) == words
    assert steps(job) == steps(source)[:5]
    assert again(job).waiting_for == "reply"


def test_only_the_first_turn_can_be_taken_over_for_later_ones_hang_on_what_people_said(source: Job) -> None:
    with pytest.raises(Invalid, match="from 1 to 6") as refusal:
        replay(source, 7)
    assert [error.field for error in refusal.value.errors] == ["from_step"]
    assert Job.objects.count() == 1


def test_a_step_without_an_outcome_cannot_be_taken_over(source: Job) -> None:
    Step.objects.filter(job=source, number=4).update(output=None)
    assert replay(source, 4)
    with pytest.raises(Invalid, match="from 1 to 4"):
        replay(source, 5)


def test_a_job_that_has_done_nothing_has_nothing_to_take_over() -> None:
    rows.job_type()
    job = rows.job()
    assert replay(job, 1)
    with pytest.raises(Invalid, match="from 1 to 1"):
        replay(job, 2)


def test_steps_are_those_of_the_last_life(source: Job) -> None:
    job = scripted_models.job()
    failing = Actor(call("send_message", text="old"), ValueError("broken"))
    with scripted_models.playing(failing):
        work()
    assert again(job).status == JobStatus.FAILED
    jobs.retry("acme", job.pk, actor=rows.TESTER)
    with scripted_models.playing(Actor(call("send_message", text="of the new life"), llm.Reply(text="?"))):
        work()
    lifecycle.move_one(Event.CANCEL, again(job), actor=rows.TESTER)
    made = replay(job, 2)
    actor = Actor(llm.Reply(text="??"))
    with scripted_models.playing(actor):
        work()
    assert said(made) == ["of the new life", "??"]


def test_a_retry_does_everything_anew() -> None:
    job = scripted_models.job()
    with scripted_models.playing(Actor(call("send_message", text="old"), ValueError("broken"))):
        work()
    jobs.retry("acme", job.pk, actor=rows.TESTER)
    actor = Actor(call("send_message", text="new"), done(text="done"))
    with scripted_models.playing(actor):
        work()
    assert len(actor.turns) == 2
    assert said(job) == ["old", "new", "done"]
    assert list(Step.objects.filter(job=job).order_by("life", "number").values_list("life", "number"))[-3:] == [
        (1, 1),
        (1, 2),
        (1, 3),
    ]
