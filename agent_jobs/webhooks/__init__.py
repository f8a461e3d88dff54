"""Outgoing webhooks: an organisation's services get its events at their own addresses (`docs/webhooks.md`).

- `announce`: tells of a schedule's event. A trigger (migration 0026) tells of those of jobs, so no statement that moves
  a job can forget it. It is a trigger for each statement, not for each row with a condition: the table has one of that
  kind already, and a statement with many rows pays for one call.
- `expansion`: what was announced becomes deliveries for endpoints, and a message for a job's outcome channel.
- `delivery_claims`, `sending`: sends the deliveries, at least once.
- `endpoints`: what admins change.

The messages for outcome channels share the outbox. Deliveries do not: its order within a thread, pace of a channel,
look-ups in a history and withdrawals by an owner mean nothing here, and its retries end after minutes and not days.
They share its manner: a claim under a lease, one attempt without library retries, a settlement that names its claim.

A payload is made when the announcement is expanded, usually within a second. It shows the job as the API shows it at
that moment: the API registers its form of a job (`expansion.register_job_form`).
"""

from agent_jobs.webhooks.announcements import announce, is_wanted

__all__ = ["announce", "is_wanted"]
