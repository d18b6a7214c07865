"""What every HTTP request goes through whatever its route is."""
