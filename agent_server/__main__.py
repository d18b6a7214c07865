"""`python -m agent_server`."""

from agent_server.cli import main

main()
