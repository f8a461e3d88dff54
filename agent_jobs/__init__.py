"""Agent jobs: what is asked for, when it runs, how it ends.

One folder is one concept, from the doors down:

    api, console, management, tasks, admin   doors: they check, call what is below, and answer
    worker, duties                           a worker process; periodic maintenance
    jobs                                     create, cancel, retry, replay
    turns, conversation                      a turn of an agent; what was said
    approvals, catalog, tools, budgets, hours, tenants, audit
    lifecycle                                the only writer of `status` and of the queue
    reads                                    everything that only reads, organisation first
    runners, llm, sandbox                    what performs a job; models of language; programs of tenants
    models                                   tables
    states, specs, timing, errors, scopes, approvers   data and pure rules

A module imports only from its own folder and from those below it (`pyproject.toml`, contract Floors).
"""
