"""Three nodes under load while nodes, catalog and S3 fail: no acknowledged data is lost, and no client gives up.

The clients are stock SDKs behind a load balancer that does not retry. Garbage is collected at the same time.
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


# --- one object through several nodes


def test_all_nodes_take_chunks_of_an_object_and_show_it_at_once(cluster):
    """Chunks go to different nodes in any order, some twice at once. Every node shows acknowledged chunks."""
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


def test_no_node_shows_an_old_state_after_an_acknowledgement(cluster):
    """An object is put on one node, replaced on the next, deleted on the third. The others know it each time."""
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


# --- a frozen node


@pytest.fixture
def frozen_put(cluster):
    """A function that starts a put through node 0, which freezes while it sends its pack, and returns the future."""
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


def test_a_write_of_a_frozen_node_to_an_ended_job_is_refused(cluster, frozen_put):
    """The node froze between pack and row. Meanwhile its job ended on another node, and garbage was collected."""
    quick = cluster.api(1)
    job = quick.start_job(resource=new_resource())
    late = frozen_put(job, b"late" * 5000)
    quick.stop(job)
    for _ in range(2):
        cluster.collect()
    cluster.nodes.thaw(0)
    with pytest.raises(ModelError):
        late.result()


def test_an_acknowledged_write_of_a_frozen_node_is_complete(cluster, frozen_put):
    """Meanwhile another node stores the same bytes, and they are deleted and collected with their pack."""
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


def test_killing_nodes_in_turn_loses_nothing(cluster):
    kill_again_and_again(cluster, NODES)


@pytest.mark.stress
def test_killing_nodes_a_hundred_times_loses_nothing(cluster):
    kill_again_and_again(cluster, 100)


# --- an outage of the catalog


def restart(cluster, verb):
    """Stop or kill PostgreSQL, and start it again."""
    cluster.postgres.run(verb)
    cluster.postgres.run("up")


@pytest.mark.parametrize("verb", ["kill", pytest.param("down", marks=pytest.mark.stress)])
def test_a_restart_of_the_catalog_only_delays_requests(cluster, verb):
    """It is killed with all its sessions, or stopped as in a failover."""
    with cluster.load() as load:
        load.go_on(3)
        restart(cluster, verb)
        load.go_on(3)


class CommitCutter:
    """Cuts the connection at every n-th COMMIT: before the COMMIT arrives, or before its answer does."""

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


def test_interrupted_commits_take_effect_once(cluster):
    with cluster.load() as load, CommitCutter(cluster.to_catalog, every=25) as cutter:
        while min(cutter.cuts) < 2:
            load.go_on(2)


@pytest.mark.stress
def test_a_long_outage_gives_503_until_it_ends(cluster):
    """A client without retries gets 503 only. Afterwards all requests succeed, including those that waited."""
    with cluster.load() as load:
        load.go_on(3)
        asking = [cluster.api(number, retry=Retry(attempts_max=1)) for number in range(NODES)]
        jobs = [api.start_job() for api in asking]
        cluster.to_catalog.hold()
        cluster.to_catalog.refuses = True
        cluster.to_catalog.cut()
        refused = [PutObject(backup_job_id=job, object_name="a") for job in jobs]
        with ThreadPoolExecutor(NODES) as at_once:  # one after the other, they take longer than botocore retries
            list(at_once.map(lambda api, put: api.refuses(ServiceUnavailableException, put), asking, refused))
        cluster.to_catalog.refuses = False
        cluster.to_catalog.go_on()
        for api, job in zip(asking, jobs, strict=True):
            api.put(job, "a", b"again")
        load.go_on()


# --- S3 in trouble


def trouble(seed):
    """Yield the fault of each request in turn: most have none, and some have each of the faults."""
    moments = random.Random(seed)
    faults = [Fault.THROTTLED, Fault.THROTTLED_AFTER, Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.TORN]
    while True:
        yield moments.choice(faults) if moments.random() < 0.3 else None


@contextlib.contextmanager
def troubled(proxy, seed):
    """Inject faults into puts and reads while the block runs. Yields the faults that occurred."""
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


def test_faults_of_s3_lose_nothing(cluster):
    """S3 is busy, drops connections, and loses answers of requests that took effect."""
    with cluster.load() as load:
        with troubled(cluster.to_blobs, 7) as met:
            while len({fault for kind, fault in met if kind == "put"}) < 5:
                load.go_on(3)
        load.go_on()
