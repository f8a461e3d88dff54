"""A realistic organisation to look at: people, job types and a month of jobs, as `manage.py demo_data` makes them.

The rows are written as history, not lived through: no worker ran these jobs, and no message was sent. What still waits
is due hours ahead, so that a running service leaves it alone for a while.

The demo of `manage.py up` is in `config.demo`.
"""
