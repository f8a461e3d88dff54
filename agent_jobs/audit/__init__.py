"""The audit log: its entries, their seals, the proof that nobody changed them, and the database roles that protect it."""
