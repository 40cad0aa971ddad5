"""Nodes of a shared store: the report of each serving process, for the others to compare.

A report counts while it is young by the clock of the database. An old row belongs to a process that is gone or hangs.
In this module: the rows. Not here: when a process reports (`maintenance.nodes`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from cryostore.catalog.database import Transaction

LIVE_MS = 60_000
"""How long a report counts. Several reports fit into it, so that one late report does not make a node dead."""


class NodeReport(NamedTuple):
    """The report of a process: the master keys that it holds, and why it cannot use the blobs, if it cannot."""

    name: str
    keys: frozenset[str]
    trouble: str = ""
    seen_ms: int = 0


def put(transaction: Transaction, report: NodeReport) -> None:
    """Write the report of a process over its last one."""
    transaction.run(
        "INSERT INTO node (name, seen_ms, keys, trouble) VALUES (:name, :seen_ms, :keys, :trouble)"
        " ON CONFLICT (name) DO UPDATE"
        " SET seen_ms = excluded.seen_ms, keys = excluded.keys, trouble = excluded.trouble",
        name=report.name,
        seen_ms=report.seen_ms,
        keys=msgspec.json.encode(sorted(report.keys)).decode(),
        trouble=report.trouble,
    )


DEAD = "(seen_ms < :dead_ms OR seen_ms > :ahead_ms)"


def any_dead(transaction: Transaction, *, now_ms: int) -> bool:
    """Whether there are expired reports."""
    return transaction.row(f"SELECT 1 FROM node WHERE {DEAD} LIMIT 1", **_bounds(now_ms)) is not None


def forget_dead(transaction: Transaction, *, now_ms: int) -> None:
    """Delete expired reports: of processes that are gone, or from a clock that was ahead."""
    transaction.run(f"DELETE FROM node WHERE {DEAD}", **_bounds(now_ms))


def _bounds(now_ms: int) -> dict[str, int]:
    return {"dead_ms": now_ms - LIVE_MS, "ahead_ms": now_ms + LIVE_MS}


def leave(transaction: Transaction, name: str) -> None:
    """Delete the row of a process that shuts down."""
    transaction.run("DELETE FROM node WHERE name = :name", name=name)


def live(transaction: Transaction, *, now_ms: int) -> list[NodeReport]:
    """Return the reports that count, by name."""
    rows = transaction.rows(
        f"SELECT name, keys, trouble, seen_ms FROM node WHERE NOT {DEAD} ORDER BY name", **_bounds(now_ms)
    )
    return [
        NodeReport(name, frozenset(msgspec.json.decode(keys, type=list[str])), trouble, seen_ms)
        for name, keys, trouble, seen_ms in rows
    ]


def lacking(reports: Collection[NodeReport], key_id: str) -> list[str]:
    """Return the names of nodes that do not hold a master key."""
    return [report.name for report in reports if key_id not in report.keys]
