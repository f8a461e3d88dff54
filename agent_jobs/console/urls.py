"""The console's addresses. The organisation is in the path, so that a link works for whoever may see it."""

from django.urls import path

from agent_jobs.console import (
    bulk_page,
    job_actions,
    job_page,
    jobs_page,
    live_changes,
    overview_page,
    schedule_actions,
    schedule_form,
    schedule_page,
    schedules_page,
    signing_in,
)

app_name = "console"
urlpatterns = [
    path("", signing_in.sign_in, name="sign_in"),
    path("sign-out", signing_in.sign_out, name="sign_out"),
    path("<str:org_id>/", overview_page.show, name="overview"),
    path("<str:org_id>/why-oldest", overview_page.why_oldest, name="why_oldest"),
    path("<str:org_id>/password", signing_in.password, name="password"),
    path("<str:org_id>/password/change", signing_in.change_password, name="change_password"),
    path("<str:org_id>/jobs", jobs_page.jobs, name="jobs"),
    path("<str:org_id>/jobs/rows", jobs_page.rows, name="job_rows"),
    path("<str:org_id>/jobs.csv", jobs_page.export, name="jobs_csv"),
    path("<str:org_id>/jobs/bulk", bulk_page.bulk, name="bulk"),
    path("<str:org_id>/jobs/changes", live_changes.changes, name="changes"),
    path("<str:org_id>/jobs/<uuid:job_id>", job_page.job, name="job"),
    path("<str:org_id>/jobs/<uuid:job_id>/changes", live_changes.job_changes, name="job_changes"),
    path("<str:org_id>/jobs/<uuid:job_id>/cancel", job_actions.cancel, name="job_cancel"),
    path("<str:org_id>/jobs/<uuid:job_id>/retry", job_actions.retry, name="job_retry"),
    path("<str:org_id>/jobs/<uuid:job_id>/replay", job_actions.replay, name="job_replay"),
    path("<str:org_id>/jobs/<uuid:job_id>/reply", job_actions.reply, name="job_reply"),
    path("<str:org_id>/jobs/<uuid:job_id>/approvals/<uuid:approval_id>", job_actions.decide, name="job_decide"),
    path("<str:org_id>/views", jobs_page.save_view, name="save_view"),
    path("<str:org_id>/views/<int:view_id>/remove", jobs_page.remove_view, name="remove_view"),
    path("<str:org_id>/schedules", schedules_page.schedules, name="schedules"),
    path("<str:org_id>/schedules/new", schedule_form.new, name="schedule_new"),
    path("<str:org_id>/schedules/preview", schedule_form.preview, name="schedule_preview"),
    path("<str:org_id>/schedules/<uuid:schedule_id>", schedule_page.schedule, name="schedule"),
    path("<str:org_id>/schedules/<uuid:schedule_id>/edit", schedule_form.edit, name="schedule_edit"),
    path("<str:org_id>/schedules/<uuid:schedule_id>/pause", schedule_actions.pause, name="schedule_pause"),
    path("<str:org_id>/schedules/<uuid:schedule_id>/resume", schedule_actions.resume, name="schedule_resume"),
    path("<str:org_id>/schedules/<uuid:schedule_id>/run", schedule_actions.run, name="schedule_run"),
    path("<str:org_id>/schedules/<uuid:schedule_id>/delete", schedule_actions.delete, name="schedule_delete"),
    path(
        "<str:org_id>/schedules/<uuid:schedule_id>/versions/<int:old>..<int:new>",
        schedule_page.compare,
        name="schedule_versions",
    ),
    path(
        "<str:org_id>/schedules/<uuid:schedule_id>/versions/<int:number>/roll-back",
        schedule_actions.roll_back,
        name="schedule_roll_back",
    ),
    path("<path:rest>", signing_in.nothing),
]
