"""What the agents can do. Every module in this folder is loaded."""
