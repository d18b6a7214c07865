"""A piece of work that is always the same, which processor time is held against: machines differ, and so do their hours."""

from statistics import median

import asyncpg
import psutil  # type: ignore[import-untyped]

WORK = "Postgres counts to 1,000,000"
_TIMES = 5


class Backend:
    """A process of Postgres that answers a connection."""

    def __init__(self, pid: int) -> None:
        self._path = f"/proc/{pid}/schedstat"
        self._process = psutil.Process(pid)

    def spent(self) -> float:
        """The milliseconds of processor time that it has taken up to now."""
        try:
            with open(
                self._path
            ) as file:  # to the nanosecond; where there is none, clocks tick a hundred times a second
                return int(file.read().split()[0]) / 1e6
        except OSError:
            times = self._process.cpu_times()
            return float(times.user + times.system) * 1000


async def spend_work(connection: asyncpg.Connection) -> float:
    """The milliseconds of processor time that the work takes."""
    backend, spent = Backend(connection.get_server_pid()), []
    await connection.execute("set max_parallel_workers_per_gather = 0")
    for _ in range(_TIMES):
        before = backend.spent()
        await connection.fetchval("select count(*) from generate_series(1, 1000000)")
        spent.append(backend.spent() - before)
    await connection.execute("reset max_parallel_workers_per_gather")
    return median(spent)
