"""Every option of a server, declared once for the command line, the environment, the file and the documentation.

Does not live here: what an option is, and those that name a store (`option`); what combinations are refused (`config`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from cryostore.core.limits import KIB, MIB, Limits
from cryostore.options import kinds
from cryostore.options.configuration import LOG_LEVELS, PORT_DEFAULT, WORKERS_MAX, Configuration, ConnectionSettings
from cryostore.options.kinds import choice, duration, flag, number, path, size, text
from cryostore.options.option import STORE, Option, main, quiet
from cryostore.service.settings import Settings

MILLISECOND = 0.001
MINUTE = 60


LISTENING = (
    main(
        "listen",
        kinds.address("--listen"),
        "HOST:PORT; port 0 picks one.",
        f"127.0.0.1:{PORT_DEFAULT}",
        "host",
        "port",
    ),
    main("workers", number(1, WORKERS_MAX), "Processes that share the work.", "2, or 1 on one processor"),
    main("region", text("REGION", "a region"), "The only region that signatures may name; any, if left out.", ""),
    main("tls_cert", path(), "Certificate chain, PEM.", ""),
    main("tls_key", path(), "Its private key, PEM.", ""),
    main("insecure_listen", flag(), "Allow other machines to connect without TLS.", "false"),
    main(
        "metrics",
        kinds.address("--metrics"),
        "Where /metrics, /-/live and /-/ready are answered.",
        "nowhere",
        "metrics_host",
        "metrics_port",
    ),
    main("log_level", choice(*LOG_LEVELS), "Which log lines are written.", "info"),
    main(
        "drain",
        duration(1, whole=False),
        "How long requests are still taken once the server was told to stop, while its readiness says that it leaves.",
        "0s",
        "drain_seconds",
    ),
)

UPKEEP = (
    main(
        "reserve",
        number(0, metavar="MIB"),
        "Room kept back on the disk for deletes and garbage collection; an eighth"
        " of the disk at most. A data directory alone has one.",
        "64",
        "reserve_bytes",
    ),
    main(
        "quarantine",
        duration(MILLISECOND),
        "How long garbage waits before it is removed.",
        "24h",
        "settings.quarantine_ms",
    ),
    main(
        "collection_period",
        duration(MILLISECOND, least_seconds=60),
        "How often garbage is collected.",
        "6h",
        "settings.collection_period_ms",
    ),
    main(
        "scrub_period",
        duration(MILLISECOND),
        "How long it takes to verify every pack once; 0: never by itself.",
        "30d",
        "settings.scrub_period_ms",
    ),
    quiet(
        "idle_job",
        duration(MILLISECOND, least_seconds=60),
        "How long a backup job may be silent before it ends.",
        "1h",
        "settings.idle_job_ms",
    ),
    quiet(
        "idle_restore_job",
        duration(MILLISECOND, least_seconds=60),
        "How long a restore job may be silent before it ends.",
        "24h",
        "settings.idle_restore_job_ms",
    ),
    quiet("listed_jobs", duration(MILLISECOND), "How long ended jobs are listed.", "30d", "settings.listed_jobs_ms"),
    quiet(
        "idempotency",
        duration(MILLISECOND),
        "How long the token of a request is remembered.",
        "24h",
        "settings.idempotency_ms",
    ),
    quiet(
        "start_window",
        duration(MINUTE, least_seconds=3600),
        "How long a job may wait for its first request.",
        "8h",
        "settings.start_window_minutes",
    ),
    quiet(
        "complete_window",
        duration(MINUTE, least_seconds=60),
        "How long a job may take in all.",
        "7d",
        "settings.complete_window_minutes",
    ),
    quiet(
        "summary_checksum",
        choice("verify", "store"),
        "Whether an object's SUMMARY is checked, or kept as the client gives it.",
        "verify",
        "settings.summary_checksum",
    ),
    quiet(
        "pack_size",
        size(MIB, 1024 * MIB),
        "How large a pack becomes before the next is begun.",
        "64MiB",
        "settings.pack_bytes_target",
    ),
    quiet(
        "collection_memory",
        size(64 * KIB),
        "Memory of a garbage collection for marking; a store of more chunks than bytes is marked in several passes.",
        "128MiB",
        "settings.collection_memory_bytes",
    ),
    quiet(
        "maintenance_period",
        duration(1, least_seconds=1, whole=False),
        "How often a worker sees to its duties.",
        "30s",
        "maintenance_seconds",
    ),
)

RESOURCES = (
    quiet("threads", number(1, 1024), "Operations carried out at once in one worker.", "32"),
    quiet(
        "body_memory",
        size(128 * MIB),
        "Bytes of bodies held at once in one worker.",
        "192MiB",
        "body_bytes_in_flight_max",
    ),
    quiet(
        "unverified_body_memory",
        size(MIB),
        "Bytes of bodies held at once in one worker whose signature is not verified yet; beside the others.",
        "64MiB",
        "unverified_body_bytes_max",
    ),
    quiet(
        "body_wait",
        duration(1, whole=False),
        "How long a body waits for its share of them.",
        "20s",
        "body_wait_seconds_max",
    ),
    quiet(
        "shutdown",
        duration(1, least_seconds=1, whole=False),
        "How long requests under way may take once the server was told to stop.",
        "30s",
        "shutdown_seconds_max",
    ),
)


def _connection() -> Iterator[Option]:
    """An option for each bound of a connection."""
    helps = {
        "connections_max": "Open connections of one worker.",
        "head_seconds_max": "From the first byte of a request to the end of its head.",
        "keep_alive_seconds_max": "Idleness between two requests.",
        "body_idle_seconds_max": "In every such period a sender must bring `body_progress_bytes_min`.",
        "body_progress_bytes_min": "See above.",
        "unverified_seconds_max": "How long a body may take whose signature can only be verified with it.",
        "unverified_bytes_per_second_min": "It may take longer if it comes at least so fast.",
        "write_idle_seconds_max": "In every such period a reader must take something.",
        "drain_bytes_max": "How much of an unread body is read past after an early answer.",
        "linger_bytes_max": "How much of it is read past where the connection ends with the answer.",
        "drain_seconds_max": "How long either may take.",
    }
    for field in fields(ConnectionSettings):
        unsaid = _default(field)
        if "seconds" in field.name:
            key = f"connection.{field.name.replace('_seconds', '')}"
            yield quiet(
                key,
                duration(1, least_seconds=0.1, whole=False),
                helps[field.name],
                f"{unsaid:g}s",
                f"connection.{field.name}",
            )
        else:
            kind = size(0) if "bytes" in field.name else number(1)
            yield quiet(f"connection.{field.name}", kind, helps[field.name], str(unsaid))


def _limits() -> Iterator[Option]:
    """An option for each bound of the API, which may be set lower, never higher."""
    helps = {
        "object_name_bytes_max": "Length of an object's name.",
        "chunk_bytes_max": "Length of a chunk.",
        "chunks_per_object_max": "Chunks of one object.",
        "metadata_blob_bytes_max": "Length of an object's metadata blob.",
        "metadata_string_bytes_max": "Length of its metadata string.",
        "metadata_string_inline_bytes_max": "Length of the same, where the object comes in one request.",
        "page_items_max": "Items of one page of a list.",
        "link_chunks_max": "Chunks of one LinkChunks.",
        "request_head_bytes_max": "Length of the head of a request.",
        "request_document_bytes_max": "Length of a JSON document in a request.",
        "request_document_blob_bytes_max": "The same, where a blob is part of it.",
        "restore_metadata_items_max": "Restore metadata of a recovery point: how many.",
        "restore_metadata_bytes_max": "Restore metadata of a recovery point: their length together.",
    }
    for field in fields(Limits):
        most = _default(field)
        kind = size(1, most) if "bytes" in field.name else number(1, most)
        yield quiet(f"limits.{field.name}", kind, helps[field.name], str(most))


def _default(field: Field[Any]) -> Any:
    assert field.default is not MISSING
    return field.default


OPTIONS: Mapping[str, Option] = {
    option.key: option for option in (*STORE, *LISTENING, *UPKEEP, *RESOURCES, *_connection(), *_limits())
}


SETTINGS_KEYS = tuple(key for key, option in OPTIONS.items() if option.targets[0].startswith("settings."))


def settings_of(values: Mapping[str, Any]) -> Settings:
    """How the service behaves when the options have these values; others than of SETTINGS_KEYS do not matter."""
    found = {key: value for key, value in values.items() if key in SETTINGS_KEYS}
    return Settings(**{OPTIONS[key].targets[0].partition(".")[2]: value for key, value in found.items()})


def configuration_of(values: Mapping[str, Any]) -> Configuration:
    """The configuration in which options have these values, the others their defaults. Raises ConfigurationError."""
    parts: dict[str, dict[str, Any]] = {"": {}, "limits": {}, "connection": {}}
    for key, value in values.items():
        option = OPTIONS[key]
        if key in SETTINGS_KEYS:
            continue
        for target, one in zip(option.targets, value if len(option.targets) > 1 else (value,), strict=True):
            part, _, name = target.rpartition(".")
            parts[part][name] = one
    top = parts[""]
    if "reserve_bytes" in top:
        top["reserve_bytes"] *= MIB
    if "catalog" in top or "blobs" in top:
        top["data_dir"] = None
    return Configuration(
        settings=settings_of(values),
        limits=Limits(**parts["limits"]),
        connection=ConnectionSettings(**parts["connection"]),
        **top,
    )
