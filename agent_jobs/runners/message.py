"""Sends one message: the start prompt, rendered with the job's params. The job ends when it is delivered."""

from agent_jobs.runners import prompts
from agent_jobs.runners.base import Done, Run
from agent_jobs.work import WorkRules


class MessageRunner:
    name = "message"
    lane = "messages"
    batch_size = 10
    has_conversation = False
    needs_channel = True
    work: WorkRules | None = None

    def run(self, run: Run) -> Done:
        text = prompts.render(run.prompt, run.params)
        return Done(result=text, say=(text,))
