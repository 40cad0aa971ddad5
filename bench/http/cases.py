"""Cases of the HTTP benchmark, and the figures that they should reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
QUICK_DIVISOR: Final = 8


@dataclass(frozen=True)
class Case:
    """One operation under one load. A read first stores `requests` bodies, then reads them repeatedly."""

    name: str
    title: str
    operation: str  # put-chunk, put-object or get-chunk
    body_bytes: int
    connections: int
    requests: int
    peers: tuple[str, ...]
    place: str = "disk"  # or memory
    kind: str = "random"  # or half: see payload.py
    seconds_max: float = 5.0

    @property
    def is_read(self) -> bool:
        """Whether the case reads stored bodies."""
        return self.operation == "get-chunk"

    def quick(self) -> Case:
        """Return a short version of the case, which takes about a fifth of the time and is less exact."""
        requests = max(self.requests // QUICK_DIVISOR, 2 * self.connections)
        return replace(self, requests=requests, seconds_max=self.seconds_max / 5)


def _put_chunks() -> list[Case]:
    peers = ("nginx", "rclone")
    return [
        Case("put-chunk-4mib-1", "PutChunk 4 MiB x1", "put-chunk", 4 * MIB, 1, 128, ("fio", *peers)),
        Case("put-chunk-4mib-8", "PutChunk 4 MiB x8", "put-chunk", 4 * MIB, 8, 256, ("fio", *peers)),
        Case(
            "put-chunk-4mib-8-half",
            "PutChunk 4 MiB x8, half compressible",
            "put-chunk",
            4 * MIB,
            8,
            256,
            (),
            kind="half",
        ),
        Case("put-chunk-4kib-1", "PutChunk 4 KiB x1", "put-chunk", 4 * KIB, 1, 6_000, ("fio", *peers), seconds_max=2.5),
        Case("put-chunk-4kib-8", "PutChunk 4 KiB x8", "put-chunk", 4 * KIB, 8, 20_000, peers, seconds_max=2.5),
        Case("put-chunk-4kib-32", "PutChunk 4 KiB x32", "put-chunk", 4 * KIB, 32, 20_000, peers, seconds_max=2.5),
        Case("put-object-4kib-32", "PutObject 4 KiB x32", "put-object", 4 * KIB, 32, 20_000, peers, seconds_max=2.5),
    ]


def _get_chunks(place: str, where: str) -> list[Case]:
    peers = ("nginx", "rclone")

    def case(size: str, title: str, body_bytes: int, connections: int, stored: int) -> Case:
        return Case(
            f"get-chunk-{size}-{connections}-{place}",
            f"GetChunk {title} x{connections}, {where}",
            "get-chunk",
            body_bytes,
            connections,
            stored,
            peers,
            place=place,
            seconds_max=2.0,
        )

    return [
        case("4mib", "4 MiB", 4 * MIB, 1, 64),
        case("4mib", "4 MiB", 4 * MIB, 8, 64),
        case("4kib", "4 KiB", 4 * KIB, 1, 1_000),
        case("4kib", "4 KiB", 4 * KIB, 8, 1_000),
    ]


CASES: Final = (*_put_chunks(), *_get_chunks("disk", "on disk"), *_get_chunks("memory", "in memory"))


@dataclass(frozen=True)
class Wanted:
    """A figure that a case should reach: `metric` is ratio:PEER, cpu:put, cpu:get (both over the floor) or memory."""

    title: str
    case: str
    metric: str
    limit: float
    at_most: bool
    unit: str = ""

    def holds(self, value: float) -> bool:
        """Whether a value reaches the wanted figure."""
        return value <= self.limit if self.at_most else value >= self.limit


MEMORY_MEGABYTES_MAX: Final = 300.0
WANTED: Final = (
    Wanted("PutChunk 4 MiB x8, of fio's rate", "put-chunk-4mib-8", "ratio:fio", 0.8, at_most=False),
    Wanted("PutChunk 4 MiB x8, CPU over SHA-256 + AES-256-GCM", "put-chunk-4mib-8", "cpu:put", 2.5, at_most=True),
    Wanted("GetChunk 4 MiB x8 on disk, CPU over AES-256-GCM", "get-chunk-4mib-8-disk", "cpu:get", 2.5, at_most=True),
    Wanted(
        "GetChunk 4 MiB x8 in memory, CPU over AES-256-GCM", "get-chunk-4mib-8-memory", "cpu:get", 2.5, at_most=True
    ),
    Wanted("PutObject 4 KiB x32, of rclone's rate", "put-object-4kib-32", "ratio:rclone", 0.5, at_most=False),
    Wanted("Memory of one process at its peak", "", "memory", MEMORY_MEGABYTES_MAX, at_most=True, unit=" MB"),
)
