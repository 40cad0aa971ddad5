"""The reserve as time passes: taken back as soon as there is room, so that ordinary writes are taken again."""

from __future__ import annotations

from cryostore.service import Context


def keep(context: Context) -> None:
    """Take the reserve back if it was given up; let go of what other processes deleted, or its room never comes back.

    Raises StorageUnavailableError.
    """
    context.store.forget_deleted()
    context.reserve.take_back()
