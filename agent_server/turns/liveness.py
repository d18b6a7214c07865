"""Who is alive: each replica's heartbeat, on the database's clock, and the advisory lock of its direct connection."""

DEAD_AFTER = 5.0
"""Seconds without a heartbeat after which a replica is taken for dead. It stops its own runs before that."""
LOCK_SPACE = 730_042
"""The first of the two keys of the advisory locks that replicas hold; the second is `replica.lock_key`."""

# A lock that is free says that its process is dead, at once; not where the server that held it has been restarted since.
ALIVE = f"""
    select r.id from replica r
    where r.beat > now() - interval '{DEAD_AFTER} seconds'
      and (r.lock_key is null or r.server_started is distinct from pg_postmaster_start_time() or exists (
        select from pg_locks l
        where l.locktype = 'advisory' and l.classid = {LOCK_SPACE} and l.objid = r.lock_key::oid and l.objsubid = 2
          and l.granted and l.database = (select oid from pg_database where datname = current_database())))"""  # noqa: S608  # the values are constants of this module
"""The ids of the replicas that are alive, as a subquery."""
