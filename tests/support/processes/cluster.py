"""Three nodes of a shared store as processes, with their balancer, proxies, PostgreSQL and S3."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError
from cryostore.core.errors import StorageUnavailableError
from cryostore.maintenance.garbage_collection.collect import collect, collect_all
from cryostore.maintenance.garbage_collection.run import CollectionResult
from cryostore.service.opening.open_shared import open_shared_service
from cryostore.service.opening.shared_store import SharedStoreAddress
from support.clients.stock_clients import BotocoreWitness, StockWitness, client
from support.faults.http_proxy import HttpProxy
from support.faults.tcp_proxy import TcpProxy
from support.processes.nodes import Nodes
from support.processes.round_robin import RoundRobin
from support.processes.serving import CRYO
from support.project import ROOT
from support.requests.api import Api
from support.services import postgres, s3
from support.stores import audit
from support.stores.integrity import REFERENCES
from support.stores.shared_store import s3_in_environment
from support.waiting import until

SCRIPT = ROOT / "scripts" / "postgres"
GO_ON_SECONDS_MAX = 120
OPTIONS = {"CRYO_MAINTENANCE_PERIOD": "1s", "CRYO_DRAIN": "0s"}


class OwnPostgres:
    """A PostgreSQL server that a test may stop; a context manager. Skips where there is none.

    `of`: one to follow, as a replica.
    """

    def __init__(self, of=None):
        self._of = of

    def __enter__(self):
        postgres.required()
        self.folder = Path(tempfile.mkdtemp(prefix="cryo-postgres-", dir="/tmp"))  # the server must be able to enter it
        port = str(_free_port())
        self.url = self.run("up", port) if self._of is None else self.run("standby", self._of.folder, port)
        return self

    def __exit__(self, *_):
        self.run("down")
        shutil.rmtree(self.folder)

    def run(self, verb, *more):
        """Run a command: up, down (regular), kill, or promote."""
        done = subprocess.run([SCRIPT, verb, self.folder, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}{(self.folder / 'log').read_text()[-2000:]}"
        return done.stdout.strip()


def _free_port():
    """Return a port that the system does not assign by itself, so that a killed server can come back to it."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Cluster:
    """Nodes between a balancer on one side and proxies to PostgreSQL and S3 on the other."""

    def __init__(self, folder, opened, *, count=3, own=None, blobs=None, servers=None):
        """`blobs`: a path in place of S3. `servers`: those of the catalog, which get no proxy. `own`: see Nodes."""
        self.folder = folder
        self._opened = opened
        self.postgres = servers or opened.enter_context(OwnPostgres())
        catalog = self.postgres.url
        if servers is None:
            given = conninfo_to_dict(catalog)
            self.to_catalog = opened.enter_context(TcpProxy(given["host"], given["port"]))
            catalog = postgres.at(catalog, given["dbname"], self.to_catalog.port)
        through = blobs
        if blobs is None:
            blobs = opened.enter_context(s3_in_environment())
            self.to_blobs = opened.enter_context(HttpProxy(s3.endpoint()))
            through = f"{blobs.partition('?')[0]}?endpoint={self.to_blobs.address}"
        self.place = SharedStoreAddress(self.postgres.url, blobs, str(folder / "keyring.json"))
        """Return the place of the store without the proxies."""
        self.credentials = folder / "credentials"
        environment = os.environ | OPTIONS | {
            "CRYO_CATALOG": catalog,
            "CRYO_BLOBS": through,
            "CRYO_KEYRING": self.place.keyring,
        }  # fmt: skip
        command = [*CRYO, "init", "--credentials", self.credentials]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        self.environment = environment
        self.collect()  # so that no node starts a collection
        self.nodes = opened.enter_context(Nodes(folder, environment, count=count, own=own))
        places = [("127.0.0.1", place.port) for place in self.nodes.places]
        self.balancer = opened.enter_context(RoundRobin(lambda: places))

    def collect(self):
        """Collect garbage from this process, without a quarantine."""
        with contextlib.closing(open_shared_service(self.place)) as service:
            collect_all(service.context, quarantine_ms=0)

    def api(self, number, **more):
        """Return the test API on one node."""
        ours = client(self.nodes.url(number), self.credentials, **more)
        self._opened.callback(ours.close)
        return Api(ours, None)

    @contextlib.contextmanager
    def load(self, *, ours=2, others=1):
        """Run witnesses behind the balancer, and a collector, while the context lasts; then check all they saw."""
        with contextlib.ExitStack() as opened:
            load = _Load(self, ours, others, opened)
            with load.running():
                yield load
            load.check()

    def problems(self):
        """Return the problems of the store, while no process writes."""
        service = open_shared_service(self.place)
        try:
            database = service.context.database
            rows = {what: database.read(lambda t, q=query: t.rows(q)) for what, query in REFERENCES.items()}
            found = [f"{what}: {row}" for what, wrong in rows.items() for row in wrong]
            return found + audit.problems(service.context, database)
        finally:
            service.close()


