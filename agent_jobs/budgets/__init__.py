"""What model calls cost: prices, reservations before a call, counters against caps, and the `model.call` activity."""
