"""The behaviour of every operation, without HTTP, SQL text or file paths."""

from __future__ import annotations

from cryostore.service.context import Caller, Context
from cryostore.service.service import HANDLERS, CallAs, Service
from cryostore.service.settings import Settings

__all__ = ["HANDLERS", "CallAs", "Caller", "Context", "Service", "Settings"]
