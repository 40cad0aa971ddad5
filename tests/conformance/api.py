"""Conformance suite of every Call: the behaviour of every operation, in the parts `api_*` beside this file.

A test class is a subclass of a part with a name Test..., in a folder whose `conftest.py` provides a fixture `api`:
a `support.requests.api.Api` over the Call, for a resource that no other test uses.
"""

from __future__ import annotations

from conformance import (
    api_chunks,
    api_commits,
    api_jobs,
    api_objects,
    api_recovery_points,
    api_restore_jobs,
    api_storage_jobs,
    api_vaults,
)

MODULES = (
    api_objects,
    api_chunks,
    api_storage_jobs,
    api_jobs,
    api_commits,
    api_recovery_points,
    api_restore_jobs,
    api_vaults,
)

EVERYWHERE = [
    part
    for module in MODULES
    for name, part in vars(module).items()
    if name.endswith("Tests") and not name.endswith("TimeTests")
]
"""The parts that do not depend on the clock."""

WITH_TIME = [part for module in MODULES for name, part in vars(module).items() if name.endswith("TimeTests")]
"""The parts that need a clock set by the test: `api.clock` and `api.maintain`."""


def classes_to_test(parts):
    """Return a subclass of each part, by the name under which pytest finds it."""
    return {f"Test{part.__name__.removesuffix('Tests')}": _test_class(part) for part in parts}


def _test_class(part):
    return type(f"Test{part.__name__.removesuffix('Tests')}", (part,), {"__doc__": part.__doc__})
