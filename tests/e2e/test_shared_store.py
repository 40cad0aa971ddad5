"""A shared store from `cryo init` on: two servers share only the catalog, the blobs and the keyring."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from cryostore.core.errors import ConfigurationError
from cryostore.service.opening.open_shared import open_shared_service
from support.processes.serving import CRYO
from support.processes.shared_serving import cryo, node
from support.requests.api import Api
from support.stores.shared_store import ON_PATHS, ON_SERVICES, fresh_place
from support.stores.store_picture import view
from support.waiting import until

CONTENTS = [bytes([number]) * 1000 * (number + 1) for number in range(6)]


@pytest.fixture(params=[ON_PATHS, ON_SERVICES])
def place(request, tmp_path):
    """A place without a store."""
    with fresh_place(tmp_path, request.param) as place:
        yield place


def test_two_nodes_are_one_store(place, tmp_path):
    """Chunks of an object go to both in any order. One completes it, the other commits it, both read it.

    The root access key of `cryo init` works on both. The nodes leave no files where they run.
    """
    said = json.loads(cryo(place, "init", "--credentials", tmp_path / "credentials", "--json").stdout)
    assert (said["made_store"], said["made_keyring"]) == (True, True)
    before = {path.name for path in tmp_path.iterdir()}
    with ExitStack() as opened:
        servers = [opened.enter_context(node(place, tmp_path, name=name)) for name in ("first", "second")]
        first, second = (Api(opened.enter_context(server.client()), tmp_path) for server in servers)
        job = first.start_job()
        upload = second.start(job, "shared")
        for index in (3, 0, 5, 2, 4, 1):
            (first, second)[index % 2].chunk(job, upload, index, CONTENTS[index])
        second.put(job, "other", b"1")
        first.complete(job, upload, CONTENTS)
        assert second.read(job) == first.read(job) == {"shared": b"".join(CONTENTS), "other": b"1"}
        point = second.commit(job)
        assert first.restored(point) == second.restored(point) == {"shared": b"".join(CONTENTS), "other": b"1"}
        servers[0].kill()
        assert second.restored(point)["other"] == b"1"
        (found,) = json.loads(cryo(place, "jobs", "--json").stdout) or [None]
        assert found is None
    left = {path.name for path in tmp_path.iterdir() if "catalog" not in path.name} - before
    assert left == {"first.log", "second.log"}
    again = cryo(place, "init", "--credentials", tmp_path / "credentials")
    assert "already prepared" in again.stdout


def workers_of(server):
    """The process ids of a node's workers."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(number) for number in children.split()]


def logged(server, event):
    """Return the log lines of an event."""
    lines = [json.loads(line) for line in server.log.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["event"] == event]


def serving_workers(server):
    """Return the number of workers that serve, from the metrics of the node."""
    (where,) = logged(server, "metrics")
    with urllib.request.urlopen(where["address"], timeout=10) as answer:
        text = answer.read().decode()
    (number,) = re.findall(r"^cryostore_workers (.*)$", text, re.MULTILINE)
    return float(number)


def test_workers_of_a_node_are_one_store_and_each_may_be_killed(tmp_path):
    """On PostgreSQL and S3, with no files on the node. Each worker serves alone while the other is replaced."""
    with fresh_place(tmp_path, ON_SERVICES) as place, ExitStack() as opened:
        cryo(place, "init", "--credentials", tmp_path / "credentials")
        server = opened.enter_context(node(place, tmp_path, "--metrics", "127.0.0.1:0", workers=2))
        apis = [Api(opened.enter_context(server.client()), tmp_path) for _ in range(4)]  # each has its own connection
        pool = opened.enter_context(ThreadPoolExecutor())
        job = apis[0].start_job()
        upload = apis[1].start(job, "shared")

        def send(indexes):
            list(pool.map(lambda index: apis[index % 4].chunk(job, upload, index, CONTENTS[index]), indexes))

        send((5, 1))
        first, second = workers_of(server)
        os.kill(first, signal.SIGKILL)
        send((0, 4))
        until(lambda: logged(server, "worker exited") and serving_workers(server) == 2, pause_seconds=0.05)
        os.kill(second, signal.SIGKILL)
        send((3, 2))
        apis[2].complete(job, upload, CONTENTS)
        point = apis[3].commit(job)
        assert [api.restored(point) for api in apis] == [{"shared": b"".join(CONTENTS)}] * 4
        assert [line["pid"] for line in logged(server, "worker exited")] == [first, second]
        assert {path.name for path in tmp_path.iterdir()} == {"credentials", "keyring.json", "node.log"}
        assert "no problems found" in cryo(place, "check").stdout


