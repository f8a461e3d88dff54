"""Talks with people in a channel until the model says that the goal is reached.

A turn asks the model, makes the tool calls that it requests, and asks again. It ends when the model answers people or
ends the job. The job's `on_message` decides about messages that people write during a turn:

* `steer` (the default): the model sees them in its next step. If it was about to answer, it is asked once more.
* `interrupt`: the same, and a running call of the model is aborted.
* `enqueue`: they wait for the next turn.
* `reject`: they are refused on arrival (`conversation.replies`).

If an answer of the model is invalid (`llm.Slip`), the turn tells the model why and asks again. After `MAX_SLIPS` such
answers the next one fails the turn; a retry may follow.

No message of a person is ignored. If the model ends the job without having seen a new message, the turn sends only the
answer. The next turn follows at once and decides about the end.
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
from agent_jobs.work import WorkRules

DEFAULT_MAX_STEPS = 20
# Invalid answers of the model per turn that it may correct; one more fails the turn.
MAX_SLIPS = 2
# After this many interruptions, a model call runs to its end.
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
    needs_channel = True
    work: WorkRules | None = None

    def run(self, run: Run) -> Outcome:
        assert run.journal is not None, "a conversation needs a journal"
        return _Turn(run, run.journal).take()


class _Turn:
    def __init__(self, run: Run, journal: Journal) -> None:
        self._run, self._journal = run, journal
        self._goal = prompts.render(run.prompt, run.params)
        self._lines: tuple[Said, ...] = run.transcript
        self._takes_written = run.config.get("on_message", "steer") in _TOOK_WRITTEN
        self._steps: list[llm.ModelStep] = []
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
        return Failed("step_limit", f"the model gave {most} answers in one turn (max_steps), and had not ended it")

    def _act_on(self, reply: llm.Reply) -> Outcome | None:
        """The turn's outcome, or None to ask the model once more."""
        if reply.slip:
            return self._complain(reply.slip)
        if reply.is_paused:
            self._steps.append(llm.ModelStep(text=reply.text, note=_GO_ON))
            return None
        return self._perform(reply) if reply.calls else self._end(reply)

    def _complain(self, slip: llm.Slip) -> Failed | None:
        """Tell the model what is wrong with its answer, or fail the turn after MAX_SLIPS such answers."""
        if slip.is_final or self._slips == MAX_SLIPS:
            self._journal.disown(slip.code)
            return Failed(slip.code, slip.what, is_retryable=not slip.is_final)
        self._slips += 1
        self._steps.append(llm.ModelStep(note=slip.told))
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
        # With `_takes_written`, the next step reads the transcript again, which contains this text already.
        text = "" if self._takes_written else "\n".join(reply.say)
        self._steps.append(llm.ModelStep(reply.calls, answers, text=text, note=reply.note))
        return None

    def _end(self, reply: llm.Reply) -> Outcome | None:
        if self._journal.is_ahead:
            return None  # before the turn was cut off, the model was asked again here
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
        """Whether the agent has said anything in this job, including messages sent by a tool in this turn."""
        return any(not said.is_human for said in (*self._lines, *self._journal.lines()))

    @property
    def _heard(self) -> int:
        return sum(said.is_human for said in self._lines)
