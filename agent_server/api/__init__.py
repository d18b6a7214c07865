"""The REST routes: a router for each noun."""