class _Load:
    """The concurrent witnesses, and the collector."""

    def __init__(self, cluster, ours, others, opened):
        self._cluster = cluster
        self._stop = threading.Event()
        url, credentials = cluster.balancer.url, cluster.credentials
        self.witnesses = [
            *(StockWitness(url, credentials, seed, self._stop) for seed in range(ours)),
            *(BotocoreWitness(cluster.folder / "sdk", url, credentials, seed, self._stop) for seed in range(others)),
        ]
        for witness in self.witnesses:
            opened.callback(witness.close)
        self.collector = Collector(cluster.place, self._stop)
        self._threads = [threading.Thread(target=one.run) for one in (*self.witnesses, self.collector)]

    @contextlib.contextmanager
    def running(self):
        """Run all while the context lasts, then raise the first error."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
        self.show_failures()

    def show_failures(self):
        """Raise the first error of a thread."""
        for failure in filter(None, (one.failure for one in (*self.witnesses, self.collector))):
            raise failure

    def go_on(self, more=5):
        """Wait until each has got this many more responses."""
        wanted = [witness.acknowledged + more for witness in self.witnesses]

        def went_on():
            self.show_failures()
            return all(one.acknowledged >= least for one, least in zip(self.witnesses, wanted, strict=True))

        until(went_on, seconds_max=GO_ON_SECONDS_MAX, pause_seconds=0.01)

    def check(self):
        """Check that every acknowledged write is on each node, and that no response was unexpected."""
        for witness in self.witnesses:
            wrong = [what for what in witness.errors if "NotReadable" in what or what.startswith("500")]
            assert wrong == [], witness.errors
        verified = set()
        apis = [self._cluster.api(number) for number in range(len(self._cluster.nodes.places))]
        for turn, witness in enumerate(self.witnesses):
            witness.check(verified, apis[turn % len(apis)])


class Collector:
    """Collects garbage in this process, again and again, without quarantine. Pauses while the catalog is away."""

    def __init__(self, place, stop):
        self._place = place
        self._stop = stop
        self.removed = 0
        self.failure = None

    def run(self):
        """Work until stopped. An error is kept in `failure`."""
        try:
            with contextlib.closing(open_shared_service(self._place)) as service:
                while not self._stop.wait(0.2):
                    with contextlib.suppress(ClaimHeldError, ClaimLostError, StorageUnavailableError):
                        self._collect(service.context)
        except BaseException as failure:  # noqa: BLE001 - the test raises it in its own thread
            self.failure = failure

    def _collect(self, context):
        outcome, before = CollectionResult(), self.removed
        with contextlib.closing(collect(context, outcome, quarantine_ms=0)) as steps:
            for _ in steps:
                if self._stop.is_set():
                    break
                self.removed = before + outcome.removed
