"""Damage that the store knows: damaged chunks, and servers that do not list them."""

from __future__ import annotations

import pytest

from cryostore.agent.archive.recovery_points import RecoveryPoint
from cryostore.agent.verification.archive_check import KnownDamage, fetch_known_damage, is_damaged
from cryostore.model.errors import AccessDeniedException, ServiceUnavailableException, UnknownOperationException

COVERS = ("agent/verification/archive_check.py",)


class Failing:
    """A server that answers each call with an error."""

    def __init__(self, error):
        self.error = error

    def call(self, operation):
        raise self.error


POINT = RecoveryPoint(recovery_point_arn="arn", backup_vault_name="Default")


def test_damaged_chunks_are_found_by_object_and_index():
    damage = KnownDamage()
    damage.add("content-00000001", 3)
    damage.add("catalog", None)
    assert damage.contains("content-00000001", 3)
    assert not damage.contains("content-00000001", 4)
    assert not damage.contains("catalog", 0)
    assert damage.count == 2


@pytest.mark.parametrize("kind", [AccessDeniedException, UnknownOperationException])
def test_a_server_that_does_not_answer_leaves_damage_unknown(kind):
    call = Failing(kind("no"))
    assert not fetch_known_damage(call, POINT).is_known
    assert is_damaged(call, POINT) is None


def test_any_other_error_is_raised():
    with pytest.raises(ServiceUnavailableException):
        fetch_known_damage(Failing(ServiceUnavailableException("away")), POINT)
