"""Identifiers: random ones in the form of AWS, and counted ones for tests."""

from __future__ import annotations

import uuid

from cryostore.core.ids import counting_ids, random_id


def test_random_ids_are_upper_case_uuids_and_differ():
    """They have the form of job ids of AWS Backup."""
    first, second = random_id(), random_id()
    assert first != second
    assert str(uuid.UUID(first)).upper() == first


def test_counting_ids_count():
    """Golden files need the same ids each time."""
    new_id = counting_ids(255)
    assert [new_id(), new_id()] == ["00000000-0000-4000-8000-0000000000FF", "00000000-0000-4000-8000-000000000100"]
