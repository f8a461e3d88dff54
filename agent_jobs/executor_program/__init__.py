"""The executor program (`manage.py run_executor`): claims jobs of a service, runs their binaries and reports.

It runs on any machine that reaches the service over HTTP. It imports nothing of the service but `infra.commands` and
the guarded network of `infra.egress`; it needs neither Django nor a database.

    command_line   its options, and the start of the program
    claim_loop     claims jobs while there are free slots; stops gracefully
    binary_run     one job: its binary, its command, its heartbeats and its report
    binary_cache   downloads binaries, checks their hashes and keeps them
    service_calls  the calls of the service, and which answers are worth another try
    progress_lines what the program says in its terminal
"""
