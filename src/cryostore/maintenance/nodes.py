"""Reports of a node: which master keys it holds, and whether it can use the blobs, beside what the others report.

A process of a shared store tries the blobs and reports from time to time. It is `alone` in its trouble if it cannot
use the blobs and another node can: then the fault is its clock, its credentials or its route, and requests belong
elsewhere. If no node can use the blobs, none is alone: to leave the load balancer would help nobody.

A node also lacks a key if something in the catalog is wrapped with it, and another node holds that key and all the
needed keys that this node holds. A key that no node holds, or that only half of an exchange would bring, changes
nothing: some requests are then answered here alone.

A blob store that does not answer for 10 seconds counts as trouble at once, however long its client goes on trying: a
node with a dead route leaves within a minute.
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
    """One try of the blobs, which may take longer than anybody waits for it. `error` is what it ended with."""

    def __init__(self, try_blobs: Callable[[], None]) -> None:
        super().__init__(name="trial of the blobs", daemon=True)
        self._try_blobs = try_blobs
        self.error: Exception | None = None

    def run(self) -> None:
        """Make it."""
        try:
            self._try_blobs()
        except Exception as error:  # noqa: BLE001 - raised where the report is made
            self.error = error


class Node:
    """The node that this process is. `try_blobs` raises CryostoreError if the blobs cannot be used."""

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
        """Whether this node cannot use the blobs while another one can."""
        self.lacking_key: str | None = None
        """The id of a needed master key that this node lacks while another one could take its place."""

    def report(self) -> None:
        """Try the blobs, report, and compare. Raises StorageUnavailableError if the catalog is away.

        Raises the error of the blobs, or KeyMissingError, too, when all else is done: it belongs into the log.
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
        """Try the blobs; answers why they cannot be used, None if they can. A trial that still runs is gone on with."""
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
        """Find out whether another node has used the blobs since this one first could not."""
        if not own.trouble:
            self._failing_since_ms, self.alone = None, False
            return
        since_ms = self._failing_since_ms = own.seen_ms if self._failing_since_ms is None else self._failing_since_ms
        self.alone = any(not each.trouble and each.seen_ms > since_ms for each in others)

    def _find_lacking_key(self, own: NodeReport, others: list[NodeReport]) -> str | None:
        """See `lacking_key`. Looks into the catalog only if another node holds a key that this one lacks."""
        if all(each.keys <= own.keys for each in others):
            return None
        needed = needed_keys(self._context)
        ours = {key_id for key_id in needed if key_id in own.keys or self._has(key_id)}
        for each in others:
            if ours < (theirs := needed & each.keys):
                return min(theirs - ours)
        return None

    def _has(self, key_id: str) -> bool:
        """Whether the keyring has a key, in memory too while its place cannot be read."""
        try:
            self._context.keys.keyring.key(key_id)
        except KeyUnavailableError:
            return False
        return True

    def leave(self) -> None:
        """Report no more. Raises StorageUnavailableError."""
        self._context.database.write(partial(nodes.leave, name=self.name))


def held_keys(context: Context) -> frozenset[str]:
    """The ids of the master keys that this process holds."""
    source = context.keys.keyring.source
    if not isinstance(source, KeyringSource):
        return frozenset()
    try:
        return frozenset(source.document().keys)
    except ConfigurationError:
        return frozenset()  # it cannot be read now, so nobody may count on it


def needed_keys(context: Context) -> frozenset[str]:
    """The ids of the master keys that have wrapped anything in the catalog."""
    return frozenset(
        wrapped_by(row.wrapped) for table in WRAPPED for rows in wrapped_pages(context, table) for row in rows
    )


def live_nodes(context: Context) -> list[NodeReport]:
    """The reports that count now."""
    now_ms = context.clock()
    return context.database.read(partial(nodes.live, now_ms=now_ms))


def forget_dead(context: Context) -> None:
    """Remove the reports of nodes that are gone."""
    now_ms = context.clock()
    if context.database.read(partial(nodes.any_dead, now_ms=now_ms)):
        context.database.write(partial(nodes.forget_dead, now_ms=now_ms))
