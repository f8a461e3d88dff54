"""Periodic maintenance: `duty_table` lists every duty, and each has a file. `duty_rounds` runs them."""
