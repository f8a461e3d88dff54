"""Takes one turn of an agent, from claim to settlement: builds the run, journals its steps, settles the outcome."""
