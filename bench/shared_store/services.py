"""PostgreSQL and S3 as `scripts/services` starts them: their addresses, their usage, fresh databases and prefixes.

They are not measured. All nodes of a shared store use them.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.machine.processes import usage

POSTGRES, S3, FOLDER = "CRYO_TEST_POSTGRES", "CRYO_TEST_S3", "CRYO_TEST_SERVICES"
S3_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK"}
SCRIPT = Path(__file__).parents[2] / "scripts" / "services"
SERVICES_FOLDER = Path(".build/services-bench")
POSTGRES_PROCESS = "postgres/data/postmaster.pid"
S3_SECONDS_MAX = 180
CEPH_PROCESSES = "ceph-rgw/*.pid"


def start_if_missing(module: str, arguments: list[str], *needed: str) -> None:
    """Return if the needed services exist; else replace this process by `scripts/services run ... python -m module`.

    A PostgreSQL that is started here waits for the disk at each commit.
    """
    if all(os.environ.get(name) for name in needed):
        if S3 in needed and FOLDER in os.environ:
            _wait_for_s3(Path(os.environ[FOLDER]))
        return
    if FOLDER in os.environ:
        raise SystemExit(f"bench: {' and '.join(needed)} could not be started; see above")
    command = [str(SCRIPT), "run", str(SERVICES_FOLDER), sys.executable, "-m", module, *arguments]
    os.execve(command[0], command, {**os.environ, "CRYO_POSTGRES_FSYNC": "on"})  # noqa: S606 - our own script


def _wait_for_s3(folder: Path) -> None:
    """Wait for Ceph and its bucket, since `scripts/services` does not."""
    up, failed = (folder / f"ceph-rgw.{outcome}" for outcome in ("up", "failed"))
    end = time.monotonic() + S3_SECONDS_MAX
    while not up.exists():
        if failed.exists() or time.monotonic() > end:
            raise SystemExit(f"bench: Ceph did not start; see {folder}/ceph-rgw.log")
        time.sleep(0.1)


@contextmanager
def fresh_database(url: str) -> Iterator[str]:
    """Create an empty database on this server and yield its URL; drop it afterwards."""
    name = f"cryo_bench_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        try:
            yield at(url, name)
        finally:
            administrator.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def at(url: str, name: str, port: int | None = None) -> str:
    """Return the URL of another database of the same server, optionally behind another port of this machine."""
    given = conninfo_to_dict(url)
    password = f":{given['password']}" if given.get("password") else ""
    host = given["host"] if port is None else "127.0.0.1"
    return f"postgresql://{given['user']}{password}@{host}:{port or given['port']}/{name}"


def fresh_prefix(url: str) -> str:
    """Return the URL of an unused prefix in the bucket of this URL."""
    bucket, _, options = url.partition("?")
    return f"{bucket.rstrip('/')}/bench-{secrets.token_hex(4)}?{options}"


def cpu_seconds(environment: Mapping[str, str]) -> dict[str, float]:
    """Return the CPU seconds of the services so far, by name; services that run elsewhere are left out."""
    if FOLDER not in environment:
        return {}
    folder = Path(environment[FOLDER])
    found = {"postgres": list(folder.glob(POSTGRES_PROCESS)), "ceph": list(folder.glob(CEPH_PROCESSES))}
    return {
        name: sum(usage(int(path.read_text().split()[0])).cpu_seconds for path in paths)
        for name, paths in found.items()
        if paths
    }
