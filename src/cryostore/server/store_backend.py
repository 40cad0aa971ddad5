"""The backend of `cryo serve`: a Cryostore service with the periodic duties that a server owes it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from cryostore.core.errors import ConfigurationError, KeyMissingError, StorageUnavailableError
from cryostore.core.ids import NewId
from cryostore.core.time import Clock
from cryostore.maintenance.background_tasks import (
    ScheduledGarbageCollection,
    ScheduledScrub,
    ScheduledTasks,
    restore_reserve,
)
from cryostore.maintenance.nodes import Node
from cryostore.maintenance.store_statistics import StoreStatistics, store_statistics
from cryostore.model.operation import Operation
from cryostore.options.configuration import Configuration
from cryostore.server.backend import AccessKeys, Backend
from cryostore.server.monitoring.log import Log
from cryostore.server.monitoring.metrics import Meter
from cryostore.service import Service
from cryostore.service.opening.open import open_service
from cryostore.service.opening.open_shared import open_shared_service
from cryostore.service.opening.shared_store import SharedStoreAddress
from cryostore.service.settings import Settings

STDERR = 2
STORAGE_COUNTERS = ("chunks_stored", "bytes_stored", "chunks_shared", "bytes_shared")


class OpenBackend(Protocol):
    """Opens the backend on the store that a configuration names."""

    def __call__(self, configuration: Configuration, *, clock: Clock, new_id: NewId) -> Backend:
        """Open the store; initialise a new data directory. Raises CryostoreError."""
        ...


class StoreBackend:
    """The backend on an open service. `node` is this process among the nodes of a shared store; it has reported."""

    def __init__(self, service: Service, node: Node | None = None) -> None:
        self._service = service
        self._node = node
        self._key_away = False
        self._published: dict[str, float] = dict.fromkeys(STORAGE_COUNTERS, 0)
        self._figures: StoreStatistics | None = None
        self._catalog_away = False
        self._tasks = ScheduledTasks(service)
        self._garbage_collection = ScheduledGarbageCollection(service.context)
        self._scrub = ScheduledScrub(service.context)
        self.access: AccessKeys = service.access

    def call(self, operation: Operation[Any], caller: Any) -> Any:
        """See Backend."""
        return self._service.call(operation, caller)

    @property
    def takes_writes(self) -> bool:
        """See Backend."""
        return self._service.context.reserve.held

    def publish(self, meter: Meter) -> None:
        """See Backend."""
        for name in STORAGE_COUNTERS:
            before, now = self._published[name], getattr(self._service.context.tally, name)
            if now != before:
                meter.add(name, now - before)
                self._published[name] = now
        for part, traffic in self._service.context.tally.traffic.items():
            for number, now in traffic.numbers().items():
                name = f"{part} {number}"
                if more := now - self._published.get(name, 0):
                    meter.add(name, more)
                    self._published[name] = now
        meter.show(
            catalog_connections=getattr(self._service.context.database, "connections", 0),
            store_away=self._catalog_away or self._service.outdated,
            key_away=self._key_away or (self._node is not None and self._node.lacking_key is not None),
            blobs_away=self._node is not None and self._node.alone,
        )
        seen, self._figures = self._figures, None
        if seen is not None:
            meter.show_store(**seen._asdict())

    @property
    def clock(self) -> Clock:
        """See Backend."""
        return self._service.context.clock

    def recover(self) -> None:
        """See Backend."""
        context = self._service.context
        context.store.forget_deleted()
        if not self.takes_writes:
            restore_reserve(context)
        self._check_catalog_and_key()

    def report(self) -> None:
        """See Backend."""
        if self._node is not None:
            self._node.report()

    def _check_catalog_and_key(self) -> None:
        """Note whether the catalog answers and the keyring has the key in use: if not, this worker is not ready."""
        keyring = self._service.context.keys.keyring
        try:
            keyring.active()
        except StorageUnavailableError:
            self._catalog_away = True
            raise
        except KeyMissingError:
            self._catalog_away, self._key_away = False, True
            raise
        self._catalog_away = self._key_away = False

    def maintain(self) -> None:
        """Do a round of duties, and a share of garbage collection and scrubbing if this process holds the claim."""
        self._service.check_still_current()
        try:
            self._tasks.run_if_due()
        finally:
            try:
                self._garbage_collection.run_if_due()
            finally:
                self._scrub.run_if_due()
            self._figures = store_statistics(self._service.context)

    def close(self) -> None:
        """See Backend."""
        if self._node is not None:
            with contextlib.suppress(StorageUnavailableError):  # the last report of this node then becomes stale
                self._node.leave()
        self._service.close()


def open_store_backend(configuration: Configuration, *, clock: Clock, new_id: NewId) -> StoreBackend:
    """Open the store that `configuration` names. A shared store uses the time of its catalog instead of `clock`.

    Raises CryostoreError.
    """
    settings = replace(configuration.settings, reserve_bytes=configuration.reserve_bytes)
    if configuration.data_dir is None:
        shared = _open_shared(configuration, settings, new_id)
        node = Node(shared.context, shared.try_blobs)
        with contextlib.suppress(StorageUnavailableError, KeyMissingError):  # retried and logged later
            node.report()
        return StoreBackend(shared, node)
    data_dir = configuration.data_dir

    def on_keyring_created(path: Path) -> None:
        log = Log(STDERR, clock=clock)  # at any log level: a store says this once in its life
        log.write("info", f"made the keyring {path.resolve()}: without it nothing in {data_dir} can be read")
        log.write("info", "losing it loses every backup: keep a copy away from the data (`cryo key export --help`)")
        log.close()

    service = open_service(
        data_dir,
        keyring=configuration.keyring,
        clock=clock,
        new_id=new_id,
        limits=configuration.limits,
        settings=settings,
        on_keyring_created=on_keyring_created,
    )
    return StoreBackend(service)


def _open_shared(configuration: Configuration, settings: Settings, new_id: NewId) -> Service:
    """Open a shared store. Its own region is the only one that signatures can be required to name."""
    address = SharedStoreAddress(configuration.catalog or "", configuration.blobs or "", configuration.keyring or "")
    service = open_shared_service(address, new_id=new_id, limits=configuration.limits, settings=settings)
    region = service.context.settings.region
    if configuration.region not in (None, region):
        service.close()
        raise ConfigurationError(
            f"--region is {configuration.region}, and the store's region is {region}",
            hint="it is the same on all nodes, and was chosen by `cryo init`",
        )
    return service
