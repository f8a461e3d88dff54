"""The transcript of a job: `/services/agent-jobs/{id}/messages`. Shows it, and accepts a person's reply."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.http import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import paging
from agent_jobs.api.base import Resource, each, read_job_id
from agent_jobs.api.docs import item_of, operation, page_of
from agent_jobs.api.fields import Author, StrictSerializer, Text
from agent_jobs.api.formatting import shown
from agent_jobs.conversation import replies
from agent_jobs.reads import queries

# Messages of one turn have the same time; the rows' numbers give the order of speech.
SORTING = paging.Sorting("messages", {"created_at": "id"}, default="created_at:asc")
MAX_TEXT = 40_000


class ReplyRequest(StrictSerializer):
    author = Author(help_text="The person's name as the agent shall see it.")
    text = Text(max_length=MAX_TEXT)


class JobMessage(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="The same as its activity's.")
    org_id = serializers.CharField()
    job_id = serializers.CharField()
    author = serializers.CharField(help_text="`agent` for what the agent said.")
    is_human = serializers.BooleanField()
    text = serializers.CharField()
    created_at = serializers.DateTimeField()
    delivered_at = serializers.DateTimeField(
        required=False, help_text="When it reached the channel or arrived from it; missing until then."
    )
    edited_at = serializers.DateTimeField(required=False, help_text="When its author last changed it there.")
    deleted_at = serializers.DateTimeField(required=False, help_text="When it was deleted there; then it has no text.")


def answer(org_id: str, row: queries.Row) -> dict[str, Any]:
    return shown(JobMessage, row, id=row["key"], org_id=org_id)


class JobMessages(Resource):
    @operation(
        "job_messages_list",
        "Read a job's transcript",
        answers={200: page_of("JobMessagePage", JobMessage)},
        sorting=SORTING,
        description="What the agent and people said, oldest first.",
    )
    def get(self, request: Request, job_id: str) -> Response:
        asked = self.asked(sorting=SORTING)
        job = queries.job(self.org_id, read_job_id(job_id))
        said = queries.messages(self.org_id, job["id"])
        return self.listed(asked, said, queries.MESSAGE_COLUMNS, each(partial(answer, self.org_id)))

    @operation(
        "job_messages_reply",
        "Reply to a job as a person",
        answers={201: item_of("JobMessageItem", JobMessage)},
        request=ReplyRequest,
        description="Adds what a person said elsewhere. A job that waits for a reply goes on with it at once, as with"
        " one from its channel. A job that has not begun or has ended refuses it.",
    )
    def post(self, request: Request, job_id: str) -> HttpResponseBase:
        fields = self.asked(body=ReplyRequest).body
        wanted = read_job_id(job_id)

        def effect() -> tuple[int, Mapping[str, Any]]:
            said = replies.say(
                self.org_id,
                wanted,
                author=fields["author"],
                text=fields["text"],
                actor=self.actor,
                now=datetime.now(UTC),
            )
            row = {column: getattr(said, column) for column in queries.MESSAGE_COLUMNS}
            return 201, {"data": answer(self.org_id, row), "meta": self.meta(said.key)}

        return self.once(effect)
