"""Declarations of all options of a server, for the command line, the environment, the file and the documentation.

Options that name a store are in `option`; checks of combinations are in `configuration`. Here, too: the reference page
docs/reference/configuration.md, which is generated from the declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from cryostore.core.limits import KIB, MIB, Limits
from cryostore.options import option
from cryostore.options.configuration import LOG_LEVELS, PORT_DEFAULT, WORKERS_MAX, Configuration, ConnectionSettings
from cryostore.options.option import STORE, Option, choice, duration, flag, main, number, path, quiet, size, text
from cryostore.service.settings import Settings

MILLISECOND = 0.001
MINUTE = 60


LISTENING = (
    main(
        "listen",
        option.address("--listen"),
        "HOST:PORT; port 0 picks one.",
        f"127.0.0.1:{PORT_DEFAULT}",
        "host",
        "port",
    ),
    main("workers", number(1, WORKERS_MAX), "Number of worker processes.", "2, or 1 on one processor"),
    main("region", text("REGION", "a region"), "The only region that signatures may name; any if left out.", ""),
    main("tls_cert", path(), "TLS certificate chain, PEM.", ""),
    main("tls_key", path(), "TLS private key, PEM.", ""),
    main("insecure_listen", flag(), "Allow other machines to connect without TLS.", "false"),
    main(
        "metrics",
        option.address("--metrics"),
        "Address of /metrics, /-/live and /-/ready.",
        "nowhere",
        "metrics_host",
        "metrics_port",
    ),
    main("log_level", choice(*LOG_LEVELS), "Lowest level of log lines that are written.", "info"),
    main(
        "drain",
        duration(1, whole=False),
        "How long requests are accepted after the server is told to stop, while its readiness probe fails.",
        "0s",
        "drain_seconds",
    ),
)

UPKEEP = (
    main(
        "reserve",
        number(0, metavar="MIB"),
        "Disk space reserved for deletes and garbage collection, at most an eighth of the disk."
        " Only a data directory has a reserve.",
        "64",
        "reserve_bytes",
    ),
    main(
        "quarantine",
        duration(MILLISECOND),
        "How long garbage is kept before it is removed.",
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
        "Period in which every pack is verified once; 0: no automatic scrub.",
        "30d",
        "settings.scrub_period_ms",
    ),
    quiet(
        "idle_job",
        duration(MILLISECOND, least_seconds=60),
        "How long a backup job stays open without a request or heartbeat.",
        "1h",
        "settings.idle_job_ms",
    ),
    quiet(
        "idle_restore_job",
        duration(MILLISECOND, least_seconds=60),
        "How long a restore job stays open without a request.",
        "24h",
        "settings.idle_restore_job_ms",
    ),
    quiet("listed_jobs", duration(MILLISECOND), "How long ended jobs are listed.", "30d", "settings.listed_jobs_ms"),
    quiet(
        "idempotency",
        duration(MILLISECOND),
        "How long an idempotency token is remembered.",
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
        "How long a job may take in total.",
        "7d",
        "settings.complete_window_minutes",
    ),
    quiet(
        "summary_checksum",
        choice("verify", "store"),
        "Whether the SUMMARY checksum of an object is verified, or stored as sent.",
        "verify",
        "settings.summary_checksum",
    ),
    quiet(
        "pack_size",
        size(MIB, 1024 * MIB),
        "Size at which a pack is closed and the next one is begun.",
        "64MiB",
        "settings.pack_bytes_target",
    ),
    quiet(
        "collection_memory",
        size(64 * KIB),
        "Memory for marking in a garbage collection; a store with more chunks than bytes is marked in several passes.",
        "128MiB",
        "settings.collection_memory_bytes",
    ),
    quiet(
        "maintenance_period",
        duration(1, least_seconds=1, whole=False),
        "How often a worker runs its background tasks.",
        "30s",
        "maintenance_seconds",
    ),
)

RESOURCES = (
    quiet("threads", number(1, 1024), "Concurrent operations of one worker.", "32"),
    quiet(
        "body_memory",
        size(128 * MIB),
        "Memory of one worker for request bodies.",
        "192MiB",
        "body_bytes_in_flight_max",
    ),
    quiet(
        "unverified_body_memory",
        size(MIB),
        "Memory of one worker for request bodies whose signature is not verified yet; in addition to body_memory.",
        "64MiB",
        "unverified_body_bytes_max",
    ),
    quiet(
        "body_wait",
        duration(1, whole=False),
        "How long a request body waits for memory.",
        "20s",
        "body_wait_seconds_max",
    ),
    quiet(
        "shutdown",
        duration(1, least_seconds=1, whole=False),
        "Time for requests in flight during a graceful shutdown.",
        "30s",
        "shutdown_seconds_max",
    ),
)


def _connection() -> Iterator[Option]:
    """Yield an option for each limit of a connection."""
    helps = {
        "connections_max": "Open connections of one worker.",
        "head_seconds_max": "From the first byte of a request to the end of its head.",
        "keep_alive_seconds_max": "Idle time between two requests.",
        "body_idle_seconds_max": "In every such period a client must send `body_progress_bytes_min`.",
        "body_progress_bytes_min": "See above.",
        "unverified_seconds_max": "Time for a body whose signature can only be verified with it.",
        "unverified_bytes_per_second_min": "A body may take longer if it arrives at least this fast.",
        "write_idle_seconds_max": "In every such period a client must read something.",
        "drain_bytes_max": "Bytes of an unread body that are discarded after an early answer.",
        "linger_bytes_max": "Bytes that are discarded if the connection closes with the answer.",
        "drain_seconds_max": "Time limit of either.",
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
    """Yield an option for each limit of the API, which may be lowered, never raised."""
    helps = {
        "object_name_bytes_max": "Length of an object's name.",
        "chunk_bytes_max": "Length of a chunk.",
        "chunks_per_object_max": "Chunks of one object.",
        "metadata_blob_bytes_max": "Length of an object's metadata blob.",
        "metadata_string_bytes_max": "Length of its metadata string.",
        "metadata_string_inline_bytes_max": "Length of its metadata string, if the object is sent in one request.",
        "page_items_max": "Items of one page of a list.",
        "link_chunks_max": "Chunks of one LinkChunks request.",
        "request_head_bytes_max": "Length of the head of a request.",
        "request_document_bytes_max": "Length of a JSON document in a request.",
        "request_document_blob_bytes_max": "Length of a JSON document that includes a blob.",
        "restore_metadata_items_max": "Number of restore metadata items of a recovery point.",
        "restore_metadata_bytes_max": "Total length of the restore metadata of a recovery point.",
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
    """Return the settings of the service for these values; options other than SETTINGS_KEYS are ignored."""
    found = {key: value for key, value in values.items() if key in SETTINGS_KEYS}
    return Settings(**{OPTIONS[key].targets[0].partition(".")[2]: value for key, value in found.items()})


def configuration_of(values: Mapping[str, Any]) -> Configuration:
    """Return the configuration for these values, with defaults for all others. Raises ConfigurationError."""
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


HEAD = """# Configuration

