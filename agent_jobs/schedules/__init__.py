"""Schedules: recurring jobs, their versions, and what becomes of each firing.

definition  what a schedule says, as JSON; its checks, its rule of time and the job that it makes
editing     create, replace, change, pause, resume, roll back, delete; every change makes a version
planning    which of the due times of a schedule make a job: misfire and overlap policies, as a pure function
firing      the duty: locks due schedules, plans, makes their jobs and records their firings
requested_runs  runs that somebody asks for: now, or for a range of past times

A schedule fires at most once for each time: its row is locked while it fires, `next_at` only moves forward, and the
database has a unique firing for each (schedule, time). Whoever changes the timing fires what is due first, so an edit
in the moment of a firing neither loses nor doubles it. Times are those of PostgreSQL's clock.

The jitter does not move a firing. The job is made at the firing's own time and scheduled later by the jitter, so the
order of firings stays simple and the preview is exact.
"""
