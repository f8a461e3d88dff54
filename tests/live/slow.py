"""The service's own Celery application, with a model that takes its time: `slow 3` answers after three seconds."""

import threading

from agent_jobs import llm
from config.celery import app


class SlowModel:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def answer(self, turn: llm.Turn, access: llm.Access, on_start: llm.OnStart | None = None) -> llm.Reply:
        threading.Event().wait(self.seconds)
        return llm.Reply(text=turn.goal, is_done=True, result=f"after {self.seconds} s")


llm.MODELS.update({f"slow {seconds}": SlowModel(seconds) for seconds in (1, 3, 60)})

__all__ = ["app"]
