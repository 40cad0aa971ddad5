"""A server of two workers that is killed repeatedly under load: all acknowledged data is there and intact.

SIGKILL loses the memory of a process, but not the page cache; for that see `power/test_power_loss`. Garbage
collection, compaction and scrubs run at the same time.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time

import pytest

from cryostore.client.client import Client
from cryostore.client.retry import Retry
from cryostore.client.settings import resolve
from cryostore.client.transport import ConnectionFailedError
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.verification.scrub import ScrubResult, scrub
from cryostore.model.errors import ServiceUnavailableException
from cryostore.service.opening.open import open_service
from support.clients.witness import Witness
from support.processes import serving
from support.requests.api import Api
from support.stores.integrity import problems

WRITERS = 4
RESTART_SECONDS_MAX = 60
UP_SECONDS_MAX = 120


class KilledServer:
    """`cryo serve --workers 2` on one directory and one port, in a process group that the test can kill."""

    def __init__(self, data_dir):
        self.data_dir = data_dir
        self.log = data_dir.parent / "server.log"
        self.listen = "127.0.0.1:0"
        self.up = threading.Event()
        self.restarts_seconds = []
        self.start()

    def start(self):
        began = time.monotonic()
        with self.log.open("a", encoding="utf-8") as log_file:
            self.process = subprocess.Popen(
                [*serving.CRYO, "serve", "--data-dir", str(self.data_dir), "--listen", self.listen, "--workers", "2",
                 "--log-level", "error"],
                stdout=subprocess.PIPE, stderr=log_file, text=True, start_new_session=True,
            )  # fmt: skip
        self.url = serving._address(self.process, self.log)
        self.listen = self.url.removeprefix("http://")
        self.restarts_seconds.append(time.monotonic() - began)
        self.up.set()

    def kill(self):
        self.up.clear()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def client(self):
        settings = resolve({"AWS_SHARED_CREDENTIALS_FILE": str(self.data_dir / "credentials")}, endpoint_url=self.url)
        return Client(settings.endpoint_url, settings.region, settings.credentials, retry=Retry(attempts_max=1))


class Writer(Witness):
    """A client that makes each call once, and continues when the server is back.

    A killed server gives no answer. In particular, it does not report a complete body as cut short.
    """

    def __init__(self, server, seed, stop):
        super().__init__(Api(server.client(), server.data_dir), seed, stop)
        self.server = server

    def attempt(self, operation):
        assert self.server.up.wait(UP_SECONDS_MAX)
        try:
            return super().attempt(operation)
        except (ConnectionFailedError, ServiceUnavailableException):
            return None


class Collector:
    """Collects garbage without a quarantine, in the process of the test, which is not killed.

    Between two collections it scrubs the pack whose last verification is the oldest.
    """

    def __init__(self, data_dir, stop):
        self.service = open_service(data_dir)
        self.stop = stop
        self.removed = self.compacted = 0
        self.scrubbed = ScrubResult()
        self.failure = None

    def run(self):
        try:
            while not self.stop.wait(0.1):
                outcome = collect_all(self.service.context, quarantine_ms=0)
                self.removed += outcome.removed
                self.compacted += outcome.packs_compacted
                for _ in scrub(self.service.context, self.scrubbed, seconds_max=0):
                    pass
        except BaseException as failure:  # noqa: BLE001 - the test raises it in its own thread
            self.failure = failure
        finally:
            self.service.close()


def kill_again_and_again(data_dir, kills):
    server = KilledServer(data_dir)
    stop = threading.Event()
    writers = [Writer(server, seed, stop) for seed in range(WRITERS)]
    collector = Collector(data_dir, stop)
    threads = [threading.Thread(target=one.run) for one in (*writers, collector)]
    moments = random.Random(kills)
    try:
        for thread in threads:
            thread.start()
        for _ in range(kills):
            stop.wait(moments.uniform(0.05, 0.8))
            server.kill()
            server.start()
            if any(writer.failure for writer in writers):
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    try:
        for failure in filter(None, (one.failure for one in (*writers, collector))):
            raise failure
        assert collector.removed, "nothing was collected"
        assert collector.compacted, "no pack was compacted"
        assert collector.scrubbed.chunks, "nothing was scrubbed"
        assert collector.scrubbed.is_clean
        assert min(writer.acknowledged for writer in writers) > kills, "too little was written"
        verified = set()
        for writer in writers:
            writer.check(verified)
    finally:
        for writer in writers:
            writer.api._call.close()
        server.kill()
    assert problems(data_dir) == []
    assert max(server.restarts_seconds) < RESTART_SECONDS_MAX
    return server, writers


def test_acknowledged_data_survives_every_kill(tmp_path):
    kill_again_and_again(tmp_path / "data", 20)


@pytest.mark.stress
def test_acknowledged_data_survives_two_hundred_kills(tmp_path):
    kill_again_and_again(tmp_path / "data", 200)
