"""A person's decision on an action of an agent: how it is asked, pressed, edited, decided, and told to the agent."""
