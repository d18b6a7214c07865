"""How a replica is known to live. It has a heartbeat on the database's clock, and an advisory lock on its direct
connection.

The function `sweep` (migrations/engine) looks at both: a lock that is free says that its process is dead, at once; not
where the server that held it has been restarted since.
"""

DEAD_AFTER = 5.0
"""Seconds without a heartbeat after which a replica is taken for dead. It stops its own runs before that."""
LOCK_SPACE = 730_042
"""The first of the two keys of the advisory locks that replicas hold; the second is `replica.lock_key`. `sweep` has it
too."""
