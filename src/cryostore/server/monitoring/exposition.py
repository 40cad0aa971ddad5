"""The metrics of all workers as text in Prometheus' format. Counting them is `metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import CollectorRegistry

from cryostore.core.traffic import BUCKETS, KINDS, NUMBERS, SECONDS_BOUNDS
from cryostore.server.monitoring.metrics import FAILURES, OPERATION_NAMES, PARTS, STATUSES, SharedMetrics, Slot

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
FRESH_SECONDS = 30.0
"""A worker without a heartbeat for so long is considered to hang."""
PROMPT_SECONDS = 3.0
"""A worker without a heartbeat for so long accepts no connections. The heartbeat comes ten times a second."""


@dataclass(frozen=True, slots=True)
class DiskState:
    """The state of the data directory's disk; None where it is unknown."""

    free_bytes: int | None = None
    reserve_held: bool | None = None


def living(metrics: SharedMetrics, seconds: float = FRESH_SECONDS) -> list[Slot]:
    """Return the slots of workers whose last heartbeat is no older than `seconds`."""
    now = metrics.now()
    return [slot for slot in metrics.slots if 0 < slot.value("heartbeat") >= now - seconds]


def draining(metrics: SharedMetrics) -> bool:
    """Whether a worker was told to stop and has not exited."""
    return any(slot.value("draining") for slot in metrics.slots)


def text(metrics: SharedMetrics, disk: DiskState) -> bytes:
    """Return all metrics."""
    registry = CollectorRegistry()
    registry.register(
        _Numbers(
            [*_requests(metrics.slots), *_storage(metrics.slots), *_traffic(metrics.slots), *_state(metrics, disk)]
        )
    )
    return generate_latest(registry)


