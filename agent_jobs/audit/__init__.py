"""The audit log: entries, seals, the proof that nobody changed them, and the database roles that protect it."""
