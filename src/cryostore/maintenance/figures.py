"""Figures of the store as a whole, for whoever watches it."""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog import claims, damage, recovery_points
from cryostore.catalog.database import Transaction
from cryostore.core.time import seconds
from cryostore.maintenance.claims import COLLECTION
from cryostore.maintenance.collection import Marking
from cryostore.service import Context


class Figures(NamedTuple):
    """`collected_seconds`: when garbage collection last came to its end, 0 if it never did."""

    recovery_points: int
    chunks_damaged: int
    collected_seconds: float
    collection_passes: int
    collection_false_share: float


def figures(context: Context) -> Figures:
    """The figures now: one pass over the recovery points, and one over what is damaged."""

    def work(transaction: Transaction) -> Figures:
        collection = claims.find(transaction, COLLECTION)
        return Figures(
            recovery_points.count(transaction),
            damage.count(transaction),
            seconds(collection.finished_ms),
            *Marking.of_place(collection.place),
        )

    return context.database.read(work)
