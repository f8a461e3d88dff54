"""When people may be spoken to: calendars, who stated which, and what waits for the next window."""
