"""Runs what tenants and their servers wrote: JSON Schemas with their instances, and Jinja templates.

Such a program runs in our own process only where its estimated cost is small. Everything else runs in a child process,
which the kernel kills after `CPU_SECONDS` of CPU or above `MEMORY_MB`. Use `sandbox.json_schema`; runners use
`runners.prompts`; both decide where a program runs.

    costs      estimates what a schema costs, without running it
    validators compiles schemas, validates instances and words the errors
    templates  the Jinja environment with its filters, tests and step budget
    child      the child process: one request at a time
    pool       the parent's side: at most two children per process
"""
