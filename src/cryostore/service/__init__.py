"""What each operation means: no HTTP, no SQL text, no paths of files. One file per noun, one function per operation."""

from __future__ import annotations

from cryostore.service.context import Caller, Context
from cryostore.service.handlers import HANDLERS
from cryostore.service.service import CallAs, Service
from cryostore.service.settings import Settings

__all__ = ["HANDLERS", "CallAs", "Caller", "Context", "Service", "Settings"]
