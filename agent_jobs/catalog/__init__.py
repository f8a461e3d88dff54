"""What an organisation can ask for: job types, profiles, and the keys of their models."""
