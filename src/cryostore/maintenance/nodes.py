"""Reports of a node: which master keys it holds, and whether it can use the blobs, beside what the others report.

A process of a shared store tries the blobs and reports from time to time. It is `alone` in its trouble if it cannot
use the blobs and another node can: then the fault is its clock, its credentials or its route, and requests belong
elsewhere. If no node can use the blobs, none is alone: to leave the load balancer would help nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cryostore.catalog import nodes
from cryostore.catalog.nodes import NodeReport
from cryostore.chunks.keyring import KeyringSource
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.maintenance.claims import this_process
from cryostore.service import Context

REPORT_SECONDS = 10.0
TROUBLE_CHARACTERS_MAX = 300


class Node:
    """The node that this process is. `try_blobs` raises CryostoreError if the blobs cannot be used."""

    def __init__(self, context: Context, try_blobs: Callable[[], None], *, name: str = "") -> None:
        self.name = name or this_process()
        self._context = context
        self._try_blobs = try_blobs
        self._failing_since_ms: int | None = None
        self.alone = False
        """Whether this node cannot use the blobs while another one can."""

    def report(self) -> None:
        """Try the blobs, report, and compare. Raises StorageUnavailableError if the catalog is away.

        Raises the error of the blobs, too, when all else is done: it belongs into the log.
        """
        failure: CryostoreError | None = None
        try:
            self._try_blobs()
        except CryostoreError as error:
            failure = error
        trouble = failure.message[:TROUBLE_CHARACTERS_MAX] if failure else ""
        report = NodeReport(self.name, held_keys(self._context), trouble, self._context.clock())
        self._context.database.write(partial(nodes.put, report=report))
        self._compare(report)
        if failure is not None:
            raise failure

    def _compare(self, own: NodeReport) -> None:
        """Find out whether another node has used the blobs since this one first could not."""
        if not own.trouble:
            self._failing_since_ms, self.alone = None, False
            return
        since_ms = self._failing_since_ms = own.seen_ms if self._failing_since_ms is None else self._failing_since_ms
        others = [each for each in live_nodes(self._context) if each.name != self.name]
        self.alone = any(not each.trouble and each.seen_ms > since_ms for each in others)

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


def live_nodes(context: Context) -> list[NodeReport]:
    """The reports that count now."""
    now_ms = context.clock()
    return context.database.read(partial(nodes.live, now_ms=now_ms))


def forget_dead(context: Context) -> None:
    """Remove the reports of nodes that are gone."""
    now_ms = context.clock()
    if context.database.read(partial(nodes.any_dead, now_ms=now_ms)):
        context.database.write(partial(nodes.forget_dead, now_ms=now_ms))
