"""Cryostore: a backup storage service that speaks the AWS Backup Storage and AWS Backup APIs.

This module holds the version, and `backupstorage` (the nine functions of the API) imported at first use, so that
`cryo --version` starts quickly.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryostore.client import backupstorage

__all__ = ["__version__", "backupstorage"]
__version__ = "0.1.0"

if not TYPE_CHECKING:  # a type checker would take __getattr__ to answer any name

    def __getattr__(name: str) -> object:
        if name == "backupstorage":
            from cryostore.client import backupstorage  # noqa: PLC0415 - loads all of the client

            return backupstorage
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