<!-- written by `make docs` from cryostore.options.declared -->

Every option of `cryo serve` can be set in three ways; the first of these has precedence:

1. on the command line, `--log-level debug`, where the table has a check mark;
2. in the environment, `CRYO_LOG_LEVEL=debug`;
3. in a file, `log_level = "debug"`, which `--config FILE` or `CRYO_CONFIG` names. It is TOML.

An unknown key or an invalid value is refused with file, key, value and rule. All nodes of a shared
store should have the same options, except for the addresses. A relative path starts at the working
directory of the server.

    catalog = "postgresql://cryostore@db.example.org/cryostore?sslmode=verify-full"
    blobs = "s3://backups/store?endpoint=https://s3.example.org&region=eu-1"
    keyring = "/etc/cryostore/keyring.json"
    listen = "0.0.0.0:8734"
    tls_cert = "/etc/cryostore/cert.pem"
    tls_key = "/etc/cryostore/key.pem"
    quarantine = "48h"

    [limits]
    chunk_bytes_max = "16MiB"

The commands that open a store themselves (`gc`, `jobs`, `scrub`, `check`, `repair`, `key`,
`rebuild-catalog`, `init`) take the options of the first table and `--config` as well. From the file
and the environment they also use the options about the store, such as `quarantine`.

**Secrets** do not belong on a command line, where every user of the machine can read them; a
password there is refused. Set the password of the catalog in `PGPASSWORD`, in a passfile
(`PGPASSFILE`), or in `CRYO_CATALOG` with the whole URL. A configuration file with a password must
be readable by its owner only. Set S3 credentials in `AWS_ACCESS_KEY_ID` and
`AWS_SECRET_ACCESS_KEY`.

A duration is a number with a unit: `ms`, `s`, `m`, `h` or `d`. A size is a number of bytes, or a
number with a unit: `KiB`, `MiB`, `GiB` or `TiB`.
"""
PARTS = {
    "Which store": ("data_dir", "catalog", "blobs", "keyring"),
    "Listening": (
        "listen", "workers", "region", "tls_cert", "tls_key", "insecure_listen", "metrics", "log_level", "drain",
    ),
}  # fmt: skip
REST = "Maintenance and resources"
TABLES = {"connection": "One client connection", "limits": "Limits of the API"}
ABOUT = {
    "connection": "Under `[connection]` in the file.",
    "limits": "Under `[limits]` in the file. Each may be lowered, but not raised above its default.",
}


def render() -> str:
    """Return the page."""
    return HEAD + "".join(_part(title, options) for title, options in _parts())


def _parts() -> Iterator[tuple[str, list[Option]]]:
    named = {key for keys in PARTS.values() for key in keys}
    for title, keys in PARTS.items():
        yield title, [OPTIONS[key] for key in keys]
    yield REST, [option for key, option in OPTIONS.items() if not option.table and key not in named]
    for table in TABLES:
        yield table, [option for option in OPTIONS.values() if option.table == table]


def _part(title: str, options: Iterable[Option]) -> str:
    about = f"{ABOUT[title]}\n\n" if title in ABOUT else ""
    rows = "".join(map(_row, options))
    head = "| key | variable | command line | meaning | value | default |\n|---|---|---|---|---|---|\n"
    return f"\n## {TABLES.get(title, title)}\n\n{about}{head}{rows}"


def _row(option: Option) -> str:
    name = option.key.rpartition(".")[2]
    line = "✓" if option.on_command_line else ""
    unsaid = f"`{option.unsaid}`" if option.unsaid else ""
    return f"| `{name}` | `{option.variable}` | {line} | {option.help} | {option.kind.rule} | {unsaid} |\n"
