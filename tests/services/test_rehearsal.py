"""A turn of nobody's plans the statements of those that come, and leaves nothing behind."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, connections

from agent_jobs import llm
from agent_jobs.llm import Usage
from agent_jobs.models import Activity, Job, Org, Reservation, UsageDay
from agent_jobs.services import budgets, rehearsal
from agent_jobs.services.execution import Worker
from tests.agents import parts
from tests.agents.parts import Actor

_PLANNED = "SELECT statement FROM pg_prepared_statements"


def _planned() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(_PLANNED)
        return {statement for (statement,) in cursor.fetchall()}


@pytest.mark.django_db(transaction=True)
def test_after_a_rehearsal_the_statements_of_a_turn_are_planned() -> None:
    connection.close()
    rehearsal.take_back_a_turn()
    planned = _planned()
    job = parts.job()
    with parts.playing(Actor(lambda turn: llm.Reply(text="How are you?"))):
        Worker(parts.QuietKeeper()).serve("agents")
    whose = {"org_id": job.org_id, "job_id": job.pk, "job_type_key": job.job_type_key, "config": job.config}
    with budgets.closing(budgets.reserve(**whose, model="openai:any", request_bytes=10, max_output_tokens=10)) as held:
        held.settle(Usage(1, 1))
    assert Job.objects.get().waiting_for == "reply"
    assert UsageDay.objects.get().calls == 1
    assert _planned() - planned == set()


@pytest.mark.django_db(transaction=True)
def test_nothing_is_left_of_a_rehearsal() -> None:
    rehearsal.take_back_a_turn()
    for model in (Activity, Job, Reservation, UsageDay):
        assert not model.objects.exists()


def test_no_organisation_can_have_the_id_that_is_rehearsed_with() -> None:
    with pytest.raises(ValidationError) as refused:
        Org(id=rehearsal._NOWHERE, name="Nowhere").clean_fields()
    assert list(refused.value.message_dict) == ["id"]


def test_where_each_thread_keeps_its_own_connection_nothing_is_rehearsed() -> None:
    assert rehearsal.rehearse() == 0


@pytest.fixture
def pool(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings = connections.settings["default"]
    connection.close()
    monkeypatch.setitem(settings, "CONN_MAX_AGE", 0)
    monkeypatch.setitem(settings["OPTIONS"], "pool", {"min_size": 0, "max_size": 8, "timeout": 10})
    yield
    connection.close()
    connection.close_pool()


@pytest.mark.usefixtures("pool")
def test_half_of_a_pool_is_rehearsed_each_connection_of_it_once() -> None:
    assert rehearsal.rehearse() == 4
    connection.pool.resize(4)
    with ExitStack() as all_of_them:
        ours = [all_of_them.enter_context(connection.pool.connection()) for _ in range(4)]
        assert [len(each.execute(_PLANNED).fetchall()) > 10 for each in ours] == [True] * 4
