"""Plumbing that jobs and channels both stand on. It imports neither of them."""
