"""Measurement of nodes: real nodes under a short load, counted round trips, and ratios."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import closing

import psycopg
import pytest
from bench.load.generator import LoadProcess
from bench.nodes import RAW, Case, Measurement, Row, Trips, rate_rows, ratio, trip_rows
from bench.shared_store import services
from bench.shared_store.nodes import Nodes
from bench.shared_store.wire_count import Counts, WireCount
from psycopg.conninfo import conninfo_to_dict

from bench import nodes
from cryostore.catalog.database import FixedStatements, Statement
from cryostore.catalog.postgres.engine import PostgresDatabase
from support.services import postgres, s3


def row(servers, rate, case="c"):
    return Row(case, servers, 10, rate, 1.0, 1.0, 1.0, {"nodes": 1.0}, 0, "", 0.5)


def test_two_nodes_and_their_s3_are_measured(tmp_path, monkeypatch):
    monkeypatch.setenv(services.POSTGRES, postgres.required())
    monkeypatch.setenv(services.S3, s3.fresh_url())
    for name, value in services.S3_CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(nodes, "NODES_MAX", 2)
    monkeypatch.setattr(nodes, "ALONE", 4)
    with LoadProcess() as load, LoadProcess() as other, Nodes(tmp_path / "nodes", 2) as running:
        measurement = Measurement(running, [load, other], 1)
        measurement.round(Case("few", "put-chunk", 4096, 2, 6))
        measurement.round(Case("small", "put-object", 4096, 2, 4))
        alone, many = measurement.trips()
    measured = [(row.case, row.servers, row.requests, row.failures) for row in measurement.rows]
    every = ["1 node, 1 job", "2 nodes, 1 job", "2 nodes, 2 jobs"]
    assert measured == [("few", name, 6, 0) for name in (RAW, *every)] + [("small", name, 4, 0) for name in every]
    assert alone.chunks == nodes.ALONE
    assert 1 <= alone.round_trips < 4, "a read, a write, and some background reads"
    assert 1 <= many.round_trips < 30


def test_a_transaction_with_known_statements_is_one_round_trip():
    """A read of one statement is one round trip, too, and so is a batch of several units of known statements."""
    add = Statement("INSERT INTO thing (number) VALUES (:number)", {"number": 1})
    with postgres.new_database(migrated=False) as url:
        given = conninfo_to_dict(url)
        with (
            WireCount(given["host"], int(given["port"])) as wire,
            closing(PostgresDatabase(services.at(url, given["dbname"], wire.port))) as database,
        ):
            database.write(lambda transaction: transaction.run("CREATE TABLE thing (number BIGINT)"))
            for _ in range(5):
                before = wire.so_far()
                database.write(FixedStatements([add] * 5))
                assert (wire.so_far() - before).round_trips == 1
            for _ in range(2):  # the first transaction opens a session
                before = wire.so_far()
                assert database.read(lambda transaction: transaction.row("SELECT count(*) FROM thing")) == (25,)
            assert (wire.so_far() - before).round_trips == 1


def test_a_statement_is_one_round_trip():
    given = conninfo_to_dict(postgres.required())
    with WireCount(given["host"], int(given["port"])) as wire:
        url = services.at(postgres.required(), given["dbname"], wire.port)
        with psycopg.connect(url, autocommit=True) as connection:
            before = wire.so_far()
            connection.execute("SELECT 1").fetchall()
            connection.execute("SELECT %s::int", (1,)).fetchall()
            assert wire.so_far() - before == Counts(2, 2)
            before = wire.so_far()
            connection.execute("SELECT 1; SELECT 2")
            assert wire.so_far() - before == Counts(1, 2)
            before = wire.so_far()
            with connection.pipeline():
                for number in range(5):
                    connection.execute("SELECT %s::int", (number,))
            counted = wire.so_far() - before
            assert counted.statements == 5
            assert counted.round_trips <= 2


def test_messages_in_pieces_are_counted_once():
    """The client sends one message in two packets, and two messages in one. The server answers each packet."""
    with socket.create_server(("127.0.0.1", 0)) as server, WireCount(*server.getsockname()) as wire:
        client = socket.create_connection(("127.0.0.1", wire.port))
        thread = threading.Thread(target=_echo, args=(server,))
        thread.start()
        start = struct.pack(">II", 8, 196608)
        execute = b"E" + struct.pack(">I", 9) + b"\0" * 5
        for data in (start[:3], start[3:], execute[:2], execute[2:] + execute):
            client.sendall(data)
            assert client.recv(10) == b"!"
        assert wire.so_far().statements == 2
        client.close()
        thread.join()


def _echo(server):
    connected, _ = server.accept()
    with connected:
        while connected.recv(100):
            connected.sendall(b"!")


def test_a_ratio_compares_measurements_of_the_same_round():
    rows = [row(RAW, 10.0), row("1 node, 1 job", 9.0), row(RAW, 20.0), row("1 node, 1 job", 10.0)]
    assert ratio(rows, "c", "1 node, 1 job", RAW) == pytest.approx(0.7)
    assert ratio(rows, "c", "2 nodes, 1 job", RAW) is None
    assert [cells[6] for cells in rate_rows(rows)] == ["1.00", "0.70"]


def test_too_many_round_trips_are_reported():
    assert [cells[-1] for cells in trip_rows([Trips("a", 1, 2.0, 5.0), Trips("b", 1, 2.1, 5.0)])] == ["holds", "MISSED"]
