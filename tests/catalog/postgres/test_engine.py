"""The PostgreSQL engine: the contract of every Database, serializability, retries, and opening."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import closing

import psycopg
import pytest

from conformance.database import DatabaseTests, GroupCommitTests, add, adding, names, numbering, numbers, together
from cryostore.catalog import open_catalog
from cryostore.catalog.database import FixedStatements, UnexpectedRowCountError
from cryostore.catalog.postgres import engine as postgres
from cryostore.catalog.postgres import session as postgres_session
from cryostore.catalog.postgres.engine import PostgresDatabase
from cryostore.catalog.processes import epoch as collections
from cryostore.catalog.queries import references
from cryostore.catalog.rows import chunks, uploads
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.core.errors import ConfigurationError, StorageUnavailableError
from support.services.postgres import at, new_database, required

COVERS = (
    "catalog/postgres/session.py",
    "catalog/postgres/transaction.py",
    "catalog/postgres/writer_row.py",
)


DIGEST = b"d" * 32


class TestPostgresDatabase(GroupCommitTests, DatabaseTests):
    """A database on a server; several openings stand for several nodes."""

    blob = "BYTEA"

    @pytest.fixture
    def place(self):
        with new_database(migrated=False) as url:
            yield url

    @staticmethod
    def open_database(place):
        return PostgresDatabase(place)

    def commits(self, database):
        return database._row.batch

    def wait_for_queue(self, database, length):
        while database._group.waiting() < length:
            time.sleep(0)


@pytest.fixture
def thing(database):
    """A table to write to, with a row that everybody writes."""
    database.write(lambda t: t.run("CREATE TABLE thing (name BYTEA NOT NULL UNIQUE, number BIGINT NOT NULL)"))
    database.write(add(b"hot"))


def test_a_statement_has_one_plan_for_numbers_of_any_size(database):
    def work(transaction):
        for number in (1, 1 << 20, 1 << 40, True, -(2**63)):
            transaction.row("SELECT pack_number FROM pack WHERE pack_number = :n", n=number)
        return transaction.rows("SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%FROM pack %'")

    assert len(database.read(work)) == 1


def test_numbers_are_never_reused(database):
    """Neither an explicitly inserted number nor those below it, even after its row is deleted."""

    def upload(number):
        return lambda t: (
            t.run(
                "INSERT INTO upload (upload_number, upload_id, job_id, name, throw_on_duplicate, created_ms,"
                " chunk_count) VALUES (:n, :i, '', :name, 0, 0, 0)",
                n=number,
                i=str(number),
                name=b"",
            ),
            t.pass_number("upload", "upload_number", number),
            t.run("DELETE FROM upload"),
        )

    def next_number():
        database.write(
            lambda t: uploads.insert(t, upload_id="x", job_id="J", name=b"", throw_on_duplicate=False, now_ms=0)
        )
        (number,) = database.write(lambda t: t.row("DELETE FROM upload RETURNING upload_number"))
        return number

    database.write(upload(7))
    assert next_number() == 8
    database.write(upload(3))
    assert next_number() > 8


# --- one order of all transactions


class Steps:
    """Pauses a unit of work between two of its statements, each time it runs."""

    def __init__(self):
        self.runs = 0
        self.halted, self.go_on = threading.Event(), threading.Event()

    def halt(self):
        """Count a run; the first run waits here."""
        self.runs += 1
        if self.runs == 1:
            self.halted.set()
            assert self.go_on.wait(60)


@pytest.fixture
def steps(database, other):
    """Pauses the writer between its steps, and releases it at the end of the test."""
    steps = Steps()
    yield steps
    steps.go_on.set()


def refer(transaction, steps=None):
    """Refer to a chunk of the vault and note the epoch, as PutChunk does; may pause between the two."""
    assert chunks.mark_used(transaction, 1, DIGEST)
    if steps is not None:
        steps.halt()
    transaction.run_all([uploads.add_chunk_statement(1, ChunkEntry(0, 5, DIGEST, 0))])


def marked(transaction):
    """Read a page of the marking pass of garbage collection."""
    return [row.digest for row in references.upload_chunks(transaction, after=(0, -1), limit=100)]


def used_epoch(transaction):
    return transaction.row("SELECT used_epoch FROM chunk")[0]


@pytest.fixture
def chunk(database):
    """An unreferenced chunk, last used in the epoch before the first collection."""
    row = ChunkRow(1, "pack", 0, 10, 5)
    assert database.write(lambda t: chunks.insert(t, 1, DIGEST, row, epoch=0, now_ms=0))


def in_thread(action):
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_a_writer_of_the_old_epoch_does_not_commit_after_the_marking_pass(database, other, chunk, steps):
    """The writer reads the epoch. Then a run begins, and marks the rows where the writer is about to write.

    The writer must not commit with the old epoch: its chunk would be neither marked nor used. It runs again.
    """
    writer = in_thread(lambda: database.write(lambda t: refer(t, steps)))
    assert steps.halted.wait(60)
    epoch = other.write(collections.next_epoch)
    assert other.read(marked) == []
    steps.go_on.set()
    writer.join()
    assert steps.runs == 2
    assert other.read(used_epoch) == epoch == 1
    assert not other.write(lambda t: chunks.condemn(t, 1, DIGEST, epoch=epoch, now_ms=2))
    assert other.read(marked) == [DIGEST]


def test_the_marking_pass_does_not_miss_a_writer_of_the_old_epoch(database, other, chunk, steps):
    """As above, but the writer commits between the snapshot of the pass and its read: one of them runs again."""
    pages = Steps()
    writer = in_thread(lambda: database.write(lambda t: refer(t, steps)))
    assert steps.halted.wait(60)
    assert other.write(collections.next_epoch) == 1
    found = []

    def page(transaction):
        transaction.row("SELECT 1 FROM vault")
        pages.halt()
        return marked(transaction)

    reader = in_thread(lambda: found.append(other.read(page)))
    assert pages.halted.wait(60)
    steps.go_on.set()
    writer.join()
    pages.go_on.set()
    reader.join()
    assert steps.runs + pages.runs > 2, "one of them had to run again"
    assert other.read(used_epoch) == 1 or found == [[DIGEST]]


def test_a_read_only_transaction_is_serialized_even_if_its_work_raises(database, other, chunk, steps):
    """An error, too, is valid in some order of all transactions: the writer must run again."""
    writer = in_thread(lambda: database.write(lambda t: refer(t, steps)))
    assert steps.halted.wait(60)
    other.write(collections.next_epoch)

    def work(transaction):
        raise LookupError(marked(transaction))

    with pytest.raises(LookupError):
        other.read(work)
    steps.go_on.set()
    writer.join()
    assert steps.runs == 2


def test_a_read_with_repeated_conflicts_waits_for_a_safe_snapshot(database, other, chunk, monkeypatch):
    """In the end a read runs without possible conflicts: it succeeds under any load of writes."""
    said = []
    honest = postgres_session.Session.say
    monkeypatch.setattr(postgres_session.Session, "say", lambda self, text: (said.append(text), honest(self, text))[1])
    runs = itertools.count(1)

    def work(transaction):
        if next(runs) <= postgres.READS_AT_ONCE:
            raise psycopg.errors.SerializationFailure
        return marked(transaction)

    assert other.read(work) == []
    assert next(runs) == postgres.READS_AT_ONCE + 2
    assert [text for text in said if text.startswith("BEGIN")] == ["BEGIN READ ONLY DEFERRABLE"]


# --- concurrent writers


def count_up(transaction):
    (number,) = transaction.row("SELECT number FROM thing WHERE name = :name", name=b"hot")
    transaction.run("UPDATE thing SET number = :number WHERE name = :name", number=number + 1, name=b"hot")


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.usefixtures("thing")
def test_a_skipped_statement_does_not_count_as_prepared(database, at_once):
    """An earlier statement failed while it was being prepared, in a session that had rolled back before.

    Otherwise the skipped one would fail until the end of the session.
    """

    def write(name):
        unit = FixedStatements([adding(name), numbering(b"hot", 1)])
        database.write(unit if at_once else unit.__call__)  # whose statements are not known beforehand

    def fail():
        with pytest.raises(psycopg.errors.UniqueViolation):
            write(b"hot")

    fail()
    for number in range(postgres_session.PREPARE_AFTER):
        write(b"%d" % number)
    fail()
    for name in (b"a", b"b"):
        attempts = database._row.batch
        write(name)
        assert database._row.batch == attempts + 1


@pytest.mark.usefixtures("thing")
def test_a_batch_that_runs_again_is_not_logged(database, caplog):
    """The library warns about skipped statements; with many nodes that would be a line every few writes."""
    for _ in range(5):  # it depends on how fast the server is
        with pytest.raises(UnexpectedRowCountError):
            database.write(FixedStatements([numbering(b"none", 1), *[adding(b"%d" % number) for number in range(50)]]))
    assert caplog.records == []


def test_every_increment_of_a_hot_row_counts_once(database, other, thing):
    """Two nodes, many threads, one row."""
    nodes = (database, other)
    together(8, lambda number: [nodes[number % 2].write(count_up) for _ in range(25)])
    assert database.read(numbers) == [200]


def test_a_batch_with_a_conflict_is_retried_alone(database, other, thing, steps):
    """No other process writes during the second attempt, so it always succeeds."""

    def work(transaction):
        (number,) = transaction.row("SELECT number FROM thing WHERE name = :name", name=b"hot")
        steps.halt()
        transaction.run("UPDATE thing SET number = :number WHERE name = :name", number=number + 1, name=b"hot")
        return transaction.rows(
            "SELECT mode FROM pg_locks JOIN pg_class ON pg_class.oid = relation"
            " WHERE relname = 'catalog_writer' AND pid = pg_backend_pid() AND mode = 'ExclusiveLock'"
        )

    answers = []
    writer = in_thread(lambda: answers.append(database.write(work)))
    assert steps.halted.wait(60)
    other.write(count_up)
    steps.go_on.set()
    writer.join()
    assert (steps.runs, answers) == (2, [[("ExclusiveLock",)]])
    assert database.read(numbers) == [2]


def test_a_row_that_another_node_has_just_added_is_seen_by_the_retry(database, other, thing, steps):
    """A constraint that only the other's row violates is not an error of this unit of work."""

    def blind(transaction):
        transaction.row("SELECT 1")
        steps.halt()
        if steps.runs == 1:
            add(b"new")(transaction)

    writer = in_thread(lambda: database.write(blind))
    assert steps.halted.wait(60)
    other.write(add(b"new"))
    steps.go_on.set()
    writer.join()
    assert steps.runs == 2
    assert database.read(names) == [b"hot", b"new"]


