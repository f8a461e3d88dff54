"""The cost of model calls: prices, reservations before a call, counters against caps, and the `model.call` activity."""
