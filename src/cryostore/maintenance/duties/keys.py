"""Keys as time passes: those of deleted vaults leave the memory of every process."""

from __future__ import annotations

from cryostore.service import Context


def drop_destroyed(context: Context) -> None:
    """Forget the data keys that another process has destroyed."""
    context.keys.drop_destroyed()
