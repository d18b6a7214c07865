"""The turn ledger: a turn is accepted once, runs once at a time, and its tool effects happen once."""
