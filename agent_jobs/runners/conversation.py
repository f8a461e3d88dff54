"""Talks with people in a channel until the model says that the goal is reached."""

import time

from agent_jobs import llm
from agent_jobs.runners import prompts
from agent_jobs.runners.base import AwaitReply, Done, ModelCall, Run


class ConversationRunner:
    name = "conversation"
    lane = "agents"
    batch_size = 1
    has_conversation = True

    def run(self, run: Run) -> Done | AwaitReply:
        if run.unreachable:
            raise run.unreachable
        turn = llm.Turn(
            instructions=run.instructions,
            goal=prompts.render(run.prompt, run.params),
            lines=tuple(llm.Line(said.author, said.text, said.is_human) for said in run.transcript),
            is_follow_up=run.wake == "silence",
            follow_up=run.follow_ups_sent + 1,
            max_follow_ups=run.config.get("max_follow_ups", 0),
        )
        began = time.monotonic()
        reply = llm.ask(run.routes, turn)
        call = ModelCall(
            reply.model or run.routes[0].model,
            input={"wake": run.wake, "lines": len(turn.lines)},
            output={"text": reply.text, "is_done": reply.is_done},
            seconds=time.monotonic() - began,
        )
        say = (reply.text,) if reply.text else ()
        if reply.is_done:
            return Done(result=reply.result, result_data=reply.result_data, say=say, calls=(call,))
        return AwaitReply(say=say, calls=(call,))
