"""The guarded way out: which addresses may be asked, and the two HTTP clients that hold to it."""