def test_an_error_of_a_unit_of_work_is_validated_like_a_result(database, thing):
    """A unit of work that raises runs again in a transaction that is then committed, alone or with others."""
    runs = []

    def refuse(transaction):
        runs.append(transaction.row("SELECT number FROM thing"))
        raise LookupError

    with pytest.raises(LookupError):
        database.write(refuse)
    assert len(runs) == 2


def test_a_suppressed_error_of_a_statement_fails_its_unit_of_work(database, thing):
    """Nothing of the unit of work counts as committed."""

    def work(transaction):
        add(b"a")(transaction)
        with pytest.raises(psycopg.Error):
            transaction.run("NONSENSE")

    with pytest.raises(AssertionError):
        database.write(work)
    assert database.read(names) == [b"hot"]


# --- opening


def test_a_catalog_is_opened_by_its_url():
    with new_database(migrated=False) as url, closing(open_catalog(url)) as catalog:
        assert isinstance(catalog, PostgresDatabase)
        assert catalog.read(lambda t: t.row("SELECT count(*) FROM vault")) == (0,)


def test_the_error_names_the_problem_of_each_host():
    with pytest.raises(StorageUnavailableError) as told:
        PostgresDatabase("postgresql://u:geheim@127.0.0.1:1,[::1]:2/db", outage_seconds=0.1)
    for host in ('"127.0.0.1", port 1', '"::1", port 2'):
        assert f"connection to server at {host} failed" in told.value.message
    assert "geheim" not in told.value.message
    assert "\n" not in told.value.message


