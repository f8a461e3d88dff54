"""The Celery application: queues, beat entries, and the Celery features that stay off.

Celery is only a doorbell: a message says "there is work", the rows say what it is. So there is no result backend, no
eta, no countdown, no retry and no late acknowledgement. A lost message costs at most the second until the next sweep.

`fixups=[]` leaves out Celery's Django fix-up. It would close the database connection around every task, whatever
CONN_MAX_AGE says (half the speed). `agent_jobs.worker.loop` manages connections instead.
"""

import os
import warnings
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from celery import Celery, signals
from kombu import Exchange, Queue

from agent_jobs import runners
from config import garbage_collection

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django
from django.conf import settings

garbage_collection.look_rarely()
# `manage.py up` also runs as root (containers, CI). The image has its own user, so a deployment needs no warning.
warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")

# Beside the queues of the runners.
QUEUES = ("deliveries", "inbound", "duties")
# The niceness of workers, so that web processes and the database go first on busy processors. In a chaos run it cut the
# slowest POST from 1.7 s to 0.42 s.
NICENESS = 5


def broker_url(redis_url: str) -> str:
    """`REDIS_URL` in kombu's form: kombu spells sockets differently, and verifies no certificate by default."""
    address = urlsplit(redis_url)
    query = dict(parse_qsl(address.query))
    if address.scheme == "unix":
        query["virtual_host"] = query.pop("db", "0")
        return f"redis+socket://{address.netloc}{address.path}?{urlencode(query)}"
    if address.scheme == "rediss":
        query.setdefault("ssl_cert_reqs", "required")
    return address._replace(query=urlencode(query)).geturl()


def give_way(niceness: int = NICENESS) -> None:
    """Lower this process's priority, as `nice` does."""
    os.nice(niceness)
    if os.getsid(0) == os.getpid():
        # Linux may divide the processors by session first. `nice` then counts only within our session.
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))


app = Celery("agent_jobs", fixups=[], set_as_current=True)


@app.on_configure.connect
def _configure(sender: Celery, **_: object) -> None:
    django.setup()


@signals.worker_init.connect
def _begin(**_: object) -> None:
    give_way()
    garbage_collection.leave_what_is_loaded()


@signals.setup_logging.connect
def _leave_logging_alone(**_: object) -> None:
    """Django has configured logging; Celery would replace the format."""


app.conf.update(
    broker_url=broker_url(settings.REDIS_URL),
    imports=["agent_jobs.tasks", "channels_integration.tasks"],
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_acks_late=False,
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in (*runners.lanes(), *QUEUES)],
    task_default_queue="duties",
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_eta_task_limit=100,
    worker_send_task_events=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # A Redis that is full, or read-only after a failover, refuses writes; the worker must survive that.
    broker_channel_error_retry=True,
    broker_transport_options={
        # Redis drops a message when a worker takes it. Keeping it until the acknowledgement took a quarter of a busy
        # worker's CPU; a lost message costs a second.
        "ack_emulation": False,
        "priority_steps": [0],  # else each queue has four lists, three of them always empty
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
    """Beat only rings doorbells. Each duty is idempotent, so several beat processes do no harm."""
    from agent_jobs.duties import duty_table
    from agent_jobs.tasks import DUTY_ENTRIES

    for bell, entry in DUTY_ENTRIES.items():
        sender.add_periodic_task(duty_table.every(bell), entry.s(), name=bell, queue="duties")