def test_a_node_refuses_a_store_that_was_not_prepared(place, tmp_path):
    """The node creates nothing in it, because the database may belong to another program."""
    cryo(place, "key", "create", "--to", place.keyring)
    for _ in range(2):
        refused = cryo(place, "serve", "--listen", "127.0.0.1:0", code=2)
        assert "hint: prepare the store once: cryo init" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert "holds no catalog" in refused.stderr or "there is no catalog" in refused.stderr


def test_damage_found_by_check_is_reported_to_all_clients(tmp_path):
    """`cryo verify` and `cryo status` get it from a node without reading data. The next backup repairs it."""
    (tmp_path / "source").mkdir()
    for name in ("one", "two"):
        (tmp_path / "source" / name).write_bytes(random.Random(name).randbytes(3_000_000))
    with fresh_place(tmp_path, ON_SERVICES) as place, ExitStack() as opened:
        cryo(place, "init", "--credentials", tmp_path / "credentials")
        server = opened.enter_context(node(place, tmp_path))
        environment = server.environment | {"XDG_STATE_HOME": str(tmp_path / "state")}

        def agent(*arguments):
            command = [*CRYO, *map(str, arguments), "--resource", "tree"]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        assert agent("backup", tmp_path / "source").returncode == 0
        assert agent("verify", "latest").returncode == 0
        with closing(place.open_blobs()) as blobs:
            sizes = {key: blobs.stat(key) for key in blobs.list("packs/")}
            blobs.delete(max(sizes, key=lambda key: (sizes[key], key)))
        cryo(place, "check", code=1)
        verified, seen = agent("verify", "latest"), agent("status", "--max-age", "1h")
        assert (verified.returncode, seen.returncode) == (1, 1)
        assert re.search("one|two", verified.stderr)
        assert "the last good recovery point is damaged" in seen.stdout
        for path in (tmp_path / "source").iterdir():
            path.touch()
        assert agent("backup", tmp_path / "source").returncode == 0
        assert (agent("verify", "latest").returncode, agent("status", "--max-age", "1h").returncode) == (0, 0)


def test_the_catalog_is_rebuilt_from_the_blobs_alone(place, tmp_path):
    """The new catalog is in another, empty place. A process that opens the old one is refused."""
    cryo(place, "init", "--credentials", tmp_path / "credentials", "--region", "eu-7")
    with node(place, tmp_path, name="before") as server, server.client() as client:
        api = Api(client, tmp_path)
        points = [api.backup({"a": b"1" * 5000, "b": b"2"}), api.backup({"b": None, "c": b"3"})]
        assert ":eu-7:" in points[0]
        before = [view(api, api.restore(point)) for point in points]
    (tmp_path / "new").mkdir()
    with fresh_place(tmp_path / "new", ON_SERVICES if place.catalog.startswith("postgresql") else ON_PATHS) as new:
        rebuilt = place._replace(catalog=new.catalog)
        outcome = json.loads(cryo(rebuilt, "rebuild-catalog", "--json").stdout)
        assert (outcome["recovery_points"], outcome["losses"]) == (2, [])
        assert "there is a catalog in" in cryo(rebuilt, "rebuild-catalog", code=2).stderr
        with pytest.raises(ConfigurationError, match="out of date"):
            open_shared_service(place)
        with node(rebuilt, tmp_path, name="after") as server, server.client() as client:
            api = Api(client, tmp_path)
            assert [view(api, api.restore(point)) for point in points] == before
        assert "no problems found" in cryo(rebuilt, "check").stdout
        assert cryo(rebuilt, "init", "--credentials", tmp_path / "credentials").returncode == 0
