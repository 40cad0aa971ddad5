"""Raw S3 without Cryostore: the same bodies, put with the same library as new objects (only if absent).

Requests are signed over the SHA-256 of the payload, as Cryostore does. Bodies are not encrypted, packed or recorded.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

import obstore
from obstore.exceptions import BaseError

from bench.load.payload import SUFFIX_BYTES, Payload
from bench.load.plan import LoadResult, percentile
from cryostore.chunks.blobs.cloud_url import CloudUrl


def put_all(url: str, payload: Payload, count: int, connections: int) -> LoadResult:
    """Put the first `count` bodies, `connections` at a time, in a separate process. The objects are kept."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as process:
        suffixes = [payload.suffix(index) for index in range(count)]
        return process.apply(_put_all, (url, payload.base, suffixes, connections))


def delete_all(url: str) -> None:
    """Delete all objects below a URL, so that a small service does not fill up. Ignores errors."""
    place = CloudUrl.parse(url)
    store: Any = place.open()
    with contextlib.suppress(BaseError), ThreadPoolExecutor(8) as threads:
        for page in obstore.list(store, prefix=place.prefix):
            list(threads.map(lambda path: obstore.delete(store, path), [found["path"] for found in page]))


def _put_all(url: str, base: bytes, suffixes: list[bytes], connections: int) -> LoadResult:
    place = CloudUrl.parse(url)
    store: Any = place.open()
    bodies: SimpleQueue[bytes] = SimpleQueue()
    for suffix in suffixes:
        bodies.put(base + suffix)
    latencies: list[float] = []
    failures: list[str] = []

    def put(body: bytes) -> None:
        begun = time.perf_counter()
        try:
            path = f"{place.prefix}/raw/{body[-SUFFIX_BYTES:].hex()}"
            obstore.put(store, path, body, mode="create", use_multipart=False)
        except Exception as error:  # noqa: BLE001 - any error of the library is a failure to show
            failures.append(str(error))
            return
        latencies.append(time.perf_counter() - begun)

    cpu, start = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(connections) as threads:
        for _ in range(connections):
            threads.submit(_drain, bodies, put)
    seconds = time.perf_counter() - start
    return LoadResult(
        requests=len(latencies),
        payload_bytes=len(latencies) * (len(base) + len(suffixes[0])),
        seconds=seconds,
        latency_p50_seconds=percentile(latencies, 0.5),
        latency_p99_seconds=percentile(latencies, 0.99),
        client_cpu_seconds=time.process_time() - cpu,
        failures=len(failures),
        first_failure=failures[0] if failures else "",
    )


def _drain(bodies: SimpleQueue[bytes], put: Callable[[bytes], None]) -> None:
    while True:
        try:
            body = bodies.get_nowait()
        except Empty:
            return
        put(body)
