"""Three nodes under load while everything around them fails: nothing acknowledged is lost, and no client gives up.

The clients are stock ones behind a load balancer that does not retry. Meanwhile garbage is collected.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cryostore.client.pages import objects
from cryostore.client.retry import Retry
from cryostore.model.errors import ModelError, ResourceNotFoundException, ServiceUnavailableException
from cryostore.model.objects import PutObject
from cryostore.model.restore_jobs import StartRestoreJob
from support.faults.http_proxy import Fault
from support.faults.tcp_proxy import CutError
from support.processes.cluster import Cluster
from support.requests.api import hex_of, new_resource

NODES = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with contextlib.ExitStack() as opened:
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), opened, count=NODES)
        yield cluster
        assert cluster.problems() == []


# --- several nodes at one object


def test_an_object_goes_through_all_nodes_and_is_seen_everywhere_at_once(cluster):
    """Chunks in any order, each to another node, some twice at once; what is acknowledged every node shows."""
    apis = [cluster.api(number) for number in range(NODES)]
    order = random.Random(1)
    job = apis[0].start_job()
    for turn in range(NODES):
        name, contents = f"object-{turn}", [order.randbytes(20_000) for _ in range(6)]
        upload = apis[turn].start(job, name)
        places = [(index, node) for index in range(6) for node in (index % NODES, (index + turn) % NODES)]
        order.shuffle(places)
        with ThreadPoolExecutor(6) as pool:
            sent = [pool.submit(apis[node].chunk, job, upload, index, contents[index]) for index, node in places]
        assert [one.result().chunk_checksum for one in sent] == [hex_of(contents[index]) for index, _ in places]
        apis[(turn + 1) % NODES].complete(job, upload, contents)
        for api in apis:
            assert [one.name for one in objects(api, job)] == [f"object-{number}" for number in range(turn + 1)]
            assert list(api.read_chunks(job, api.found(job, name).object_token).values()) == contents
    view = apis[0].read(job)
    point = apis[1].commit(job)
    for api in apis:
        assert api.point(point).status == "COMPLETED"
        assert api.restored(point) == view
    apis[2].delete_point(point)
    for api in apis:
        api.refuses(ResourceNotFoundException, StartRestoreJob(recovery_point_arn=point, metadata={}))


def test_no_node_shows_what_was_before_an_acknowledgement(cluster):
    """Put on one, replaced on the next, deleted on the third: each time all others know of it."""
    apis = [cluster.api(number) for number in range(NODES)]
    job = apis[0].start_job()
    for turn in range(12):
        writer, readers = apis[turn % NODES], (apis[(turn + 1) % NODES], apis[(turn + 2) % NODES])
        if turn % 4 == 3:
            writer.delete(job, "one")
            assert [reader.names(job) for reader in readers] == [[], []]
        else:
            writer.put(job, "one", b"%d" % turn)
            assert [reader.read(job) for reader in readers] == [{"one": b"%d" % turn}] * 2


# --- a node that stands still


@pytest.fixture
def frozen_put(cluster):
    """Begins a put through node 0, which stands still from when its pack is on the way; gives what will come of it."""
    with ThreadPoolExecutor(1) as pool:

        def begin(job, data):
            frozen = threading.Event()

            def freeze(body):
                if not frozen.is_set():
                    cluster.nodes.freeze(0)
                    frozen.set()
                return body

            cluster.to_blobs.requests["put"] = freeze
            outcome = pool.submit(cluster.api(0).put, job, "late", data)
            assert frozen.wait(60)
            del cluster.to_blobs.requests["put"]
            return outcome

        try:
            yield begin
        finally:
            cluster.nodes.thaw(0)


def test_a_write_that_a_node_outlived_is_refused(cluster, frozen_put):
    """Its job was ended elsewhere, and garbage collected, while it stood between its pack and its row."""
    quick = cluster.api(1)
    job = quick.start_job(resource=new_resource())
    late = frozen_put(job, b"late" * 5000)
    quick.stop(job)
    for _ in range(2):
        cluster.collect()
    cluster.nodes.thaw(0)
    with pytest.raises(ModelError):
        late.result()


def test_a_write_that_stood_still_is_whole_if_it_is_acknowledged(cluster, frozen_put):
    """Meanwhile the same bytes come by another node, are deleted and collected, with their pack."""
    quick, data = cluster.api(1), b"twice" * 5000
    job = quick.start_job(resource=new_resource())
    late = frozen_put(job, data)
    quick.put(job, "other", data)
    quick.delete(job, "other")
    for _ in range(3):
        cluster.collect()
    cluster.nodes.thaw(0)
    late.result()
    assert cluster.api(2).read(job) == quick.read(job) == {"late": data}


# --- a node that dies


def kill_again_and_again(cluster, kills):
    moments = random.Random(kills)
    with cluster.load() as load:
        for turn in range(kills):
            load.go_on(moments.randrange(1, 4))
            cluster.nodes.kill(turn % NODES)
            load.go_on(2)
            cluster.nodes.start(turn % NODES)
        while not load.collector.removed:
            load.go_on()


def test_nodes_that_are_killed_in_turn_lose_nothing(cluster):
    kill_again_and_again(cluster, NODES)


@pytest.mark.stress
def test_nodes_that_are_killed_a_hundred_times_lose_nothing(cluster):
    kill_again_and_again(cluster, 100)


# --- the catalog is away


def restart(cluster, verb):
    """Stop PostgreSQL, in order or at once, and start it again."""
    cluster.postgres.run(verb)
    cluster.postgres.run("up")


@pytest.mark.parametrize("verb", ["kill", pytest.param("down", marks=pytest.mark.stress)])
def test_a_catalog_that_restarts_costs_nothing_but_time(cluster, verb):
    """Killed with all its sessions, or stopped in order, as a failover does it."""
    with cluster.load() as load:
        load.go_on(3)
        restart(cluster, verb)
        load.go_on(3)


class CommitCutter:
    """Cuts every so-many-th COMMIT: before it arrives, or the connection with its answer after it did."""

    def __init__(self, proxy, every):
        self._proxy = proxy
        self._numbers = itertools.count(1)
        self._every = every
        self._deaf = set()
        self.cuts = [0, 0]

    def __enter__(self):
        self._proxy.on_request, self._proxy.on_answer = self._on_request, self._on_answer
        return self

    def __exit__(self, *_):
        self._proxy.on_request = self._proxy.on_answer = lambda _, piece: piece

    def _on_request(self, connection, piece):
        if b"COMMIT" not in piece:
            return piece
        number = next(self._numbers)
        if number % self._every == 0:
            late = number // self._every % 2
            self.cuts[late] += 1
            if not late:
                raise CutError
            self._deaf.add(connection)
        return piece

    def _on_answer(self, connection, piece):
        if connection in self._deaf:
            raise CutError
        return piece


def test_commits_that_are_cut_happen_once(cluster):
    with cluster.load() as load, CommitCutter(cluster.to_catalog, every=25) as cutter:
        while min(cutter.cuts) < 2:
            load.go_on(2)


@pytest.mark.stress
def test_a_long_outage_is_told_and_passes(cluster):
    """A client without retries gets 503 and nothing else; then all requests succeed again, waiting ones included."""
    with cluster.load() as load:
        load.go_on(3)
        asking = [cluster.api(number, retry=Retry(attempts_max=1)) for number in range(NODES)]
        jobs = [api.start_job() for api in asking]
        cluster.to_catalog.hold()
        cluster.to_catalog.refuses = True
        cluster.to_catalog.cut()
        refused = [PutObject(backup_job_id=job, object_name="a") for job in jobs]
        with ThreadPoolExecutor(NODES) as at_once:  # one after the other they take longer than botocore goes on trying
            list(at_once.map(lambda api, put: api.refuses(ServiceUnavailableException, put), asking, refused))
        cluster.to_catalog.refuses = False
        cluster.to_catalog.go_on()
        for api, job in zip(asking, jobs, strict=True):
            api.put(job, "a", b"again")
        load.go_on()


# --- S3 in trouble


def trouble(seed):
    """What becomes of each request in turn: most go well, some meet each of the faults."""
    moments = random.Random(seed)
    faults = [Fault.THROTTLED, Fault.THROTTLED_AFTER, Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.TORN]
    while True:
        yield moments.choice(faults) if moments.random() < 0.3 else None


@contextlib.contextmanager
def troubled(proxy, seed):
    """Puts and reads meet faults, while the block runs; gives the faults that were met."""
    met = []
    drawn = trouble(seed)
    calm = proxy.next_fault

    def next_fault(kind):
        with proxy._lock:
            fault = next(drawn)
        if fault is not None:
            met.append((kind, fault))
        return fault

    proxy.next_fault = next_fault
    try:
        yield met
    finally:
        proxy.next_fault = calm


def test_a_store_of_blobs_in_trouble_loses_nothing(cluster):
    """It is busy, tears connections, and loses answers to what it did."""
    with cluster.load() as load:
        with troubled(cluster.to_blobs, 7) as met:
            while len({fault for kind, fault in met if kind == "put"}) < 5:
                load.go_on(3)
        load.go_on()
