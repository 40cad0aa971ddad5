"""Implementations of Call for tests: the service itself, and a client of it without a socket.

The third, a client over TCP, is `support.processes.serving.RunningServer.client`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryostore.client.client import Client
from cryostore.client.retry import Retry
from cryostore.client.settings import resolve
from cryostore.core.ids import NewId, random_id
from cryostore.core.limits import MIB, Limits
from cryostore.core.time import Clock, wall_clock
from cryostore.model.operation import Call
from cryostore.server.monitoring.log import Log
from cryostore.server.requests.application import Application
from cryostore.server.requests.body import BodyBudget
from cryostore.server.thread_pool import ThreadPool
from cryostore.service import Service
from support.requests.asgi_transport import AsgiTransport

URL = "http://cryostore.test"


class CountedCall:
    """A call that counts its operations by name."""

    def __init__(self, inner: Call) -> None:
        self._inner = inner
        self.counts: Counter[str] = Counter()

    def call(self, operation):
        """Count the operation, and carry it out."""
        self.counts[type(operation).__name__] += 1
        return self._inner.call(operation)


def root_settings(data_dir: Path):
    """Return client settings with the root access key of a store."""
    return resolve({"AWS_SHARED_CREDENTIALS_FILE": str(data_dir / "credentials")}, endpoint_url=URL)


def in_process(service: Service, data_dir: Path) -> Call:
    """Return the service itself, called with the root access key of its store."""
    access_key_id = root_settings(data_dir).credentials.access_key_id
    return service.as_caller(service.access.caller(access_key_id))


@contextmanager
def over_asgi(
    service: Service,
    data_dir: Path,
    *,
    clock: Clock = wall_clock,
    new_id: NewId = random_id,
    limits: Limits | None = None,
    sleep: Callable[[float], None] = lambda _: None,
) -> Iterator[Client]:
    """A client whose requests go through the complete server, except the socket. By default its retries do not wait."""
    settings = root_settings(data_dir)
    pool = ThreadPool(4)
    with (data_dir.parent / "asgi.log").open("ab", buffering=0) as log_file:
        log = Log(log_file.fileno(), clock=clock)
        application = Application(
            service,
            pool=pool,
            budget=BodyBudget(256 * MIB, wait_seconds_max=5),
            log=log,
            clock=clock,
            new_id=new_id,
            limits=limits or Limits(),
        )
        transport = AsgiTransport(application)
        try:
            with Client(
                URL, settings.region, settings.credentials, transport=transport, retry=Retry(sleep=sleep), now=clock
            ) as client:
                yield client
        finally:
            transport.close()
            pool.close(wait_seconds_max=5)
            log.close()
