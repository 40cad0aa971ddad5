"""Health reports of the nodes of a shared store: the master keys they hold, and whether they can use the blob store.

Each node tries the blob store, writes its report to the catalog, and compares it with the reports of the other nodes:

- A node is `alone` if it cannot use the blob store and another node can. Then its clock, its credentials or its route
  is at fault, and the load balancer should send requests elsewhere. If no node can use the blob store, none is alone:
  leaving the load balancer would help nobody.
- A node lacks a key if the catalog holds something that is wrapped with it, and another node holds that key and all
  needed keys of this node. A key that no node holds does not count. Nor does a key whose holders lack keys that this
  node has: some requests can be answered only here then.
- A blob store that does not answer for 10 seconds counts as unusable at once, however long its client keeps trying. So
  a node with a dead route leaves the load balancer within a minute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from cryostore.catalog.processes import nodes
from cryostore.catalog.processes.nodes import NodeReport
from cryostore.catalog.rows.keys import WRAPPED
from cryostore.chunks.keyring import KeyringSource
from cryostore.core.errors import (
    ConfigurationError,
    CryostoreError,
    KeyMissingError,
    KeyUnavailableError,
    StorageUnavailableError,
)
from cryostore.maintenance.claims import this_process
from cryostore.maintenance.key_uses import wrapped_by, wrapped_pages
from cryostore.service import Context

REPORT_SECONDS = 10.0
TRY_SECONDS_MAX = 10.0
TROUBLE_CHARACTERS_MAX = 300


class _Trial(threading.Thread):
    """One try of the blob store in a thread, since it may take very long. `error` is set when it has failed."""

    def __init__(self, try_blobs: Callable[[], None]) -> None:
        super().__init__(name="trial of the blobs", daemon=True)
        self._try_blobs = try_blobs
        self.error: Exception | None = None

    def run(self) -> None:
        """Try the blob store."""
        try:
            self._try_blobs()
        except Exception as error:  # noqa: BLE001 - raised where the report is made
            self.error = error


class Node:
    """A process of a shared store. `try_blobs` raises CryostoreError if the blob store cannot be used."""

    def __init__(
        self,
        context: Context,
        try_blobs: Callable[[], None],
        *,
        name: str = "",
        try_seconds_max: float = TRY_SECONDS_MAX,
    ) -> None:
        self.name = name or this_process()
        self._context = context
        self._try_blobs = try_blobs
        self._try_seconds_max = try_seconds_max
        self._trial: _Trial | None = None
        self._failing_since_ms: int | None = None
        self.alone = False
        """Whether this node cannot use the blob store while another node can."""
        self.lacking_key: str | None = None
        """The id of a needed master key that this node lacks while another node holds all that this node holds."""

    def report(self) -> None:
        """Try the blob store, write the report, and compare it. Raises StorageUnavailableError without a catalog.

        At the end it raises the error of the blob store or a KeyMissingError, so that the caller can log it.
        """
        failure = self._failure()
        trouble = failure.message[:TROUBLE_CHARACTERS_MAX] if failure else ""
        report = NodeReport(self.name, held_keys(self._context), trouble, self._context.clock())
        self._context.database.write(partial(nodes.put, report=report))
        others = [each for each in live_nodes(self._context) if each.name != self.name]
        self._compare(report, others)
        self.lacking_key = self._find_lacking_key(report, others)
        if failure is not None:
            raise failure
        if self.lacking_key is not None:
            raise KeyMissingError(self.lacking_key)

    def _failure(self) -> CryostoreError | None:
        """Try the blob store, or wait for the try that still runs. Returns its error, None if it succeeded."""
        trial = self._trial
        if trial is None:
            trial = self._trial = _Trial(self._try_blobs)
            trial.start()
        trial.join(self._try_seconds_max)
        if trial.is_alive():
            return StorageUnavailableError(
                f"the blob store has not answered for {self._try_seconds_max:.0f} s", part="blobs"
            )
        self._trial = None
        if trial.error is not None and not isinstance(trial.error, CryostoreError):
            raise trial.error
        return trial.error

    def _compare(self, own: NodeReport, others: list[NodeReport]) -> None:
        """Find out whether another node has used the blob store since this node first could not."""
        if not own.trouble:
            self._failing_since_ms, self.alone = None, False
            return
        since_ms = self._failing_since_ms = own.seen_ms if self._failing_since_ms is None else self._failing_since_ms
        self.alone = any(not each.trouble and each.seen_ms > since_ms for each in others)

    def _find_lacking_key(self, own: NodeReport, others: list[NodeReport]) -> str | None:
        """Return `lacking_key`. Reads the catalog only if another node holds a key that this node lacks."""
        if all(each.keys <= own.keys for each in others):
            return None
        needed = needed_keys(self._context)
        ours = {key_id for key_id in needed if key_id in own.keys or self._has(key_id)}
        for each in others:
            if ours < (theirs := needed & each.keys):
                return min(theirs - ours)
        return None

    def _has(self, key_id: str) -> bool:
        """Whether the keyring has a key; a key in memory counts even while the keyring cannot be read."""
        try:
            self._context.keys.keyring.key(key_id)
        except KeyUnavailableError:
            return False
        return True

    def leave(self) -> None:
        """Remove the report of this node. Raises StorageUnavailableError."""
        self._context.database.write(partial(nodes.leave, name=self.name))


def held_keys(context: Context) -> frozenset[str]:
    """Return the ids of the master keys that this process can read now."""
    source = context.keys.keyring.source
    if not isinstance(source, KeyringSource):
        return frozenset()
    try:
        return frozenset(source.document().keys)
    except ConfigurationError:
        return frozenset()  # the keyring cannot be read now, so other nodes must not count on it


def needed_keys(context: Context) -> frozenset[str]:
    """Return the ids of the master keys that wrap anything in the catalog."""
    return frozenset(
        wrapped_by(row.wrapped) for table in WRAPPED for rows in wrapped_pages(context, table) for row in rows
    )


def live_nodes(context: Context) -> list[NodeReport]:
    """Return the reports of all live nodes."""
    now_ms = context.clock()
    return context.database.read(partial(nodes.live, now_ms=now_ms))


def forget_dead(context: Context) -> None:
    """Remove the reports of dead nodes."""
    now_ms = context.clock()
    if context.database.read(partial(nodes.any_dead, now_ms=now_ms)):
        context.database.write(partial(nodes.forget_dead, now_ms=now_ms))
