"""Says one thing: renders the start prompt with the job's params, and is done when it is delivered."""

from agent_jobs.runners import prompts
from agent_jobs.runners.base import Done, Run


class MessageRunner:
    name = "message"
    lane = "messages"
    batch_size = 10
    has_conversation = False

    def run(self, run: Run) -> Done:
        text = prompts.render(run.prompt, run.params)
        return Done(result=text, say=(text,))
