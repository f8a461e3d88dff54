"""Talks with people in a channel until the model says that the goal is reached.

A turn asks the model, does what it asks for by way of tools, and asks again, until it has something to say or to end
with. What people write meanwhile is taken in as the job's `on_message` says:

* `steer` (the default): the model sees it in its next step; what it was about to say is thought over once more.
* `interrupt`: as that, and a call of the model that is under way is given up.
* `enqueue`, `reject`: it waits for the next turn, or is turned away at the door (`conversation.replies`).

An answer of the model that cannot be taken (`llm.Slip`) is a step like any other: the model is told what is wrong with
it and asked again, `MAX_SLIPS` times in a turn. Then the turn fails, and may be tried again.

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
# Answers of a model that cannot be taken and that it is told of, in one turn; one more fails the turn.
MAX_SLIPS = 2
# Times that a model which is being interrupted begins anew before it is heard to the end.
_MOST_INTERRUPTIONS = 10
_TOOK_WRITTEN = ("steer", "interrupt")
_GO_ON = "Go on where you stopped. Nothing of what you wrote so far has been said."
_NOTHING_SAID = llm.Slip(
    "nothing_said",
    "it waits for an answer, and nothing was ever said to anybody",
    "Say something first, or end the job.",
)


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
        self._slips = 0
        self._has_thought_again = False

    def take(self) -> Outcome:
        most = self._run.config.get("max_steps", DEFAULT_MAX_STEPS)
        for _ in range(most):
            reply = self._ask()
            if isinstance(reply, AwaitApproval):
                return reply
            if (outcome := self._act_on(reply)) is not None:
                return outcome
        return Failed("step_limit", f"the agent took more than {most} steps in one turn")

    def _act_on(self, reply: llm.Reply) -> Outcome | None:
        """The turn's outcome, or None where the model is to be asked once more."""
        if reply.slip:
            return self._complain(reply.slip)
        if reply.is_paused:
            self._steps.append(llm.Step(text=reply.text, note=_GO_ON))
            return None
        return self._perform(reply) if reply.calls else self._end(reply)

    def _complain(self, slip: llm.Slip) -> Failed | None:
        """Tell the model what is wrong with its answer; fail the turn where it was told often enough."""
        if slip.is_final or self._slips == MAX_SLIPS:
            self._journal.disown(slip.code)
            return Failed(slip.code, slip.what, is_retryable=not slip.is_final)
        self._slips += 1
        self._steps.append(llm.Step(note=slip.told))
        return None

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
        )

    def _perform(self, reply: llm.Reply) -> AwaitApproval | None:
        if reply.say:
            self._journal.say(reply.say)
        answers: dict[str, str] = {}
        for call in reply.calls:
            answer = self._journal.perform(call)
            if isinstance(answer, AwaitApproval):
                return answer
            answers[call.id] = answer
        # Where the transcript is read again before the next step, these words stand there.
        text = "" if self._takes_written else "\n".join(reply.say)
        self._steps.append(llm.Step(reply.calls, answers, text=text, note=reply.note))
        return None

    def _end(self, reply: llm.Reply) -> Outcome | None:
        if self._journal.is_ahead:
            return None  # it did think again, before the turn was cut off
        may_think_again = self._takes_written and not self._has_thought_again
        is_behind = (may_think_again or reply.is_done) and self._journal.count_heard() > self._heard
        if is_behind and may_think_again:
            self._has_thought_again = True
            self._lines = self._journal.lines()
            return None
        if is_behind or not reply.is_done:
            if not reply.say and not self._has_spoken():
                return self._complain(_NOTHING_SAID)
            return AwaitReply(say=reply.say, heard=self._heard)
        result_data, misfit = self._journal.fitted(reply.result_data)
        if misfit:
            what = f"the result_data does not fit its schema: {misfit}"
            return self._complain(llm.Slip("invalid_result", what, "Give the same result in the right form."))
        return Done(result=reply.result, result_data=result_data, say=reply.say, heard=self._heard)

    def _has_spoken(self) -> bool:
        """Whether the agent ever said anything in this job, or just now by a tool."""
        return any(not said.is_human for said in (*self._lines, *self._journal.lines()))

    @property
    def _heard(self) -> int:
        return sum(said.is_human for said in self._lines)
