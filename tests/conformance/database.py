"""Conformance suite of every Database. A subclass provides a place, and opens it several times at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import closing

import pytest

from cryostore.catalog.database import FixedStatements, Statement, UnexpectedRowCountError
from cryostore.core.errors import ConfigurationError, StorageFullError, StorageUnavailableError

COVERS = ("catalog/database.py",)


SPAWN = multiprocessing.get_context("spawn")
VALUES = [
    None, 0, -1, 2**63 - 1, -(2**63), "", "text",
    "\U0001f4be \u0000 é", "'; DROP TABLE thing; --",
    b"", b"\0", b"\xff" * 3, bytes(range(256)) * 200,
]  # fmt: skip
NAMES = [
    b"\0", b"\0\0", b"\x01", b"A", b"Z", b"a", b"a\0", b"a\x01", b"a!", b"a/", b"a/b", b"aa", b"b", b"\x7f",
    b"\x7f\x80", b"\x80", b"\xc3\xa9", b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbf", b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf", b"\xfe", b"\xff", b"\xff\0", b"\xff\xff",
]  # fmt: skip
TABLE = "CREATE TABLE thing (name {blob} NOT NULL UNIQUE, number BIGINT NOT NULL)"


class RefusalError(Exception):
    """An error that rolls a unit of work back."""


def add(name, number=0):
    """Add a row, as a unit of work."""
    return lambda transaction: transaction.run(
        "INSERT INTO thing (name, number) VALUES (:name, :number)", name=name, number=number
    )


def adding(name):
    """Return a statement that adds a row."""
    return Statement("INSERT INTO thing (name, number) VALUES (:name, 0)", {"name": name})


def numbering(name, number, *, or_none=False):
    """Return a statement that gives a row a number."""
    text = "UPDATE thing SET number = :number WHERE name = :name"
    return Statement(text, {"name": name, "number": number}, or_none)


def names(transaction):
    return [row[0] for row in transaction.rows("SELECT name FROM thing ORDER BY name")]


def numbers(transaction):
    return [row[0] for row in transaction.rows("SELECT number FROM thing ORDER BY number")]


def together(count, action):
    """Run `action(number)` in `count` threads that start at the same time. Raises the first error."""
    start, errors = threading.Barrier(count), []

    def run(number):
        start.wait()
        try:
            action(number)
        except BaseException as error:  # noqa: BLE001 - raised below in the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def count_up(open_database, place, writer, rounds, ready, go):
    """Run in a separate process: add rows, and count in a row that all processes share."""
    with closing(open_database(place)) as database:
        ready.release()
        go.wait()
        for number in range(rounds):

            def work(transaction, number=number):
                row = transaction.row("SELECT number FROM thing WHERE name = :name", name=b"shared")
                update = "UPDATE thing SET number = :number WHERE name = :name"
                transaction.run(update, number=row[0] + 1, name=b"shared")
                add(b"%d %d" % (writer, number), -1)(transaction)

            database.write(work)


def write_forever(open_database, place, pipe):
    """Run in a separate process until it is killed: print each row after its write."""
    database = open_database(place)
    lock = threading.Lock()

    def run(writer):
        number = 0
        while True:
            database.write(add(b"%d %d" % (writer, number)))
            with lock:
                os.write(pipe.fileno(), b"%d %d\n" % (writer, number))
            number += 1

    threads = [threading.Thread(target=run, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def acknowledged(pipe, least):
    """Read the output of `write_forever` until it has reported `least` rows."""
    told = b""
    while told.count(b"\n") < least:
        told += os.read(pipe.fileno(), 1 << 16)
    return told


class DatabaseTests:
    """Subclass, name it Test..., and give `place`, `open_database` and `blob`."""

    blob: str
    """The type of a column of bytes in this engine."""

    @pytest.fixture
    def place(self, tmp_path):
        """The place of an empty database. It can be sent to another process."""
        raise NotImplementedError

    @staticmethod
    def open_database(place):
        """Open the database at a place. It is a function that another process can import."""
        raise NotImplementedError

    def make_newer(self, database):
        """Set a later version of the schema."""
        database.write(lambda t: t.run("INSERT INTO schema_version (version) VALUES (:version)", version=10_000))

    @pytest.fixture
    def database(self, place):
        with closing(self.open_database(place)) as database:
            database.write(lambda transaction: transaction.run(TABLE.format(blob=self.blob)))
            yield database

    # --- units of work

    def test_a_write_returns_the_result_of_its_work(self, database):
        assert database.write(lambda _: 7) == 7
        assert database.write(add(b"a")) == 1
        assert database.read(names) == [b"a"]

    def test_run_returns_the_number_of_changed_rows(self, database):
        for name in (b"a", b"b", b"c"):
            database.write(add(name))
        assert database.write(lambda t: t.run("UPDATE thing SET number = 1 WHERE name > :name", name=b"a")) == 2
        assert database.write(lambda t: t.run("DELETE FROM thing WHERE name = :name", name=b"x")) == 0
        assert database.write(lambda t: t.run("DELETE FROM thing")) == 3

    def test_returning_yields_the_new_row(self, database):
        row = database.write(
            lambda t: t.row("INSERT INTO thing (name, number) VALUES (:name, 5) RETURNING number + 1", name=b"a")
        )
        assert row == (6,)

    def test_on_conflict_do_nothing_changes_no_row(self, database):
        again = "INSERT INTO thing (name, number) VALUES (:name, 2) ON CONFLICT (name) DO NOTHING"
        assert database.write(lambda t: t.run(again, name=b"a")) == 1
        assert database.write(lambda t: t.run(again, name=b"a")) == 0

    def test_row_is_the_first_or_none(self, database):
        assert database.read(lambda t: t.row("SELECT name FROM thing")) is None
        database.write(lambda t: (add(b"b")(t), add(b"a")(t)))
        assert database.read(lambda t: t.row("SELECT name FROM thing ORDER BY name")) == (b"a",)
        assert database.read(lambda t: t.rows("SELECT name FROM thing WHERE name > :n", n=b"b")) == []

    @pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:20])
    def test_values_of_every_type_are_read_back(self, database, value):
        kind = {int: "BIGINT", str: "TEXT", bytes: self.blob, type(None): "TEXT"}[type(value)]
        database.write(lambda t: t.run(f"CREATE TABLE one (value {kind})"))
        database.write(lambda t: t.run("INSERT INTO one (value) VALUES (:value)", value=value))
        (found,) = database.read(lambda t: t.row("SELECT value FROM one"))
        assert (type(found), found) == (type(value), value)

    def test_bytes_are_ordered_as_in_python(self, database):
        for name in sorted(NAMES, key=hash):
            database.write(add(name))
        assert database.read(names) == sorted(NAMES)
        for name in NAMES:
            after = database.read(
                lambda t, name=name: t.rows("SELECT name FROM thing WHERE name > :name ORDER BY name", name=name)
            )
            assert [row[0] for row in after] == sorted(other for other in NAMES if other > name)

    # --- atomicity

    def test_work_that_raises_has_no_effect(self, database):
        def work(transaction):
            add(b"a")(transaction)
            transaction.run("DELETE FROM thing WHERE name = :name", name=b"old")
            raise RefusalError

        database.write(add(b"old"))
        with pytest.raises(RefusalError):
            database.write(work)
        assert database.read(names) == [b"old"]

    def test_a_statement_that_fails_has_no_effect(self, database):
        database.write(add(b"a"))

        def work(transaction):
            add(b"b")(transaction)
            add(b"a")(transaction)

        with pytest.raises(Exception, match="(?i)unique"):
            database.write(work)
        assert database.read(names) == [b"a"]

    def test_only_failed_units_of_many_have_no_effect(self, database):
        """Each unit of work succeeds or fails alone, even if several share a commit."""
        refused = []

        def write(number):
            def work(transaction):
                add(b"%02d" % number)(transaction)
                if number % 3 == 0:
                    raise RefusalError(number)
                return number

            try:
                assert database.write(work) == number
            except RefusalError as refusal:
                assert refusal.args == (number,)
                refused.append(number)

        together(30, write)
        assert sorted(refused) == list(range(0, 30, 3))
        assert database.read(names) == [b"%02d" % number for number in range(30) if number % 3]

    def test_a_unit_of_work_sees_earlier_commits(self, database):
        """Threads that read and write a counter lose no increment."""
        database.write(add(b"shared"))

        def write(_):
            for _ in range(20):
                database.write(self.count)

        together(8, write)
        assert database.read(numbers) == [160]

    @staticmethod
    def count(transaction):
        (number,) = transaction.row("SELECT number FROM thing")
        transaction.run("UPDATE thing SET number = :number", number=number + 1)

    def test_statements_of_one_batch_have_separate_counts(self, database):
        add_one = "INSERT INTO thing (name, number) VALUES (:name, 0)"

        def work(transaction):
            statements = [
                Statement(add_one, {"name": b"one"}),
                Statement("UPDATE thing SET number = 7 WHERE name = :name", {"name": b"nobody"}),
                Statement(add_one, {"name": b"two"}),
                Statement("UPDATE thing SET number = number + 1 WHERE number = 0", {}),
            ]
            return transaction.run_all(statements)

        assert database.write(work) == [1, 0, 1, 2]
        assert database.read(names) == [b"one", b"two"]

    def test_a_batch_of_statements_is_atomic(self, database):
        def work(transaction):
            transaction.run_all(
                [
                    Statement("INSERT INTO thing (name, number) VALUES (:name, 0)", {"name": name})
                    for name in (b"x", b"x")
                ]
            )

        with pytest.raises(Exception, match=r"(?i)unique"):
            database.write(work)
        assert database.read(names) == []

    # --- reads

    def test_a_unit_of_known_statements_is_committed_if_all_change_a_row(self, database):
        database.write(
            FixedStatements([adding(b"a"), adding(b"b"), numbering(b"a", 1), numbering(b"none", 1, or_none=True)])
        )
        assert database.read(numbers) == [0, 1]

    def test_a_unit_of_known_statements_is_rolled_back_if_one_changes_no_row(self, database):
        with pytest.raises(UnexpectedRowCountError):
            database.write(FixedStatements([adding(b"a"), numbering(b"none", 1), adding(b"b")]))
        assert database.read(names) == []
        database.write(FixedStatements([adding(b"a")]))
        assert database.read(names) == [b"a"]

    def test_a_unit_of_known_statements_that_violates_a_constraint_has_no_effect(self, database):
        database.write(add(b"a"))
        with pytest.raises(Exception, match="(?i)unique"):
            database.write(FixedStatements([adding(b"b"), adding(b"a")]))
        assert database.read(names) == [b"a"]

    def test_units_of_known_statements_succeed_and_fail_alone(self, database):
        """They may share a commit with each other and with other work."""
        refused = []

        def action(number):
            name = b"%d" % number
            try:
                if number % 3 == 0:
                    database.write(FixedStatements([adding(name), numbering(b"none", 1)]))
                elif number % 3 == 1:
                    database.write(FixedStatements([adding(name)]))
                elif number % 4:
                    database.write(add(name))
                else:
                    database.write(FixedStatements([adding(name), numbering(name, number)]))
            except UnexpectedRowCountError:
                refused.append(number)

        together(24, action)
        assert sorted(refused) == [number for number in range(24) if number % 3 == 0]
        assert len(database.read(names)) == 16
        assert sum(database.read(numbers)) == sum(n for n in range(24) if n % 3 == 2 and n % 4 == 0)

    def test_a_read_sees_one_snapshot(self, database):
        """A read does not see later commits; the next read does."""
        database.write(add(b"a"))

        def work(transaction):
            names(transaction)  # a unit of work may be repeated when it reads a second time
            before = names(transaction)
            thread = threading.Thread(target=database.write, args=(add(b"b"),))
            thread.start()
            thread.join()
            return before, names(transaction)

        assert database.read(work) == ([b"a"], [b"a"])
        assert database.read(names) == [b"a", b"b"]

    def test_a_read_does_not_see_a_write_in_progress(self, database):
        def work(transaction):
            add(b"a")(transaction)
            seen = []
            thread = threading.Thread(target=lambda: seen.append(database.read(names)))
            thread.start()
            thread.join()
            return seen

        assert database.write(work) == [[]]

    def test_a_read_cannot_write(self, database):
        with pytest.raises(Exception, match="(?i)read"):
            database.read(add(b"a"))
        assert database.read(names) == []
        assert database.write(add(b"a")) == 1

    def test_a_read_that_raises_does_no_harm(self, database):
        def work(transaction):
            names(transaction)
            raise RefusalError

        for _ in range(3):
            with pytest.raises(RefusalError):
                database.read(work)
        assert database.read(names) == []

    def test_many_threads_read_and_write(self, database):
        """Reads see the rows of each writer in the order of the writes, and only whole pairs."""

        def run(number):
            for turn in range(15):
                if number % 2:
                    pair = (add(b"%d %d a" % (number, turn)), add(b"%d %d b" % (number, turn)))
                    database.write(lambda transaction, pair=pair: [one(transaction) for one in pair])
                else:
                    assert len(database.read(names)) % 2 == 0

        together(12, run)
        assert len(database.read(names)) == 6 * 15 * 2

    # --- durability

    def test_writes_survive_reopening(self, database, place):
        database.write(add(b"a", 7))
        database.close()
        with closing(self.open_database(place)) as again:
            assert again.read(names) == [b"a"]
            again.write(add(b"b"))
        with closing(self.open_database(place)) as again:
            assert again.read(names) == [b"a", b"b"]

    def test_several_openings_share_a_database(self, database, place):
        """Each opening reads the writes of the others at once, in any order of closing."""
        with closing(self.open_database(place)) as other:
            for number in range(5):
                database.write(add(b"a%d" % number))
                other.write(add(b"b%d" % number))
                assert len(database.read(names)) == len(other.read(names)) == 2 * (number + 1)
        database.write(add(b"z"))
        assert len(database.read(names)) == 11

    def test_two_processes_lose_no_update(self, database, place):
        database.write(add(b"shared"))
        ready, go = SPAWN.Semaphore(0), SPAWN.Event()
        processes = [
            SPAWN.Process(target=count_up, args=(self.open_database, place, writer, 60, ready, go))
            for writer in range(2)
        ]
        for process in processes:
            process.start()
        for _ in processes:
            assert ready.acquire(timeout=120)
        go.set()
        for _ in range(60):
            database.write(lambda t: t.run("UPDATE thing SET number = number + 1 WHERE name = :name", name=b"shared"))
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
        assert database.read(numbers) == [-1] * 120 + [180]

    @pytest.mark.parametrize("rows", [1, 50, 400])
    def test_acknowledged_writes_survive_kill_9(self, database, place, rows):
        """After a writer is killed during commits, every reported row exists, and no partial transaction."""
        reader, writer = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=write_forever, args=(self.open_database, place, writer))
        process.start()
        told = acknowledged(reader, rows)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        writer.close()
        while more := os.read(reader.fileno(), 1 << 16):
            told += more
        reader.close()
        wanted = set(told[: told.rindex(b"\n")].split(b"\n"))
        with closing(self.open_database(place)) as survivor:
            for number, opened in enumerate((database, survivor)):
                assert wanted <= set(opened.read(names))
                opened.write(add(b"%d after" % number))

    # --- closing

    def test_close_may_be_called_twice_and_by_many(self, place):
        database = self.open_database(place)
        together(4, lambda _: database.close())
        database.close()

    def test_nothing_works_after_close(self, database):
        database.close()
        for call in (lambda: database.write(add(b"a")), lambda: database.read(names), database.migrate):
            with pytest.raises(StorageUnavailableError, match="closed"):
                call()

    def test_close_finishes_queued_work(self, database, place):
        """Each of many writes during a close succeeds or is refused, and the caller knows which."""
        done, refused = [], []

        def write(number):
            if number == 0:
                database.close()
                return
            for turn in range(50):
                name = b"%d %d" % (number, turn)
                try:
                    database.write(add(name))
                    done.append(name)
                except StorageUnavailableError:
                    refused.append(name)

        together(8, write)
        assert len(done) + len(refused) == 7 * 50
        assert refused
        with closing(self.open_database(place)) as again:
            assert again.read(names) == sorted(done)

    # --- schema

    def test_migrate_may_be_repeated(self, place):
        with closing(self.open_database(place)) as database:
            for _ in range(3):
                database.migrate()
            ((count, newest),) = database.read(lambda t: t.rows("SELECT count(*), max(version) FROM schema_version"))
            assert count == newest >= 1
            assert database.read(lambda t: t.row("SELECT count(*) FROM vault")) == (0,)

    def test_migrations_may_race(self, place):
        """Many threads open the database. One of them creates the schema, and all have it."""

        def run(_):
            with closing(self.open_database(place)) as database:
                database.migrate()
                assert database.read(lambda t: t.row("SELECT count(*) FROM vault")) == (0,)

        together(6, run)

    def test_a_newer_schema_is_refused(self, place):
        with closing(self.open_database(place)) as database:
            database.migrate()
            self.make_newer(database)
            with pytest.raises(ConfigurationError, match="10000") as refused:
                database.migrate()
            assert "newer" in refused.value.hint


class FullDatabaseTests:
    """For engines whose space a test can limit. Mix it in with DatabaseTests, and define `limit_space`."""

    def limit_space(self, database, *, limited):
        """Leave no space for the next writes, or give it back."""
        raise NotImplementedError

    def test_a_full_disk_is_an_error_until_there_is_space(self, database, place):
        """A write that does not fit has no effect, and old rows are readable. Writes succeed once there is space."""
        database.write(add(b"before"))
        self.limit_space(database, limited=True)
        for number in range(3):
            with pytest.raises(StorageFullError):
                database.write(add(b"large %d" % number + bytes(1 << 20)))
            assert database.read(names) == [b"before"]
        self.limit_space(database, limited=False)
        database.write(add(b"large" + bytes(1 << 20)))
        database.close()
        with closing(self.open_database(place)) as again:
            assert [name[:6] for name in again.read(names)] == [b"before", b"large\0"]

    def test_many_writes_on_a_full_disk(self, database):
        """A successful write is kept. A write that failed on the full disk has no effect."""
        self.limit_space(database, limited=True)
        done = []

        def write(number):
            for turn in range(5):
                name = b"%d %d " % (number, turn) + bytes(1 << (20 if number % 2 else 2))
                try:
                    database.write(add(name))
                    done.append(name)
                except StorageFullError:
                    pass

        together(8, write)
        assert database.read(names) == sorted(done)
        self.limit_space(database, limited=False)
        assert database.write(add(b"after")) == 1


class GroupCommitTests:
    """For engines with group commit. Mix it in with DatabaseTests, and define `commits`."""

    def commits(self, database):
        """Return the number of commits so far."""
        raise NotImplementedError

    def test_waiting_writes_share_a_commit(self, database):
        """Forty units of work wait for a slow one. All together need two commits."""
        held, go_on = threading.Event(), threading.Event()

        def hold(_):
            held.set()
            assert go_on.wait(60)

        first = threading.Thread(target=database.write, args=(hold,))
        before = self.commits(database)
        first.start()
        assert held.wait(60)
        waiting = [threading.Thread(target=database.write, args=(add(b"%02d" % number),)) for number in range(40)]
        for thread in waiting:
            thread.start()
        self.wait_for_queue(database, 40)
        go_on.set()
        for thread in (first, *waiting):
            thread.join()
        assert self.commits(database) - before == 2
        assert len(database.read(names)) == 40

    def wait_for_queue(self, database, length):
        """Return as soon as so many writes wait."""
        raise NotImplementedError

    def test_a_single_write_commits_at_once(self, database):
        before = self.commits(database)
        for number in range(5):
            database.write(add(b"%d" % number))
        assert self.commits(database) - before == 5
