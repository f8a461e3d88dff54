"""One worker process: the loop that claims and settles, leases, the watchdog, polling, the isolated last attempt."""
