"""Approvals: the question, its buttons and edit form, the decision, and how the agent hears of it."""