def test_a_missing_database_is_a_configuration_error(postgres_url):
    with pytest.raises(ConfigurationError, match="does not exist") as refused:
        PostgresDatabase(at(postgres_url, "nowhere"))
    assert "PGPASSWORD" in refused.value.hint


def test_an_unreachable_server_is_retried_and_then_raises():
    with pytest.raises(StorageUnavailableError, match="refused") as told:
        PostgresDatabase("postgresql://u:geheim@127.0.0.1:1/db", outage_seconds=0.2)
    assert "geheim" not in str(told.value)


def test_the_session_has_the_settings_that_the_catalog_needs(database):
    wanted = {"transaction_isolation": "serializable", "synchronous_commit": "on", "client_encoding": "UTF8"}
    for name, value in wanted.items():
        assert database.read(lambda t, name=name: t.row(f"SHOW {name}")) == (value,)
        assert database.write(lambda t, name=name: t.row(f"SHOW {name}")) == (value,)


def test_writers_remove_their_row_at_shutdown(postgres_url):
    with closing(PostgresDatabase(postgres_url)) as database:
        for _ in range(3):
            other = PostgresDatabase(postgres_url)
            other.write(lambda t: t.row("SELECT 1"))
            other.close()
        assert database.read(lambda t: t.row("SELECT count(*) FROM catalog_writer")) == (1,)  # its own


def test_required_names_what_is_missing(monkeypatch):
    monkeypatch.delenv("CRYO_TEST_POSTGRES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="CRYO_TEST_POSTGRES"):
        required()
