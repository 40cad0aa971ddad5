"""A real server on a full or read-only disk, or without descriptors: its answers, logs and metrics.

No acknowledged data is lost. Deletes and garbage collection work without free space, and the server recovers by itself
after the cause is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cryostore.client.client import Client
from cryostore.client.retry import Retry
from cryostore.core.limits import KIB, MIB
from cryostore.model.errors import ServiceUnavailableException
from support.faults.small_disk import read_only, small_disk
from support.processes import serving
from support.processes.fake_process import wait_for
from support.requests.api import Api, new_resource

OBJECTS_PER_JOB = 5
SIZES = (100, 20 * KIB, 200 * KIB)


class Watched:
    """A server with its log and metrics, and a client that does not retry."""

    def __init__(self, server):
        self.server = server
        settings = server.settings
        self.client = Client(settings.endpoint_url, settings.region, settings.credentials, retry=Retry(attempts_max=1))
        self.api = Api(self.client, server.data_dir)
        self.random = random.Random(1)
        self.points = {}
        self.torn_lines_max = 0

    def log(self):
        """Return the lines of the log. Those that are torn, at most `torn_lines_max`, are left out."""
        lines, torn = [], []
        for line in self.server.log.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                torn.append(line)
        assert len(torn) <= self.torn_lines_max, torn
        return lines

    def logged(self, **fields):
        return [line for line in self.log() if fields.items() <= line.items()]

    def probe(self, path):
        """Return the status and the text of a path of the metrics listener."""
        line = self.logged(event="metrics")[-1]
        url = line["address"].removesuffix("/metrics") + path
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name, **labels):
        """Return the value of a metric, 0 if it is missing."""
        families = text_string_to_metric_families(self.probe("/metrics")[1])
        samples = [one for family in families for one in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    def back_up(self, sizes=SIZES):
        """Make a recovery point, and note its content once it is acknowledged."""
        self.api.resource = new_resource()
        job = self.api.running_job()
        contents = {}
        for number in range(OBJECTS_PER_JOB):
            contents[f"object-{number}"] = data = self.random.randbytes(self.random.choice(sizes))
            self.api.put(job, f"object-{number}", data)
        self.points[self.api.commit(job)] = contents

    def back_up_until_stopped(self):
        while True:
            self.back_up()

    def fill(self):
        """Make backups until one is refused, then continue with smaller files. Return the last error."""
        refusal = None
        for sizes in (SIZES, (1000,), (10,)):
            with contextlib.suppress(ServiceUnavailableException):
                while True:
                    try:
                        self.back_up(sizes)
                    except ServiceUnavailableException as error:
                        refusal = error
                        raise
        return refusal

    def check_acknowledged(self):
        for arn, contents in self.points.items():
            assert self.api.restored(arn) == contents

    def gc(self):
        """Collect garbage twice without a quarantine, in another process than the server."""
        for _ in range(2):
            done = subprocess.run(
                [*serving.CRYO, "gc", "--data-dir", str(self.server.data_dir), "--quarantine", "0", "--json"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextlib.contextmanager
def watched(data_dir, *options):
    with serving.serving(data_dir, "--metrics", "127.0.0.1:0", *options) as server:
        watch = Watched(server)
        try:
            yield watch
        finally:
            watch.client.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk(tmp_path, workers):
    with small_disk(tmp_path / "disk", 24) as disk, watched(disk.path, "--workers", str(workers)) as watch:
        assert watch.probe("/-/ready") == (200, "ok\n")
        refusal = watch.fill()
        assert refusal.status == 503
        assert len(watch.points) > 5
        disk.fill()
        assert disk.free_bytes < 4 * KIB
        failures = wait_for(lambda: watch.logged(event="storage failure", kind="full"))
        assert all("traceback" not in line and line["hint"] for line in failures)
        assert watch.metric("cryostore_storage_failures_total", kind="full") >= len(failures)
        watch.check_acknowledged()

        kept = dict(list(watch.points.items())[-1:])
        for arn in list(watch.points)[:-1]:
            if watch.metric("cryostore_reserve_held"):
                disk.fill()  # for any space that became free
            watch.api.delete_point(arn)
        watch.points = kept
        assert watch.metric("cryostore_reserve_held") == 0
        assert watch.probe("/-/ready")[0] == 503
        with pytest.raises(ServiceUnavailableException, match="disk full on .+: [0-9]+ MiB needed"):
            watch.back_up()
        wait_for(lambda: watch.logged(event="writes are refused", level="error"))

        watch.gc()
        wait_for(lambda: watch.metric("cryostore_reserve_held") == 1)
        wait_for(lambda: disk.hidden_bytes < 256 * KIB)  # no process holds deleted files open
        left = sum(len(data) for contents in watch.points.values() for data in contents.values())
        assert disk.bytes_under("packs") < left + MIB
        watch.back_up()
        wait_for(lambda: watch.logged(event="writes are accepted again"))
        assert watch.metric("cryostore_reserve_held") == 1
        assert watch.probe("/-/ready") == (200, "ok\n")
        watch.check_acknowledged()


def test_a_server_that_is_killed_on_a_full_disk_starts_again(tmp_path):
    with small_disk(tmp_path / "disk", 16) as disk:
        with watched(disk.path, "--workers", "2") as watch:
            watch.fill()
            watch.server.kill()
        disk.fill()
        with watched(disk.path, "--workers", "2") as again:
            again.points = watch.points
            again.check_acknowledged()
            for arn in list(again.points)[1:]:
                again.api.delete_point(arn)
                del again.points[arn]
            again.gc()
            disk.clear()
            wait_for(lambda: again.metric("cryostore_reserve_held") == 1)
            again.back_up()
            again.check_acknowledged()


def test_a_read_only_file_system(tmp_path):
    """Only new packs fail. The server continues by itself when the disk is writable again."""
    with small_disk(tmp_path / "disk", 24) as disk, watched(disk.path, "--workers", "1") as watch:
        (disk.path / "packs").mkdir(exist_ok=True)
        with read_only(disk.path / "packs"):
            with pytest.raises(ServiceUnavailableException):
                watch.back_up()
            (line,) = wait_for(lambda: watch.logged(event="storage failure"))
            assert (line["kind"], line["cause"]) == ("read-only", "Read-only file system")
            assert watch.metric("cryostore_storage_failures_total", kind="read-only") >= 1
        watch.back_up()
        watch.check_acknowledged()


def test_files_cannot_grow_beyond_a_limit(tmp_path):
    """RLIMIT_FSIZE simulates a disk whose writes end after a part of the bytes, in packs and in the catalog."""
    with watched(tmp_path / "data", "--workers", "1") as watch:
        watch.back_up()
        watch.torn_lines_max = 4  # each limit is for the log, too
        limits = resource.prlimit(watch.server.process.pid, resource.RLIMIT_FSIZE)
        for limit_bytes in (0, 4 * KIB + 7, 50_001, 600_003):
            resource.prlimit(watch.server.process.pid, resource.RLIMIT_FSIZE, (limit_bytes, limits[1]))
            with pytest.raises(ServiceUnavailableException):
                watch.back_up_until_stopped()
            resource.prlimit(watch.server.process.pid, resource.RLIMIT_FSIZE, limits)
            watch.back_up()
        watch.check_acknowledged()
        assert watch.metric("cryostore_storage_failures_total") >= 4  # SQLite does not report the error number
    with watched(tmp_path / "data") as again:
        again.points = watch.points
        again.check_acknowledged()


def test_too_many_open_files(tmp_path):
    """Connections, packs and the catalog share the descriptors. A request without one may be retried later."""
    with watched(tmp_path / "data", "--workers", "1") as watch:
        watch.back_up()
        process = watch.server.process.pid
        soft, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
        assert soft == hard  # the server raises it at its start
        (arn,) = watch.points
        restore = watch.api.restore(arn)

        resource.prlimit(process, resource.RLIMIT_NOFILE, (10, hard))  # fewer than it has open already
        with pytest.raises(ServiceUnavailableException):
            watch.api.read(restore)  # the pack cannot be opened
        (line,) = wait_for(lambda: watch.logged(event="storage failure"))
        assert (line["kind"], line["cause"]) == ("open files", "Too many open files")
        with UnsignedConnection(watch.server) as waiting:
            before = cpu_seconds(process)
            began = time.monotonic()
            wait_for(lambda: time.monotonic() - began > 1)
            assert cpu_seconds(process) - before < 0.5, "the server is in a busy loop"
            resource.prlimit(process, resource.RLIMIT_NOFILE, (soft, hard))
            assert waiting.status() == "200"
        watch.check_acknowledged()
        assert watch.metric("cryostore_storage_failures_total", kind="open files") >= 1

        resource.prlimit(process, resource.RLIMIT_NOFILE, (len(list(Path(f"/proc/{process}/fd").iterdir())) + 40, hard))
        with contextlib.ExitStack() as connections:
            strangers = [connections.enter_context(UnsignedConnection(watch.server)) for _ in range(100)]
            statuses = [stranger.status() for stranger in strangers]
            assert set(statuses) == {"200", "503"}
            watch.back_up()  # the store has reserved descriptors
        resource.prlimit(process, resource.RLIMIT_NOFILE, (soft, hard))
        assert watch.metric("cryostore_connections_refused_total") == statuses.count("503")
        watch.back_up()
        watch.check_acknowledged()


class UnsignedConnection:
    """A new connection to a server, and a request that needs no signature."""

    def __init__(self, server):
        split = urlsplit(server.url)
        self.connection = socket.create_connection((split.hostname, split.port), timeout=20)
        self.connection.sendall(b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n")

    def status(self):
        return self.connection.recv(100).split(b" ")[1].decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


def cpu_seconds(process):
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
