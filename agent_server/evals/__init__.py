"""Cases of a workspace's agents: what they are, how they are run, recorded and replayed."""
