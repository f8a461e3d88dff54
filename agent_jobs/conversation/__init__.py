"""What was said in a job: messages of the agent, replies and edits of people, and what a delivery changes."""
