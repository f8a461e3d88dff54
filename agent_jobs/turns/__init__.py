"""One turn of an agent, from a claim to its settlement: the run, the journal of its steps, model calls, the outcome."""
