"""Quiet hours: calendars, the statements of hours, and the deferral of turns, messages and deadlines."""
