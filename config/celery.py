"""The Celery application: queues, beat entries, and what Celery is told not to do.

Celery only rings: a message says "there is work", the rows say what it is. So there is no result backend, no eta, no
countdown, no retry and no late acknowledgement; a lost message costs at most the second until the next sweep.

`fixups=[]` leaves out Celery's Django fix-up, which closes the database connection around every task whatever
CONN_MAX_AGE says (half the speed); `agent_jobs.services.execution` looks after connections instead.
"""

import os
import warnings
from typing import Any

from celery import Celery, signals
from celery.app.amqp import AMQP
from kombu import Connection, Exchange, Queue
from kombu.transport import redis as broker

from config import garbage

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django
from django.conf import settings

garbage.look_rarely()
# `manage.py up` works as root, too (containers, CI); who deploys as root is told so by the image's own user.
warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")

RECONNECT_SECONDS = 0.5
QUEUES = ("agents", "messages", "deliveries", "inbound", "duties")


class _Channel(broker.Channel):
    """Nothing waits for an acknowledgement (`no_ack` below); kombu would send one all the same."""

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        pass


class _Transport(broker.Transport):
    Channel = _Channel


class _Connection(Connection):
    """Looks for a broker that went away twice a second.

    kombu waits 2 s longer each time, up to 30, and Celery has no setting for it: after an outage work would begin that
    much later, and the promise is 2 s. On one refused connection, half a second is enough of a pause.
    """

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        steady = {"interval_start": RECONNECT_SECONDS, "interval_step": 0, "interval_max": RECONNECT_SECONDS}
        return super().ensure_connection(*args, **{**steady, **kwargs})

    def get_transport_cls(self) -> Any:
        found = super().get_transport_cls()
        return _Transport if found is broker.Transport else found


class _AMQP(AMQP):
    Connection = _Connection


app = Celery("agent_jobs", fixups=[], set_as_current=True, amqp=_AMQP)


@app.on_configure.connect
def _configure(sender: Celery, **_: object) -> None:
    django.setup()


@signals.worker_init.connect
def _begin(**_: object) -> None:
    garbage.leave_what_is_loaded()


@signals.setup_logging.connect
def _leave_logging_alone(**_: object) -> None:
    """Django has set it up; Celery's own would write in a form of its own."""


app.conf.update(
    broker_url=settings.REDIS_URL,
    imports=["agent_jobs.tasks", "channels_integration.tasks"],
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_acks_late=False,
    # A bell is gone when it is heard. To keep each until it is acknowledged was a quarter of all that a busy worker's
    # interpreter did; and those in hand when the broker goes away would be put back over the lost connection, which
    # ends the worker (an AttributeError in kombu).
    task_queues=[Queue(name, Exchange(name), routing_key=name, no_ack=True) for name in QUEUES],
    task_default_queue="duties",
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_eta_task_limit=100,
    worker_send_task_events=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # A Redis that is full, or read-only after a failover, refuses what it is told; that is no reason to end a worker.
    broker_channel_error_retry=True,
    broker_transport_options={
        "priority_steps": [0],  # of four lists for each queue, three would always be empty
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
    task_publish_retry=False,
    beat_max_loop_interval=1,
)


@app.on_after_finalize.connect
def _ring_for_duties(sender: Celery, **_: object) -> None:
    """Beat only rings. Each duty is idempotent, so any number of beats does no harm."""
    from agent_jobs.services import duty_table
    from agent_jobs.tasks import DUTY_ENTRIES

    for bell, entry in DUTY_ENTRIES.items():
        sender.add_periodic_task(duty_table.every(bell), entry.s(), name=bell, queue="duties")
