"""The reference page of all options, docs/reference/configuration.md, generated from their declarations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryostore.options.declared import OPTIONS
from cryostore.options.option import Option

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
