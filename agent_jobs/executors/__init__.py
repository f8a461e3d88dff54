"""Executors: outside programs that claim jobs of the external runner over HTTP, and report how they ended.

A claim gives a lease of LEASE_SECONDS and a fencing token (`lease_token`). Heartbeats extend the lease. An attempt's
report is written only while its lease holds. A lapsed lease is taken back as a lost worker's is (`duties.recovery`).
Every function takes the organisation first; jobs of another one are NotFound.

claiming         claims ready jobs for an executor, or begins a certain one
attempts         one attempt of an executor: how to name it, and why it may no longer write
reporting        heartbeats, results, failures and releases
hand_moves       people that move jobs by hand
known_executors  the executors that an organisation has, and what they hold

An API without lease tokens asks `attempts.newest` for the newest attempt of (job, executor).
"""
