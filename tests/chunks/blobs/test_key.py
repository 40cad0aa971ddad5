"""Valid and invalid blob keys, in addition to those of the conformance suite."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.blobstore import HONEST_KEYS, HOSTILE_KEYS
from cryostore.chunks.blobs.key import check_key


@given(st.text(alphabet="aZ09._-/~ \\\0\n", max_size=12))
def test_every_valid_key_stays_below_the_root(text):
    """Every valid key is a relative path without dot segments, and unchanged by normalisation."""
    try:
        check_key(text)
    except ValueError:
        return
    path = PurePosixPath(text)
    assert not path.is_absolute()
    assert str(path) == text
    assert not {".", ".."} & set(text.split("/"))
    assert "" not in text.split("/")


@given(st.lists(st.text("aZ09_-", min_size=1, max_size=5), min_size=1, max_size=4))
def test_plain_segments_form_a_key(segments):
    key = "/".join(segments)
    assert check_key(key) == key


def test_the_error_does_not_repeat_a_huge_key():
    with pytest.raises(ValueError, match="not a blob key") as caught:
        check_key("x" * 100_000)
    assert len(str(caught.value)) < 200


def test_the_shared_lists_are_disjoint():
    assert not set(HONEST_KEYS) & set(HOSTILE_KEYS)
