"""What a worker process does before it takes its first turn of an agent."""

import threading

import pytest

from agent_jobs import dispatch, tasks
from agent_jobs.services import model_access


def test_agents_wait_until_what_their_models_need_is_read_and_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_read, served, rung = threading.Event(), [], []
    monkeypatch.setattr(model_access, "preload", lambda: is_read.wait(60))
    monkeypatch.setattr(tasks.worker, "serve", lambda lane: served.append(lane) or 1)
    monkeypatch.setattr(dispatch, "ring", rung.append)
    reading = tasks.read_models()
    assert (tasks.serve_agents(), tasks.serve_messages()) == (0, 1)
    is_read.set()
    reading.join(60)
    assert rung == ["agents"], "for the bell that was not answered"
    assert tasks.serve_agents() == 1
    assert served == ["messages", "agents"]


def test_agents_are_served_also_where_nothing_could_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("half an installation")

    monkeypatch.setattr(model_access, "preload", broken)
    monkeypatch.setattr(tasks.worker, "serve", lambda lane: 1)
    monkeypatch.setattr(dispatch, "ring", lambda lane: None)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    tasks.read_models().join(60)
    assert tasks.serve_agents() == 1
