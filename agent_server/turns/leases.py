"""Whose a turn is: the statements by which replicas claim and let go of turns, and ask them to stop. Which turns there
are to claim is `db.sweep`."""

from sqlalchemy import text

CLAIM = text("""
    update turn t set status = 'running', owner = :me, epoch = epoch + 1, attempts = attempts + 1
    where owner_id = :owner_id and id = :id and epoch = :epoch and status in ('queued', 'running')
      and not exists (select from turn b where b.owner_id = t.owner_id and b.conversation_id = t.conversation_id
                      and b.status = 'running' and b.id <> t.id)
    returning t.*""")

# What was let go in good order does not count as an attempt that failed, nor what a restart of the database broke off,
# nor what it had no room for.
RELEASE = text("""
    update turn set owner = null, attempts = greatest(attempts - 1, 0)
    where owner_id = any(cast(:owners as uuid[])) and owner = :me and status = 'running'""")
RELEASE_ONE = text("""
    update turn set owner = null,
        attempts = attempts - (:full or pg_postmaster_start_time() > now() - :seconds * interval '1 second')::int
    where owner_id = :owner_id and id = :id and owner = :me and epoch = :epoch and status = 'running'""")
FORGET = text("delete from replica where id = :me or beat < now() - interval '1 hour'")
STOP_RUNNING = text("""
    update turn set cancel = true where owner_id = :owner_id and id = :id and status = 'running'""")
STOP_QUEUED = text("""
    with stopped as (
        update turn set status = 'cancelled', cancel = true, finished_at = now(), last_event = last_event + 1
        where owner_id = :owner_id and id = :id and status = 'queued' returning owner_id, id, last_event)
    insert into event (owner_id, turn_id, seq, kind, body, at)
    select owner_id, id, last_event, 'cancelled', '{}', now() from stopped""")
