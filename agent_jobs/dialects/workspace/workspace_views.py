"""The operations of Workspace on jobs. A member of the organisation may read, an admin may change."""

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import jobs
from agent_jobs.api import parsing, throttling
from agent_jobs.dialects.base import read_id
from agent_jobs.dialects.workspace import workspace_json as shapes
from agent_jobs.dialects.workspace.workspace_logins import (
    IsSignedIn,
    PersonAuthentication,
    WorkspaceResource,
    described,
)
from agent_jobs.errors import FieldError, Forbidden, Invalid, NotFound
from agent_jobs.executors import hand_moves, reporting
from agent_jobs.reads import external_jobs, numbered_pages
from agent_jobs.reads.queries import Row
from agent_jobs.runners import external
from agent_jobs.tenants import members
from agent_jobs.tenants.login_tokens import Login
from agent_jobs.tenants.members import MemberOf

_SORTS = ("created_at", "updated_at", "priority", "status")
_DIGITS = 9
# Headers of the list without a workspace (RFC 9745, RFC 8594).
_DEPRECATED_AT, _SUNSET_AT = datetime(2026, 11, 1, tzinfo=UTC), datetime(2027, 11, 1, tzinfo=UTC)


LIST_QUERY = {
    "status": parsing.repeated(parsing.one_of(*shapes.STATUS_WORDS, about="May be repeated: any of them.")),
    "job_type": parsing.repeated(parsing.text(128, about="May be repeated: any of them.")),
    "priority": parsing.repeated(parsing.one_of(*shapes.PRIORITIES, about="May be repeated: any of them.")),
    "sort": parsing.one_of(*_SORTS, default="created_at"),
    "order": parsing.one_of("asc", "desc", default="desc"),
    "page": parsing.whole(1, 10**9, default=1),
    "limit": parsing.whole(1, 100, default=50),
}
LEGACY_QUERY = {**LIST_QUERY, "workspace_id": parsing.whole(0, 10**9)}


