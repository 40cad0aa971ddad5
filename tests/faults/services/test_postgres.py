"""Faults of PostgreSQL: connections cut anywhere, silent servers, outages, restarts, a full disk.

No write is lost, and none takes effect twice.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from conformance.database import add, numbers
from cryostore.catalog.database import FixedStatements, Statement
from cryostore.catalog.postgres.engine import PostgresDatabase
from cryostore.core.errors import ConfigurationError, StorageFullError, StorageUnavailableError
from support import project
from support.faults.small_disk import small_disk
from support.faults.tcp_proxy import CutError, TcpProxy
from support.services.postgres import at, new_database, required
from support.waiting import until

SCRIPT = project.ROOT / "scripts" / "postgres"
TABLE = "CREATE TABLE thing (name BYTEA NOT NULL UNIQUE, number BIGINT NOT NULL)"


def count_up(transaction):
    """Increment the number, in statements that depend on each other."""
    (number,) = transaction.row("SELECT number FROM thing WHERE name = :name", name=b"hot")
    transaction.run("UPDATE thing SET number = :number WHERE name = :name", number=number + 1, name=b"hot")
    return number + 1


class ProxiedDatabase:
    """A database behind a proxy, and a direct connection to it."""

    def __init__(self, url, proxy, database, near):
        self.url, self.proxy, self.database, self.near = url, proxy, database, near

    def number(self):
        """Return the current number, read over the direct connection."""
        (number,) = self.near.read(numbers)
        return number

    def cut_at(self, number, side):
        """Cut the connection at a message, counted from now. Returns an event that tells whether it happened."""
        left, done = itertools.count(number, -1), threading.Event()

        def look(_, piece):
            if next(left) == 1:
                done.set()
                raise CutError
            return piece

        setattr(self.proxy, side, look)
        return done

    def cut_behind(self, arrived_bytes):
        """Cut the connection after so many bytes of requests. Returns an event that tells whether it happened."""
        left, done = [arrived_bytes], threading.Event()

        def look(_, piece):
            if not done.is_set() and len(piece) > left[0]:
                done.set()
                raise CutError(piece[: left[0]])
            left[0] -= len(piece)
            return piece

        self.proxy.on_request = look
        return done

    def calm(self):
        """End all faults of the proxy."""
        self.proxy.on_request = self.proxy.on_answer = lambda _, piece: piece


@pytest.fixture
def far():
    with new_database(migrated=False) as url:
        given = conninfo_to_dict(url)
        with (
            TcpProxy(given["host"], given["port"]) as proxy,
            closing(PostgresDatabase(at(url, given["dbname"], proxy.port))) as database,
            closing(PostgresDatabase(url)) as near,
        ):
            near.write(lambda t: t.run(TABLE))
            near.write(add(b"hot"))
            yield ProxiedDatabase(url, proxy, database, near)


# --- a connection that is cut


@pytest.mark.parametrize("side", ["on_request", "on_answer"])
def test_a_write_with_a_cut_connection_takes_effect_once(far, side):
    """The cut is at each message of a transaction, including the COMMIT and its answer."""
    for at_message in itertools.count(1):
        struck = far.cut_at(at_message, side)
        assert far.database.write(count_up) == far.number() == at_message
        far.calm()
        if not struck.is_set():
            break
    assert at_message > 4, "a transaction has at least BEGIN, a read, a write and COMMIT"


@pytest.mark.parametrize("side", ["on_request", "on_answer"])
def test_a_read_with_a_cut_connection_is_answered(far, side):
    for at_message in itertools.count(1):
        struck = far.cut_at(at_message, side)
        assert far.database.read(numbers) == [0]
        far.calm()
        if not struck.is_set():
            break
    assert at_message > 1, "a read has several messages"


def on_commit(action):
    """Return a filter that passes the first COMMIT to `action`."""
    met = threading.Event()

    def look(_, piece):
        if b"COMMIT" in piece and not met.is_set():
            met.set()
            return action(piece)
        return piece

    return look


COUNT_UP = Statement("UPDATE thing SET number = number + 1 WHERE name = :name", {"name": b"hot"})
SHARE_BYTES = 41


def test_a_batch_with_a_cut_connection_takes_effect_once(far):
    """All statements are sent at once with COMMIT. The cut is after any part of them, or before the answer."""
    for count in itertools.count(1):
        struck = far.cut_behind((count - 1) * SHARE_BYTES)
        far.database.write(FixedStatements([COUNT_UP]))
        assert far.number() == count
        far.calm()
        if not struck.is_set():
            break
    assert count > 5
    far.proxy.on_answer = on_commit(lambda piece: _cut(0, piece))
    far.database.write(FixedStatements([COUNT_UP]))
    assert far.number() == count + 1


def test_a_commit_that_arrives_late_has_no_effect(far):
    """The writer has repeated the batch. The server does nothing for the old connection any more."""
    cut, arrived = threading.Event(), threading.Event()

    def late(piece):
        far.proxy.cut_clients()
        cut.set()
        assert arrived.wait(60)
        return piece

    far.proxy.on_request = on_commit(late)
    assert far.database.write(count_up) == 1
    assert cut.is_set()
    arrived.set()
    assert far.number() == 1
    assert far.database.write(count_up) == far.number() == 2


@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.stress)])
def test_many_writers_on_an_unstable_connection(far, rounds):
    """One of two nodes is behind the proxy. All increments are acknowledged, and each counts once."""
    messages = itertools.count(1)

    def look(_, piece):
        if next(messages) % 23 == 0:
            raise CutError
        return piece

    far.proxy.on_request = look
    nodes = [far.database] * 3 + [far.near]
    threads = [
        threading.Thread(target=lambda node=node: [node.write(count_up) for _ in range(rounds)]) for node in nodes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert far.number() == 4 * rounds
    assert far.proxy.connections > 5


# --- an unreachable server


def test_a_long_outage_is_an_error_and_changes_nothing(far):
    far.database.outage_seconds = 0.3
    far.proxy.refuses = True
    far.proxy.cut()
    for call in (lambda: far.database.write(count_up), lambda: far.database.read(numbers)):
        with pytest.raises(StorageUnavailableError) as told:
            call()
        assert type(told.value) is StorageUnavailableError
    assert far.number() == 0
    far.proxy.refuses = False
    assert far.database.write(count_up) == far.number() == 1
    assert far.database.read(numbers) == [1]


@pytest.mark.parametrize("side", ["on_request", "on_answer"])
def test_an_unknown_outcome_is_reported(far, side):
    """The connection is lost in a COMMIT, and the server stays away. The write took effect completely or not at all."""
    far.database.doubt_seconds = 0.3

    def lost(piece):
        far.proxy.refuses = True
        if side == "on_request":
            raise CutError
        far.proxy.on_answer = _cut
        return piece

    far.proxy.on_request = on_commit(lost)
    with pytest.raises(StorageUnavailableError, match="may or may not"):
        far.database.write(count_up)
    far.proxy.refuses = False
    far.calm()
    before = far.number()
    assert before == (side == "on_answer")
    assert far.database.write(count_up) == far.number() == before + 1


def _cut(_, piece):
    raise CutError


def test_a_silent_server_times_out(far):
    """As after a pulled cable, the connection counts as lost after a while."""
    far.database.answer_seconds = 0.3
    far.database.outage_seconds = 0.5
    far.database._url.parameters["connect_timeout"] = 2
    far.proxy.hold()
    with pytest.raises(StorageUnavailableError):
        far.database.write(count_up)
    far.proxy.cut()
    far.proxy.go_on()
    assert far.database.write(count_up) == far.number() == 1


def test_an_open_transaction_of_a_dead_node_ends_with_its_session(far):
    """Other nodes wait only until the server notices the lost connection."""
    url = far.url
    with psycopg.connect(url) as dead:
        dead.execute("UPDATE thing SET number = number + 100")
        pid = dead.info.backend_pid
        done = []
        writer = threading.Thread(target=lambda: done.append(far.database.write(count_up)))
        writer.start()
        far.near.read(lambda t: t.row("SELECT pg_terminate_backend(CAST(:pid AS INTEGER))", pid=pid))
        writer.join()
        assert done == [1]
        with pytest.raises(psycopg.OperationalError):
            dead.execute("SELECT 1")


# --- a separate server


def script(verb, folder, *more):
    done = subprocess.run([SCRIPT, verb, folder, *more], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def own_server():
    """A server that a test may stop. Yields its folder and its URL."""
    required()
    folder = Path("/tmp") / f"cryo-postgres-{threading.get_native_id()}"  # the user of the server can reach it
    url = script("up", folder, str(_free_port()))
    try:
        yield folder, url
    finally:
        subprocess.run([SCRIPT, "down", folder], check=False)
        shutil.rmtree(folder)


def _free_port():
    with TcpProxy("127.0.0.1", 1) as proxy:
        return proxy.port


def test_a_restart_under_load_only_delays_writes(own_server):
    """The server is stopped, then killed. Each acknowledged increment counts once, and no read sees it undone."""
    folder, url = own_server
    with closing(PostgresDatabase(url)) as database, closing(PostgresDatabase(url)) as other:
        database.write(lambda t: t.run(TABLE))
        database.write(add(b"hot"))
        over, answered, seen = threading.Event(), itertools.count(), []

        def write(node):
            while not over.is_set():
                node.write(count_up)
                next(answered)

        def read():
            while not over.is_set():
                seen.append(database.read(numbers)[0])

        threads = [threading.Thread(target=write, args=(node,)) for node in (database, other, database)]
        threads.append(threading.Thread(target=read))
        for thread in threads:
            thread.start()
        for verb in ("down", "kill"):
            script(verb, folder)
            script("up", folder)
            before = len(seen)
            while len(seen) < before + 5:
                assert any(thread.is_alive() for thread in threads)
        over.set()
        for thread in threads:
            thread.join()
        assert database.read(numbers) == [next(answered)]
        assert seen == sorted(seen)


def test_a_server_that_became_read_only_is_abandoned(own_server):
    """The server becomes read-only with open sessions. The writer reconnects once a server accepts writes."""
    _, url = own_server
    port = conninfo_to_dict(url)["port"]

    def demote(value):
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", autocommit=True) as administrator:
            administrator.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            administrator.execute("SELECT pg_reload_conf()")

    with closing(PostgresDatabase(url)) as database:
        before = database.write(lambda t: t.row("SELECT pg_backend_pid()"))
        demote("on")
        until(lambda: database._writing.say("SHOW transaction_read_only").fetchone() == ("on",))
        met = []

        def write(transaction):
            met.append(transaction.row("SELECT pg_backend_pid()"))
            return met[-1]

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(database.write, write)
            until(lambda: database._writing is None)
            demote("off")
            assert answer.result() == met[-1] != before


def test_a_wrong_password_is_a_configuration_error(own_server):
    """The message does not contain the password."""
    folder, url = own_server
    rules = folder / "data" / "pg_hba.conf"
    rules.write_text("host all locked 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE locked LOGIN PASSWORD 'richtig'")
        connection.execute("GRANT pg_read_all_settings TO cryo")
    script("down", folder)
    script("up", folder)
    given = conninfo_to_dict(url)
    for password in (":falsch", ""):
        with pytest.raises(ConfigurationError, match="password") as told:
            PostgresDatabase(f"postgresql://locked{password}@127.0.0.1:{given['port']}/cryo")
        assert "falsch" not in told.value.message + told.value.hint
    with pytest.raises(ConfigurationError, match="permission denied") as told:
        PostgresDatabase(f"postgresql://locked:richtig@127.0.0.1:{given['port']}/postgres").migrate()
    assert "OWNER" in told.value.hint


@contextmanager
def tablespace(own_server, tmp_path):
    """A tablespace on a disk of a few MiB."""
    folder, url = own_server
    with small_disk(tmp_path / "disk", 4) as disk:
        for path in (*tmp_path.parents[:3], tmp_path, disk.path):
            path.chmod(0o755)
        place = disk.path / "space"
        place.mkdir()
        shutil.chown(place, (folder / "data").owner())
        port = conninfo_to_dict(url)["port"]
        administrator = psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", autocommit=True)
        with closing(administrator):
            administrator.execute(f"CREATE TABLESPACE small OWNER cryo LOCATION '{place}'")
            yield disk
            administrator.execute("DROP TABLESPACE small")


def test_a_full_disk_is_an_error_until_there_is_space(own_server, tmp_path):
    """A write that does not fit has no effect. Writes succeed again once there is space."""
    _, url = own_server
    with tablespace(own_server, tmp_path) as disk, closing(PostgresDatabase(url)) as database:
        database.write(lambda t: t.run("CREATE TABLE large (name BYTEA) TABLESPACE small"))
        database.write(lambda t: t.run("ALTER TABLE large ALTER COLUMN name SET STORAGE EXTERNAL"))
        insert = "INSERT INTO large (name) VALUES (:name)"
        database.write(lambda t: t.run(insert, name=b"before"))
        disk.fill()
        for _ in range(2):
            with pytest.raises(StorageFullError):
                database.write(lambda t: t.run(insert, name=bytes(1 << 20)))
            assert database.read(lambda t: t.row("SELECT count(*) FROM large")) == (1,)
        disk.clear()
        database.write(lambda t: t.run(insert, name=bytes(1 << 20)))
        assert database.read(lambda t: t.row("SELECT count(*) FROM large")) == (2,)
        database.write(lambda t: t.run("DROP TABLE large"))
