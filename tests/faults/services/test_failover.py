"""Failover of PostgreSQL to a replica: no acknowledged write is lost, or the nodes notice it and stop."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from contextlib import closing

import psycopg
import pytest

from conformance.database import add, numbers
from cryostore.catalog.postgres.engine import PostgresDatabase
from cryostore.catalog.postgres.session import ANSWER_SECONDS
from cryostore.core.errors import StorageUnavailableError
from support.processes.cluster import Cluster
from support.services.replicated_postgres import ReplicatedPostgres
from support.waiting import until

TABLE = "CREATE TABLE thing (name BYTEA NOT NULL UNIQUE, number BIGINT NOT NULL)"
RECEIVER = "SELECT pid FROM pg_stat_wal_receiver"


def count_up(transaction):
    """Increment the number, in statements that depend on each other."""
    (number,) = transaction.row("SELECT number FROM thing WHERE name = :name", name=b"hot")
    transaction.run("UPDATE thing SET number = :number WHERE name = :name", number=number + 1, name=b"hot")
    return number + 1


@pytest.fixture
def servers():
    with ReplicatedPostgres() as servers:
        yield servers


@pytest.fixture
def database(servers):
    with closing(PostgresDatabase(servers.url)) as database:
        database.write(lambda t: t.run(TABLE))
        database.write(add(b"hot"))
        yield database


class Counting:
    """The writers of two processes on one row, and a reader. Each acknowledged increment counts once."""

    def __init__(self, url):
        self._nodes = [PostgresDatabase(url), PostgresDatabase(url)]
        self._over = threading.Event()
        self._answered = itertools.count()
        self._seen = []
        self._threads = [threading.Thread(target=self._write, args=(node,)) for node in (*self._nodes, self._nodes[0])]
        self._threads.append(threading.Thread(target=self._read))

    def _write(self, node):
        while not self._over.is_set():
            node.write(count_up)
            next(self._answered)

    def _read(self):
        while not self._over.is_set():
            self._seen.append(self._nodes[0].read(numbers)[0])

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def go_on(self):
        """Wait until the number has grown. All threads are still running."""
        before = len(self._seen)
        until(lambda: len(self._seen) > before + 5, pause_seconds=0.01)
        assert all(thread.is_alive() for thread in self._threads)

    def __exit__(self, kind, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            assert self._nodes[0].read(numbers) == [next(self._answered)]
            assert self._seen == sorted(self._seen)
        for node in self._nodes:
            node.close()


def fail_over_again_and_again(servers, folder, times, **load):
    with contextlib.ExitStack() as opened:
        cluster = Cluster(folder, opened, count=2, blobs=str(folder / "blobs"), servers=servers)
        with cluster.load(**load) as running, Counting(servers.url) as counting:
            for turn in range(times):
                if turn:
                    servers.follow()
                running.go_on(3)
                counting.go_on()
                servers.fail_over()
                running.go_on(3)
                counting.go_on()
        assert cluster.problems() == []


@pytest.mark.usefixtures("database")
def test_nodes_continue_with_the_replica_after_a_crash_under_load(servers, tmp_path):
    """The nodes have both servers in their URL. Clients with default retries notice nothing."""
    fail_over_again_and_again(servers, tmp_path, 1, ours=1)


@pytest.mark.stress
@pytest.mark.usefixtures("database")
def test_repeated_failovers_lose_nothing(servers, tmp_path):
    fail_over_again_and_again(servers, tmp_path, 20)


def test_a_commit_is_invisible_until_the_replica_has_it(servers, database):
    """It is not acknowledged either: the caller learns that the outcome is unknown. Only the replica ends the wait."""
    database.answer_seconds = database.doubt_seconds = 0.3
    with closing(PostgresDatabase(servers.url)) as other:
        assert other.read(numbers) == [0]
        servers.second.run("down")
        with pytest.raises(StorageUnavailableError, match="may or may not"):
            database.write(count_up)
        assert other.read(numbers) == [0]
        database.answer_seconds = ANSWER_SECONDS
        servers.second.run("up")
        assert database.write(count_up) == 2
        assert other.read(numbers) == [2]


@pytest.mark.parametrize("first", ["write", "read"])
def test_a_replica_without_acknowledged_writes_is_refused(servers, database, first):
    """Such a replica was asynchronous. A new session refuses it, too, before other sessions have seen it.

    A process that has not acknowledged anything yet accepts it.
    """
    database.outage_seconds = 1
    servers.wait_for_replica(False)
    port = servers.second.url.rpartition(":")[2].partition("/")[0]
    with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres") as replica:
        (receiver,) = replica.execute(RECEIVER).fetchone()
    os.kill(receiver, signal.SIGSTOP)
    assert database.write(count_up) == 1
    servers.kill()
    os.kill(receiver, signal.SIGKILL)
    servers.fail_over()
    calls = [lambda: database.write(count_up), lambda: database.read(numbers)]
    for call in calls if first == "write" else reversed(calls):
        with pytest.raises(StorageUnavailableError, match="lacks 1 writes of this process") as told:
            call()
        assert "replica" in told.value.hint
    with closing(PostgresDatabase(servers.url)) as started_anew:
        assert started_anew.write(count_up) == 1
