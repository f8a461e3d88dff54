"""What the service does: plain functions that validate, write in one transaction and ring after commit."""
