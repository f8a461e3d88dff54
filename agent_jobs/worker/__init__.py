"""A worker process: its loop of claims and settlements, lease keeper, watchdog, polling, and turns in isolation."""
