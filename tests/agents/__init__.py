"""Agents at work: turns with models that play a part, tools, approvals, and what people do meanwhile."""
