"""Recovery points of the service in process."""

from __future__ import annotations

from conformance import api_recovery_points


class TestRecoveryPoint(api_recovery_points.RecoveryPointTests):
    pass


class TestRecoveryPointList(api_recovery_points.RecoveryPointListTests):
    pass
