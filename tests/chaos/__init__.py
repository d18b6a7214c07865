"""Chaos: many turns through replicas that are killed, frozen, cut off from their database and badly answered, and a
count of what became of them."""
