"""Plumbing for both jobs and channels. It imports neither of them."""
