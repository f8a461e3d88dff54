"""Agent jobs: creates jobs, runs them and records how they end.

One folder is one concept, from the entry points down:

    api, console, management, tasks, admin   entry points: they validate, call the layers below, and answer
    worker, duties                           a worker process; periodic maintenance
    jobs                                     create, cancel, retry, replay
    turns, conversation                      a turn of an agent; its transcript
    approvals, catalog, tools, budgets, hours, tenants, audit
    lifecycle                                the only writer of `status` and of the queue
    reads                                    everything that only reads, organisation first
    runners, llm, sandbox                    the code that performs a job; language models; tenants' programs
    models                                   tables
    states, specs, timing, recurrence, errors, scopes, approvers, mentions   data and pure rules

A module imports only from its own folder and from those below it (`pyproject.toml`, contract Layers).
"""
