"""Organisations and what bounds them: app tokens, rate limits, stored bytes, rows, their channels."""
