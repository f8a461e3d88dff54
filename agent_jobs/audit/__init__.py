"""The audit log: entries, seals, verification, and the database roles that protect it."""