class _WorkspaceJobResource(WorkspaceResource):
    authentication_classes = (PersonAuthentication,)
    permission_classes = (IsSignedIn,)
    throttle_classes = (throttling.ByPerson,)

    @property
    def login(self) -> Login:
        login: Login = self.request.auth  # type: ignore[assignment]
        return login

    def membership(self, text: str) -> MemberOf | None:
        """The caller's membership in the workspace of the path. Raises Invalid if its id is no number."""
        if not (text.isascii() and text.isdigit()):
            raise Invalid(FieldError("workspace_id", "invalid", "must be a whole number"))
        number = int(text) if len(text) <= _DIGITS else -1
        return next((one for one in self.login.memberships if one.org_number == number), None)

    def workspace(self, text: str) -> MemberOf:
        """The organisation of the workspace in the path. Raises Forbidden if the caller is no member of it, or it does
        not exist.
        """
        found = self.membership(text)
        if found is None:
            raise Forbidden("No access to this workspace", denied=self._denied("workspace", text))
        return found

    def place(self, workspace_id: str, job_id: str, *, writes: bool = False) -> tuple[str, UUID]:
        """The organisation and the job of the path. Raises NotFound, and Forbidden if the caller may only read."""
        member, found = self.membership(workspace_id), read_id(job_id)
        if member is None or found is None or not numbered_pages.of_orgs([member.org_id]).filter(pk=found).exists():
            raise NotFound("Job not found in specified workspace", denied=self._denied("job", job_id))
        if writes:
            self.require_admin(member)
        return member.org_id, found

    def require_admin(self, member: MemberOf) -> None:
        if member.role != members.ADMIN:
            raise Forbidden("Members of this workspace may only read its jobs")

    def _denied(self, kind: str, text: str) -> tuple[str, str] | None:
        """For the audit of the caller's first organisation."""
        return (kind, text[:64]) if self.login.org_id else None

    def row(self, org_id: str, job_id: UUID) -> Row:
        row = numbered_pages.row(numbered_pages.of_orgs([org_id]), job_id)
        if row is None:
            raise NotFound("Job not found in specified workspace")
        return row

    def shown(self, org_id: str, job_id: UUID) -> dict[str, Any]:
        return shapes.job(self.row(org_id, job_id))

    def page_of(self, rows: QuerySet[Any], asked: dict[str, Any]) -> Response:
        if asked["status"]:
            rows = rows.filter(shapes.of_statuses(asked["status"]))
        if asked["job_type"]:
            rows = rows.filter(external_jobs.of_any_type(asked["job_type"]))
        if asked["priority"]:
            rows = rows.filter(shapes.of_priorities(asked["priority"]))
        total, page, limit = rows.count(), asked["page"], asked["limit"]
        ordering = shapes.ordering(asked["sort"], is_descending=asked["order"] == "desc")
        pagination = {"page": page, "limit": limit, "total": total, "total_pages": -(-total // limit)}
        found = numbered_pages.rows(rows, ordering, page=page, limit=limit)
        return Response({"data": [shapes.job(row) for row in found], "pagination": pagination})


class WorkspaceJobs(_WorkspaceJobResource):
    @described("list_jobs", "List the jobs of a workspace", shapes.WorkspacePage, query=LIST_QUERY)
    def get(self, request: Request, workspace_id: str) -> Response:
        member = self.workspace(workspace_id)
        return self.page_of(numbered_pages.of_orgs([member.org_id]), self.query(LIST_QUERY))

    @described(
        "create_job",
        "Create a job in a workspace",
        {201: shapes.WorkspaceJobShape},
        request=shapes.WorkspaceCreateRequest,
    )
    def post(self, request: Request, workspace_id: str) -> Response:
        member = self.workspace(workspace_id)
        self.require_admin(member)
        fields = self.fields(shapes.WorkspaceCreateRequest)
        if fields["workspace_id"] != member.org_number:
            raise Invalid(FieldError("workspace_id", "invalid", "must be the workspace of the path"))
        self.ensure_job_type(member.org_id, shapes.JOB_TYPE, "Workspace", external.NAME)
        made = jobs.create(member.org_id, shapes.spec(fields, user_pk=self.login.user_pk), actor=self.actor)
        return Response(self.shown(member.org_id, made.pk), status=201)


class WorkspaceJob(_WorkspaceJobResource):
    # A result may have 1 MiB; more is refused below.
    max_body_bytes = reporting.MAX_RESULT_BYTES + 64 * 1024

    @described("get_job", "Get a job", shapes.WorkspaceJobShape)
    def get(self, request: Request, workspace_id: str, job_id: str) -> Response:
        return Response(self.shown(*self.place(workspace_id, job_id)))

    @described(
        "update_job",
        "Change the status, progress or result of a job",
        shapes.WorkspaceJobShape,
        request=shapes.WorkspaceChangeRequest,
    )
    def patch(self, request: Request, workspace_id: str, job_id: str) -> Response:
        org_id, found = self.place(workspace_id, job_id, writes=True)
        asked = shapes.change(self.fields(shapes.WorkspaceChangeRequest))
        try:
            hand_moves.change(org_id, found, asked, actor=self.actor)
        except Invalid as error:
            if any(problem.code == "too_long" for problem in error.errors):
                raise parsing.BodyTooLarge(reporting.MAX_RESULT_BYTES) from None
            raise
        return Response(self.shown(org_id, found))


class WorkspaceJobStatus(_WorkspaceJobResource):
    @described("get_status", "Get the status and progress of a job", shapes.WorkspaceProgress)
    def get(self, request: Request, workspace_id: str, job_id: str) -> Response:
        return Response(shapes.progress_of(self.row(*self.place(workspace_id, job_id))))


class WorkspaceJobResult(_WorkspaceJobResource):
    @described("get_result", "Get the result of a job", shapes.WorkspaceResult)
    def get(self, request: Request, workspace_id: str, job_id: str) -> Response:
        shown = self.shown(*self.place(workspace_id, job_id))
        return Response({key: shown[key] for key in ("job_id", "result", "status", "completed_at")})


class WorkspaceCancel(_WorkspaceJobResource):
    @described("cancel_job", "Cancel a pending or running job", shapes.WorkspaceJobShape)
    def post(self, request: Request, workspace_id: str, job_id: str) -> Response:
        org_id, found = self.place(workspace_id, job_id, writes=True)
        jobs.cancel(org_id, found, actor=self.actor, reason=shapes.CANCELED)
        return Response(self.shown(org_id, found))


class WorkspaceRetry(_WorkspaceJobResource):
    @described("retry_job", "Retry a failed or cancelled job", shapes.WorkspaceJobShape)
    def post(self, request: Request, workspace_id: str, job_id: str) -> Response:
        org_id, found = self.place(workspace_id, job_id, writes=True)
        jobs.retry(org_id, found, actor=self.actor, reason=shapes.RETRIED, most=shapes.MAX_RETRIES)
        return Response(self.shown(org_id, found))


class WorkspaceAllJobs(_WorkspaceJobResource):
    """The deprecated list, over all workspaces of the caller."""

    @described("list_all_jobs", "List the caller's jobs (deprecated)", shapes.WorkspacePage, query=LEGACY_QUERY)
    def get(self, request: Request) -> Response:
        asked = self.query(LEGACY_QUERY)
        number = asked.pop("workspace_id")
        ours = self.login.memberships if number is None else [self.workspace(str(number))]
        response = self.page_of(numbered_pages.of_orgs([one.org_id for one in ours]), asked)
        response["Deprecation"] = f"@{int(_DEPRECATED_AT.timestamp())}"
        response["Sunset"] = format_datetime(_SUNSET_AT, usegmt=True)
        response["Link"] = '</workspace/{workspace_id}/jobs>; rel="successor-version"'
        return response
