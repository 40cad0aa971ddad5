"""Plans for the load generator and their results: plain data that is sent between processes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadPlan:
    """Requests that are ready to be sent, in order, over `connections` kept-alive connections.

    Request i of a write is `heads[i] + base + tails[i]`. Request i of a read is `heads[i]`; the body of the response
    must have `answer_bytes` bytes and end with `tails[i]`. With `repeat` the requests start over until `seconds_max`;
    without it, the run ends after the last response. After `seconds_max` no request starts, and the run waits for the
    responses in flight.
    """

    port: int
    connections: int
    heads: list[bytes]
    tails: list[bytes]
    base: bytes = b""
    answer_bytes: int | None = None
    repeat: bool = False
    seconds_max: float = 10.0
    host: str = "127.0.0.1"

    @property
    def is_read(self) -> bool:
        """Whether the payload is in the response."""
        return self.answer_bytes is not None


@dataclass(frozen=True)
class LoadResult:
    """The result of a plan. Bytes are payload only: heads and error bodies do not count."""

    requests: int
    payload_bytes: int
    seconds: float
    latency_p50_seconds: float
    latency_p99_seconds: float
    client_cpu_seconds: float
    failures: int = 0
    first_failure: str = ""

    @property
    def requests_per_second(self) -> float:
        """Successful requests per second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def megabytes_per_second(self) -> float:
        """Payload in MB (10^6 bytes) per second."""
        return self.payload_bytes / self.seconds / 1e6 if self.seconds else 0.0


def percentile(values: list[float], share: float) -> float:
    """Return the nearest-rank percentile; 0.0 without values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
