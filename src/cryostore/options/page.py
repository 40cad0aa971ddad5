"""The page that documents every option of a server, from their declarations: docs/reference/configuration.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryostore.options.declared import OPTIONS
from cryostore.options.option import Option

HEAD = """# Configuration

<!-- written by `make docs` from cryostore.options.declared -->

Every option of `cryo serve` can be given in three ways; the first that says it counts:

1. on the command line, `--log-level debug`, where the table has a check mark;
2. in the environment, `CRYO_LOG_LEVEL=debug`;
3. in a file, `log_level = "debug"`, which `--config FILE` or `CRYO_CONFIG` names. It is TOML.

What is no option of this page, or breaks the rule of one, is refused with file, key, value and rule. All nodes of a
shared store should be given the same options, but for the addresses. A relative path begins where the server starts.

    catalog = "postgresql://cryostore@db.example.org/cryostore?sslmode=verify-full"
    blobs = "s3://backups/store?endpoint=https://s3.example.org&region=eu-1"
    keyring = "/etc/cryostore/keyring.json"
    listen = "0.0.0.0:8734"
    tls_cert = "/etc/cryostore/cert.pem"
    tls_key = "/etc/cryostore/key.pem"
    quarantine = "48h"

    [limits]
    chunk_bytes_max = "16MiB"

The verbs that work on a store themselves (`gc`, `jobs`, `scrub`, `check`, `repair`, `key`, `rebuild-catalog`, `init`)
take the options of the first table and `--config`, too, and of the others what is about the store, as `quarantine`.

**Secrets** are never given on a command line, where every user of the machine sees them; a password there is refused. A
catalog's password goes into `PGPASSWORD`, a passfile (`PGPASSFILE`), or `CRYO_CATALOG` with the whole URL; a file with
a password in it must be readable by its owner only. Credentials of S3 go into `AWS_ACCESS_KEY_ID` and
`AWS_SECRET_ACCESS_KEY`.

A span of time is a number with its unit: `ms`, `s`, `m`, `h` or `d`. A size is a number of bytes, or has a unit: `KiB`,
`MiB`, `GiB`, `TiB`.
"""
PARTS = {
    "Which store": ("data_dir", "catalog", "blobs", "keyring"),
    "Listening": (
        "listen", "workers", "region", "tls_cert", "tls_key", "insecure_listen", "metrics", "log_level", "drain",
    ),
}  # fmt: skip
REST = "Upkeep and resources"
TABLES = {"connection": "One client connection", "limits": "Limits of the API"}
ABOUT = {
    "connection": "Under `[connection]` in the file.",
    "limits": "Under `[limits]` in the file. Each may be set lower than its default, the API's own, and never higher.",
}


def render() -> str:
    """The page."""
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
    head = "| key | variable | command line | what it is | value | default |\n|---|---|---|---|---|---|\n"
    return f"\n## {TABLES.get(title, title)}\n\n{about}{head}{rows}"


def _row(option: Option) -> str:
    name = option.key.rpartition(".")[2]
    line = "✓" if option.on_command_line else ""
    unsaid = f"`{option.unsaid}`" if option.unsaid else ""
    return f"| `{name}` | `{option.variable}` | {line} | {option.help} | {option.kind.rule} | {unsaid} |\n"
