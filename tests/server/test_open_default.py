"""How a worker opens the store that its configuration names."""

from __future__ import annotations

import pytest

from cryostore.core.errors import ConfigurationError
from cryostore.core.ids import random_id
from cryostore.core.limits import Limits
from cryostore.core.time import FrozenClock, wall_clock
from cryostore.options.configuration import Configuration
from cryostore.server.worker import open_default
from cryostore.service.settings import Settings
from support.shared_store import prepared


def opened(configuration, clock=wall_clock):
    """The service, closed, and the context it had."""
    service = open_default(configuration, clock=clock, new_id=random_id)
    service.close()
    return service, service._service.context


def test_a_directory(tmp_path):
    """It goes by the server's clock, and has a reserve."""
    clock, settings = FrozenClock(), Settings(quarantine_ms=5)
    configuration = Configuration(data_dir=tmp_path / "data", settings=settings, reserve_bytes=4096)
    service, context = opened(configuration, clock)
    assert service.clock is clock
    assert (context.settings.quarantine_ms, context.settings.reserve_bytes) == (5, 4096)
    assert context.settings.region == "local-1"


def test_a_shared_store(tmp_path):
    """It goes by the catalog's clock, has the region it was made with, and no reserve."""
    with prepared(tmp_path, region="eu-1") as place:
        named = {"data_dir": None} | place._asdict()
        settings = Settings(quarantine_ms=5, region="elsewhere")
        limits = Limits(page_items_max=7)
        service, context = opened(Configuration(settings=settings, limits=limits, **named), FrozenClock())
        assert service.clock is context.clock is wall_clock
        assert (context.settings.quarantine_ms, context.settings.reserve_bytes) == (5, 0)
        assert (context.settings.region, context.limits) == ("eu-1", limits)
        opened(Configuration(region="eu-1", **named))
        with pytest.raises(ConfigurationError, match="the store's region is eu-1"):
            open_default(Configuration(region="eu-2", **named), clock=wall_clock, new_id=random_id)
