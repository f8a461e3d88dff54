"""The catalogue of an organisation: job types, profiles, and the keys of their models."""
