"""Whose a turn is: the statements by which replicas find, claim, hold and let go of turns, and ask them to stop."""

from sqlalchemy import text

from agent_server.turns.liveness import ALIVE, DEAD_AFTER

# A queued turn whose conversation is idle, or a running one that nobody runs any more. The last column is False where
# only the lock says so: a replica whose connection was cut takes a moment to say that it lives.
CANDIDATES = text(f"""
    with alive as materialized ({ALIVE})
    select t.owner_id, t.id, t.epoch, true from turn t
    where t.status = 'queued' and not exists (
        select from turn b where b.owner_id = t.owner_id and b.conversation_id = t.conversation_id
        and (b.status = 'running' or (b.status = 'queued' and b.turn_no < t.turn_no)))
    union all
    select t.owner_id, t.id, t.epoch, t.owner is null or not exists (
        select from replica r where r.id = t.owner and r.beat > now() - interval '{DEAD_AFTER} seconds')
    from turn t where t.status = 'running' and (t.owner is null or t.owner not in (select id from alive))
    limit 32""")  # noqa: S608  # the values are constants of this module

# Turns that nobody has followed for as long as their senders asked to be waited for.
LEFT = text("""
    select owner_id, id from turn
    where leave_after is not null and status in ('queued', 'running')
      and followed_at < now() - leave_after * interval '1 second'""")

CLAIM = text("""
    update turn t set status = 'running', owner = :me, epoch = epoch + 1, attempts = attempts + 1
    where owner_id = :owner_id and id = :id and epoch = :epoch and status in ('queued', 'running')
      and not exists (select from turn b where b.owner_id = t.owner_id and b.conversation_id = t.conversation_id
                      and b.status = 'running' and b.id <> t.id)
    returning t.*""")

HELD = text("select id, epoch from turn where owner = :me and status = 'running'")
# What was let go in good order does not count as an attempt that failed, nor what a restart of the database broke off,
# nor what it had no room for.
RELEASE = text("""
    update turn set owner = null, attempts = greatest(attempts - 1, 0) where owner = :me and status = 'running'""")
RELEASE_ONE = text("""
    update turn set owner = null,
        attempts = attempts - (:full or pg_postmaster_start_time() > now() - :seconds * interval '1 second')::int
    where id = :id and owner = :me and epoch = :epoch and status = 'running'""")
FORGET = text("delete from replica where id = :me or beat < now() - interval '1 hour'")
STOP_RUNNING = text("""
    update turn set cancel = true where owner_id = :owner_id and id = :id and status = 'running'""")
STOP_QUEUED = text("""
    with stopped as (
        update turn set status = 'cancelled', cancel = true, finished_at = now(), last_event = last_event + 1
        where owner_id = :owner_id and id = :id and status = 'queued' returning owner_id, id, last_event)
    insert into event (owner_id, turn_id, seq, kind, body, at)
    select owner_id, id, last_event, 'cancelled', '{}', now() from stopped""")
