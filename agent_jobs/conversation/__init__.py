"""The messages of a job: what the agent says, replies and edits of people, and the effects of a delivery."""