class _Numbers:
    """A collector of given metrics, for a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """See prometheus_client."""
        return self._families


def _requests(slots: list[Slot]) -> Iterator[Metric]:
    count = CounterMetricFamily("cryostore_requests", "Requests answered.", labels=["operation", "status"])
    received = CounterMetricFamily("cryostore_request_bytes", "Bytes of request bodies.", labels=["operation"])
    sent = CounterMetricFamily("cryostore_response_bytes", "Bytes of response bodies.", labels=["operation"])
    duration = HistogramMetricFamily(
        "cryostore_request_seconds",
        "Seconds from the head of a request to the end of its answer.",
        labels=["operation"],
    )
    for name in OPERATION_NAMES:
        by_status = [sum(numbers) for numbers in zip(*(slot.requests(name) for slot in slots), strict=True)]
        if not sum(by_status):
            continue
        for status, number in zip(STATUSES, by_status, strict=True):
            count.add_metric([name, status], number)
        traffic = [slot.traffic(name) for slot in slots]
        received.add_metric([name], sum(bytes_in for bytes_in, _ in traffic))
        sent.add_metric([name], sum(bytes_out for _, bytes_out in traffic))
        durations = [slot.durations(name) for slot in slots]
        buckets = accumulate(sum(numbers) for numbers in zip(*(one for one, _ in durations), strict=True))
        bounds = (*map(str, SECONDS_BOUNDS), "+Inf")
        duration.add_metric([name], list(zip(bounds, buckets, strict=True)), sum(seconds for _, seconds in durations))
    return iter((count, received, sent, duration))


TOTALS = {
    "chunks_stored": ("cryostore_chunks_stored", "Chunks that were new to their vault."),
    "bytes_stored": (
        "cryostore_chunk_bytes_stored",
        "Bytes of chunks that were new to their vault, before compression.",
    ),
    "chunks_shared": ("cryostore_chunks_deduplicated", "Chunks that their vault had already."),
    "bytes_shared": ("cryostore_chunk_bytes_deduplicated", "Bytes of chunks that their vault had already."),
    "connections_refused": ("cryostore_connections_refused", "Connections refused because too many files were open."),
}


def _storage(slots: list[Slot]) -> Iterator[Metric]:
    failures = CounterMetricFamily("cryostore_storage_failures", "Failures of the storage.", labels=["kind"])
    for kind in FAILURES:
        failures.add_metric([kind], sum(slot.value(f"failure {kind}") for slot in slots))
    yield failures
    for total, (name, words) in TOTALS.items():
        yield CounterMetricFamily(name, words, value=sum(slot.value(total) for slot in slots))


def _traffic(slots: list[Slot]) -> Iterator[Metric]:
    """Requests to the catalog and the blob store of a shared store; nothing for a directory."""
    about = "to the catalog or the blob store of a shared store"
    count = CounterMetricFamily("cryostore_store_requests", f"Requests {about}.", labels=["part"])
    failures = CounterMetricFamily(
        "cryostore_store_request_failures",
        f"Requests {about} that failed, including those that were retried.",
        labels=["part", "kind"],
    )
    retries = CounterMetricFamily("cryostore_store_request_retries", f"Retries of requests {about}.", labels=["part"])
    duration = HistogramMetricFamily(
        "cryostore_store_request_seconds", f"Seconds of requests {about}.", labels=["part"]
    )
    for part in PARTS:
        total = {number: sum(slot.value(f"{part} {number}") for slot in slots) for number in NUMBERS}
        if not total["requests"]:
            continue
        count.add_metric([part], total["requests"])
        retries.add_metric([part], total["retries"])
        for kind in KINDS:
            failures.add_metric([part, kind], total[f"failure {kind}"])
        bounds = (*map(str, SECONDS_BOUNDS), "+Inf")
        buckets = accumulate(total[name] for name in BUCKETS)
        duration.add_metric([part], list(zip(bounds, buckets, strict=True)), total["seconds"])
    return iter((count, failures, retries, duration))


LOAD = {
    "draining": ("cryostore_workers_draining", "Workers that were told to stop."),
    "store_away": ("cryostore_workers_without_store", "Workers that cannot reach the store."),
    "key_away": (
        "cryostore_workers_without_key",
        "Workers whose keyring lacks a master key that is needed.",
    ),
    "blobs_away": ("cryostore_workers_without_blobs", "Workers that cannot use the blob store while other nodes can."),
    "full": ("cryostore_workers_full", "Workers that accept no connections: their limit is reached."),
    "connections": ("cryostore_connections", "Open connections of clients."),
    "catalog_connections": ("cryostore_catalog_connections", "Open connections to the catalog's database."),
    "requests_running": ("cryostore_requests_running", "Operations under way."),
    "requests_waiting": ("cryostore_requests_waiting", "Operations that wait for a thread."),
    "body_bytes_held": ("cryostore_body_bytes_held", "Bytes of bodies held in memory."),
    "body_bytes_max": ("cryostore_body_bytes_max", "Bytes of bodies that may be held in memory."),
}
STORE = {
    "recovery_points": ("cryostore_recovery_points", "Recovery points, as of the last round of duties."),
    "chunks_damaged": ("cryostore_chunks_damaged", "Chunks known to be damaged, as of the last round of duties."),
    "collected_seconds": (
        "cryostore_garbage_collection_finished_timestamp_seconds",
        "When garbage collection last came to its end; 0 if it never did.",
    ),
    "collection_passes": (
        "cryostore_garbage_collection_passes",
        "How often the last garbage collection read all references.",
    ),
    "collection_false_share": (
        "cryostore_garbage_collection_false_share",
        "The part of the garbage that the last garbage collection kept by mistake.",
    ),
    "garbage_bytes": ("cryostore_garbage_bytes", "Bytes that the last garbage collection left in quarantine."),
    "scrubbed_seconds": (
        "cryostore_scrub_finished_timestamp_seconds",
        "When a pass of scrubbing last came to its end; 0 if none did.",
    ),
    "store_bytes": ("cryostore_store_bytes", "Bytes of the packs whose size is recorded in the catalog."),
    "claims_held": ("cryostore_claims_held", "Background tasks that a process has claimed."),
    "backup_jobs_open": ("cryostore_backup_jobs_open", "Backup jobs that have not ended."),
    "restore_jobs_open": ("cryostore_restore_jobs_open", "Restore jobs that have not ended."),
}


def _state(metrics: SharedMetrics, disk: DiskState) -> Iterator[Metric]:
    slots = living(metrics)
    yield GaugeMetricFamily("cryostore_workers", "Worker processes that serve.", value=len(slots))
    for gauge, (name, words) in LOAD.items():
        yield GaugeMetricFamily(name, words, value=sum(slot.value(gauge) for slot in slots))
    newest = max(slots, key=lambda slot: slot.value("store_seen"), default=None)
    if newest is not None and newest.value("store_seen"):
        for gauge, (name, words) in STORE.items():
            yield GaugeMetricFamily(name, words, value=newest.value(gauge))
    if disk.free_bytes is not None:
        yield GaugeMetricFamily(
            "cryostore_free_bytes", "Free bytes on the disk of the data directory.", value=disk.free_bytes
        )
    if disk.reserve_held is not None:
        words = "1 while the reserve is held; 0: the disk was full, and writes are refused."
        yield GaugeMetricFamily("cryostore_reserve_held", words, value=int(disk.reserve_held))
