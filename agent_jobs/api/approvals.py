"""Approvals: `/services/approvals`, and those of one job. A person approves or denies an action of the agent."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import approvers
from agent_jobs.api import paging
from agent_jobs.api.base import Resource, each, read_id, read_job_id
from agent_jobs.api.docs import item_of, operation, page_of
from agent_jobs.api.fields import Object, StrictSerializer, Text
from agent_jobs.api.filters import ApprovalFilters
from agent_jobs.api.formatting import shown
from agent_jobs.approvals import decisions
from agent_jobs.errors import FieldError
from agent_jobs.reads import queries

SORTING = paging.Sorting(
    "approvals", {"created_at": "created_at", "expires_at": "expires_at"}, default="created_at:desc"
)
MAX_REASON = 1_000


class DecisionRequest(StrictSerializer):
    decision = serializers.ChoiceField(list(decisions.DECISIONS))
    arguments = Object(required=False, help_text="Replace the agent's arguments; only with `approve`.")
    reason = Text(max_length=MAX_REASON, required=False, allow_blank=True, help_text="The agent sees it.")


class LostQuestion(serializers.Serializer[Any]):
    message_id = serializers.CharField()
    platform = serializers.CharField()
    code = serializers.CharField()
    error_code = serializers.CharField()
    error_message = serializers.CharField()


class ApprovalSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    org_id = serializers.CharField()
    job_id = serializers.CharField()
    kind = serializers.ChoiceField(
        list(queries.APPROVAL_KINDS), help_text="Whether the agent asks to call a tool, or for more budget for a model."
    )
    tool = serializers.CharField(help_text="The tool, or the model, that the agent wants to call.")
    question = serializers.CharField(
        required=False, help_text="As posted in the channel. It says so if it does not show all `arguments`."
    )
    arguments = Object(
        help_text="The arguments of the call. For a budget: the `cap` that leaves too little, its owner in `of`"
        " (job, job_type, organization), its `limit`, the amount `used`, and the amount that an approval `grants` in"
        " addition (only for the job's own cap)."
    )
    edited_arguments = Object(required=False, help_text="The arguments as an approver changed them.")
    approvers = serializers.ListField(
        child=serializers.CharField(),
        help_text="People who may decide: Slack members by id, other people by name, tokens as `token:…`, users as"
        " `user:…`. Empty: anybody in the channel who belongs to the workspace.",
    )
    on_timeout = serializers.CharField(help_text="The outcome if nobody decides in time.")
    asked_in = Object(required=False, help_text="The channel of the question, if it is not the job's own.")
    undelivered = serializers.ListField(
        child=LostQuestion(), required=False, help_text="Channels in which the question could not be delivered."
    )
    status = serializers.ChoiceField(list(queries.APPROVAL_STATUSES))
    decided_by = serializers.CharField(required=False)
    reason = serializers.CharField(required=False)
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(
        required=False, help_text="Missing until the question is delivered: its time begins then."
    )
    decided_at = serializers.DateTimeField(required=False)


class ApprovalsMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    count = serializers.IntegerField()


ApprovalItem = item_of("ApprovalItem", ApprovalSerializer)


def answer(row: queries.Row) -> dict[str, Any]:
    expires_at = row["expires_at"] if row["timer_seconds"] is None else None
    return shown(ApprovalSerializer, row, undelivered=row["undelivered"] or None, expires_at=expires_at)


def item(org_id: str, approval: Any) -> dict[str, Any]:
    row = {column: getattr(approval, column) for column in queries.APPROVAL_COLUMNS}
    return {"data": answer(row), "meta": {"org_id": org_id, "id": str(approval.pk)}}


def _problems(fields: Mapping[str, Any]) -> list[FieldError]:
    if "arguments" in fields and fields["decision"] != "approve":
        return [FieldError("arguments", "invalid", "go only with the decision approve")]
    return []


class Approvals(Resource):
    @operation(
        "approvals_list",
        "List approvals",
        answers={200: page_of("ApprovalPage", ApprovalSerializer)},
        sorting=SORTING,
        filtered=ApprovalFilters,
        description="Actions that agents of the token's organization asked to take. `status=pending`: the undecided.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(sorting=SORTING, rows=queries.approvals(self.org_id), filtered=ApprovalFilters)
        return self.listed(asked, asked.rows, queries.APPROVAL_COLUMNS, each(answer))


class JobApprovals(Resource):
    @operation(
        "job_approvals_list",
        "List a job's approvals",
        answers={200: page_of("ApprovalList", ApprovalSerializer, ApprovalsMeta)},
        description="All approvals that the job has asked for, oldest first.",
    )
    def get(self, request: Request, job_id: str) -> Response:
        self.asked()
        job = queries.job(self.org_id, read_job_id(job_id))
        shown = [answer(row) for row in queries.approvals_of(self.org_id, job["id"])]
        return Response({"data": shown, "meta": {"org_id": self.org_id, "count": len(shown)}})


class JobApproval(Resource):
    @operation(
        "job_approvals_retrieve",
        "Get an approval",
        answers={200: ApprovalItem},
        description="Shows the whole action, including parts that the question in the channel leaves out.",
    )
    def get(self, request: Request, job_id: str, approval_id: str) -> Response:
        self.asked()
        job = queries.job(self.org_id, read_job_id(job_id))
        found = queries.approval_of(self.org_id, job["id"], read_id(approval_id, decisions.not_found))
        if found is None:
            raise decisions.not_found(approval_id)
        return Response({"data": answer(found), "meta": self.meta(found["id"])})

    @operation(
        "job_approvals_decide",
        "Approve or deny",
        answers={200: ApprovalItem},
        request=DecisionRequest,
        description="The first decision counts: in the channel, here, or by timeout. Every later one gets a 409. With"
        " `arguments` the tool is called with these instead.",
    )
    def post(self, request: Request, job_id: str, approval_id: str) -> HttpResponseBase:
        fields = self.asked(body=DecisionRequest, check=_problems).body
        job = queries.job(self.org_id, read_job_id(job_id))
        wanted = read_id(approval_id, decisions.not_found)

        def effect() -> tuple[int, Mapping[str, Any]]:
            decided = decisions.decide(
                self.org_id,
                wanted,
                fields["decision"],
                by=approvers.Token(self.token.name or self.token.public_id),
                actor=self.actor,
                job_id=job["id"],
                arguments=fields.get("arguments"),
                reason=fields.get("reason", ""),
            )
            return 200, item(self.org_id, decided)

        return self.once(effect)
