"""Maps of strings that callers send."""

from __future__ import annotations

import pytest

from cryostore.model.errors import IllegalArgumentException
from cryostore.service.operations.text_maps import check_map, map_bytes, parse_map


def test_bytes_are_counted_in_utf8_for_keys_and_values():
    assert map_bytes("Tags", {"ä": "bc", "d": ""}, IllegalArgumentException) == 5
    assert map_bytes("Tags", {}, IllegalArgumentException) == 0


@pytest.mark.parametrize("texts", [{"\ud800": "secret"}, {"key": "secret\ud800"}])
def test_invalid_unicode_is_refused_and_no_value_is_shown(texts):
    with pytest.raises(IllegalArgumentException, match="^Tags: keys and values must be valid UTF-8$"):
        map_bytes("Tags", texts, IllegalArgumentException)


def test_the_limit_is_included():
    check_map("Tags", {"a": "b"}, 2, IllegalArgumentException)
    with pytest.raises(IllegalArgumentException, match="Tags: 2 bytes must be at most 1"):
        check_map("Tags", {"a": "b"}, 1, IllegalArgumentException)


def test_a_map_is_read_back_from_its_json():
    assert parse_map('{"a": "b"}') == {"a": "b"}
