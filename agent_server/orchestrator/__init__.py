"""One attempt of a turn: routing, agents, models, tools, and what of them goes into the turn's log."""
