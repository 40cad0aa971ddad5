"""A PostgreSQL server and its replica for failovers. By default every commit waits for the replica."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from support.processes.cluster import OwnPostgres
from support.waiting import until

SYNC = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = '{}' AND state = 'streaming'"


class ReplicatedPostgres:
    """Two servers; `url` names both. A context manager. Skips the test where there is no PostgreSQL.

    `first` takes writes, `second` follows it; after `fail_over` it is alone, until it gets a replica by `follow`.
    """

    def __init__(self):
        self._opened = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as opened:
            self.first = opened.enter_context(OwnPostgres())
            self.second = opened.enter_context(OwnPostgres(self.first))
            given = [conninfo_to_dict(server.url) for server in (self.first, self.second)]
            hosts = ",".join(f"{one['host']}:{one['port']}" for one in given)
            self.url = f"postgresql://{given[0]['user']}@{hosts}/{given[0]['dbname']}"
            self.wait_for_replica(True)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_):
        self._opened.close()

    def wait_for_replica(self, wanted):
        """Make commits wait for the replica, or not."""
        self.say(f"ALTER SYSTEM SET synchronous_standby_names = '{'*' if wanted else ''}'")
        self.say("SELECT pg_reload_conf()")
        until(lambda: self.say(SYNC.format("sync" if wanted else "async")) == 1, pause_seconds=0.01)

    def say(self, statement):
        """Run a statement on the primary, as its administrator; return the first value, if any."""
        port = conninfo_to_dict(self.first.url)["port"]
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    def kill(self):
        """Kill the primary with all its processes."""
        pid = int((self.first.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        for left in ("data/postmaster.pid", ".s.PGSQL.*"):  # another process may have its process id
            for path in self.first.folder.glob(left):
                path.unlink()

    def fail_over(self):
        """Kill the primary, unless it is dead, and promote the replica."""
        if (self.first.folder / "data" / "postmaster.pid").exists():
            self.kill()
        self.second.run("promote")
        self.first, self.second = self.second, self.first

    def follow(self):
        """Make the killed server the replica of the other, at its old address; commits wait for it from then on."""
        shutil.rmtree(self.second.folder / "data")
        self.second.run("standby", self.first.folder, conninfo_to_dict(self.second.url)["port"])
        self.wait_for_replica(True)
