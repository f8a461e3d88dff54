"""Runs programs of tenants and their servers: JSON Schemas with their instances, and Jinja templates.

A program runs in our own process only if its estimated cost is small. All others run in a child process, which the
kernel kills after `CPU_SECONDS` of CPU or above `MEMORY_MB`. Callers use `sandbox.json_schema`; runners use
`runners.prompts`. These two decide where a program runs.

    costs      estimates what a schema costs, without running it
    validators compiles schemas, validates instances and words the errors
    templates  the Jinja environment with its filters, tests and step budget
    child      the child process: one request at a time
    pool       the parent's side: at most two children per process
"""
