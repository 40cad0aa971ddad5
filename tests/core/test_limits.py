"""Limits: a server may lower them, and never raise them."""

from __future__ import annotations

from dataclasses import fields

import pytest

from cryostore.core.limits import MIB, Limits


def test_defaults_are_those_of_the_specification():
    """Backup Storage B.11."""
    limits = Limits()
    assert limits.object_name_bytes_max == 1024
    assert limits.chunk_bytes_max == 64 * MIB
    assert limits.chunks_per_object_max == 10_000_000
    assert limits.metadata_blob_bytes_max == 4 * MIB
    assert limits.metadata_string_bytes_max == 256
    assert limits.metadata_string_inline_bytes_max == 1024
    assert limits.page_items_max == 100
    assert limits.request_head_bytes_max == 32 * 1024


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_each_limit_may_be_lowered_but_not_raised(name):
    """Values from 1 to the default are valid. The error for any other value names the limit."""
    assert getattr(Limits(**{name: 1}), name) == 1
    for value in (0, -1, getattr(Limits(), name) + 1):
        with pytest.raises(ValueError, match=name):
            Limits(**{name: value})
