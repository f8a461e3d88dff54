"""Organisations and their limits: app tokens, rate limits, stored bytes, row limits, channels."""
