"""Celery entries. Each calls one service and decides nothing: it may run twice, at once, or never."""

import os

from celery import shared_task
from celery.signals import task_postrun, worker_init, worker_shutdown, worker_shutting_down

from agent_jobs.services import audit, execution, promotion, recovery, retention
from agent_jobs.services.duties import serve_duty
from agent_jobs.services.leases import Keeper


def _end() -> None:
    """Celery's threads cannot be ended, and Python waits for them: a turn in the middle of a call is left like this."""
    os._exit(0)


worker = execution.Worker(Keeper(on_overtime=_end))


@worker_init.connect
def _start(**_: object) -> None:
    worker.guard.start()
    worker.keeper.start()


@worker_shutting_down.connect
def _stop(**_: object) -> None:
    worker.keeper.stop_claims()


@worker_shutdown.connect
def _close(**_: object) -> None:
    worker.keeper.close()


@task_postrun.connect
def _give_back(**_: object) -> None:
    execution.give_back_connection()


@shared_task(name="agent_jobs.serve_agents", ignore_result=True)
def serve_agents() -> int:
    return worker.serve("agents")


@shared_task(name="agent_jobs.serve_messages", ignore_result=True)
def serve_messages() -> int:
    return worker.serve("messages")


@shared_task(name="agent_jobs.promote", ignore_result=True)
def promote() -> int:
    worker.keeper.note_work()
    return serve_duty("promote", promotion.serve_second)


@shared_task(name="agent_jobs.sweep", ignore_result=True)
def sweep() -> int:
    worker.keeper.note_work()
    return serve_duty("sweep", recovery.sweep)


@shared_task(name="agent_jobs.audit", ignore_result=True)
def seal_audit() -> int:
    return serve_duty("audit", audit.seal)


@shared_task(name="agent_jobs.prune", ignore_result=True)
def prune() -> int:
    return serve_duty("prune", lambda: retention.serve_slice(stop=worker.keeper.stopping))
