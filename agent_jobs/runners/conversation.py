"""Talks with people in a channel until the model says that the goal is reached.

A turn asks the model, does what it asks for by way of tools, and asks again, until it has something to say or to end
with. What people write meanwhile is taken in as the job's `on_message` says:

* `steer` (the default): the model sees it in its next step; what it was about to say is thought over once more.
* `interrupt`: as that, and a call of the model that is under way is given up.
* `enqueue`, `reject`: it waits for the next turn, or is turned away at the door (`services.replies`).

Whoever wrote is heard: a turn that would end the job, without knowing what was written meanwhile, says what it has to
say and leaves the end to the next, which follows at once.
"""

from agent_jobs import llm
from agent_jobs.runners import prompts
from agent_jobs.runners.base import (
    AwaitApproval,
    AwaitReply,
    Done,
    Failed,
    Interrupted,
    Journal,
    Outcome,
    Run,
    Said,
    Wake,
)

DEFAULT_MAX_STEPS = 20
# Times that a model which is being interrupted begins anew before it is heard to the end.
_MOST_INTERRUPTIONS = 10
_TOOK_WRITTEN = ("steer", "interrupt")


class ConversationRunner:
    name = "conversation"
    lane = "agents"
    batch_size = 1
    has_conversation = True

    def run(self, run: Run) -> Outcome:
        assert run.journal is not None, "a conversation is taken down"
        return _Turn(run, run.journal).take()


class _Turn:
    def __init__(self, run: Run, journal: Journal) -> None:
        self._run, self._journal = run, journal
        self._goal = prompts.render(run.prompt, run.params)
        self._lines: tuple[Said, ...] = run.transcript
        self._takes_written = run.config.get("on_message", "steer") in _TOOK_WRITTEN
        self._steps: list[llm.Step] = []
        self._has_thought_again = self._has_mended = False
        self._complaint = ""

    def take(self) -> Outcome:
        most = self._run.config.get("max_steps", DEFAULT_MAX_STEPS)
        for _ in range(most):
            reply = self._ask()
            if isinstance(reply, AwaitApproval):
                return reply
            if reply.calls:
                if parked := self._perform(reply):
                    return parked
            elif (outcome := self._end(reply)) is not None:
                return outcome
        return Failed("step_limit", f"the agent took more than {most} steps in one turn")

    def _ask(self) -> llm.Reply | AwaitApproval:
        for _ in range(_MOST_INTERRUPTIONS):
            if self._steps and self._takes_written:
                self._lines = self._journal.lines()
            try:
                return self._journal.ask(self._seen())
            except Interrupted:
                self._lines = self._journal.lines()
        return self._journal.ask(self._seen(), may_interrupt=False)

    def _seen(self) -> llm.Turn:
        run = self._run
        return llm.Turn(
            instructions=run.instructions,
            goal=self._goal,
            lines=tuple(llm.Line(said.author, said.text, said.is_human) for said in self._lines),
            is_follow_up=run.wake == Wake.SILENCE,
            follow_up=run.follow_ups_sent + 1,
            max_follow_ups=run.config.get("max_follow_ups", 0),
            tools=run.tools,
            steps=tuple(self._steps),
            result_schema=run.result_schema or None,
            complaint=self._complaint,
        )

    def _perform(self, reply: llm.Reply) -> AwaitApproval | None:
        answers: dict[str, str] = {}
        for call in reply.calls:
            answer = self._journal.perform(call)
            if isinstance(answer, AwaitApproval):
                return answer
            answers[call.id] = answer
        self._steps.append(llm.Step(reply.calls, answers))
        return None

    def _end(self, reply: llm.Reply) -> Outcome | None:
        """The turn's outcome, or None where the model is to think again."""
        if self._journal.is_ahead:
            return None  # it did think again, before the turn was cut off
        may_think_again = self._takes_written and not self._has_thought_again
        is_behind = (may_think_again or reply.is_done) and self._journal.count_heard() > self._heard
        if is_behind and may_think_again:
            self._has_thought_again = True
            self._lines = self._journal.lines()
            return None
        say = (reply.text,) if reply.text else ()
        if is_behind or not reply.is_done:
            return AwaitReply(say=say, heard=self._heard)
        if complaint := self._journal.complaint(reply.result_data):
            if self._has_mended:
                return Failed("invalid_result", f"the agent's result does not fit its schema: {complaint}")
            self._has_mended = True
            self._complaint = f"The result_data does not fit: {complaint}. Give the same result in the right form."
            return None
        return Done(result=reply.result, result_data=reply.result_data, say=say, heard=self._heard)

    @property
    def _heard(self) -> int:
        return sum(said.is_human for said in self._lines)
