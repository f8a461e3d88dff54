"""Guarded requests to other people's servers: the allowed addresses, and the two HTTP clients that enforce them."""
