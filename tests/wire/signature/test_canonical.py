"""The canonical request."""

from __future__ import annotations

import pytest
from botocore.utils import normalize_url_path
from hypothesis import given
from hypothesis import strategies as st

from cryostore.wire.signature import canonical

WIRE = st.characters(max_codepoint=255)


def test_it_is_the_text_of_the_specification():
    text = canonical.request_text(
        "PUT",
        canonical.path_text("/backup-jobs/J/object/a%2Fb~ c"),
        "b=2&a=x%2fy&a=1&c",
        [("host", " h "), ("x-amz-date", "20250304T050607Z"), ("x-a", "1  2"), ("x-a", "3\t4"), ("z", "unsigned")],
        ("host", "x-a", "x-amz-date"),
        "HASH",
    )
    assert text == (
        b"PUT\n/backup-jobs/J/object/a%252Fb~%20c\na=1&a=x%2Fy&b=2&c=\n"
        b"host:h\nx-a:1 2,3 4\nx-amz-date:20250304T050607Z\n\nhost;x-a;x-amz-date\nHASH"
    )


def test_no_two_paths_have_a_spelling_in_common():
    paths = ["/~", "/%7E", "/%257E", "/%7e", "/a"]
    spellings = [spelling for path in paths for spelling in canonical.path_spellings(path)]
    assert len(set(spellings)) == len(spellings) == 6


def test_a_header_keeps_the_bytes_that_only_look_like_spaces():
    """0x85 and 0xA0 are spaces to Python and the second half of a character on the wire."""
    values = canonical.header_values([("a", " \xc3\x85  \xc3\xa0 ")], ["a"])
    assert values == {"a": "\xc3\x85 \xc3\xa0"}


@given(st.text(WIRE), st.text(WIRE), st.lists(st.text(WIRE)))
def test_any_request_has_one(path, query, values):
    headers = [("h", value) for value in [*values, "x"]]
    assert canonical.request_text("GET", path, query, headers, ("h",), "HASH").startswith(b"GET\n")


@given(st.lists(st.sampled_from(["", ".", "..", "a", "%2E", "b"]), max_size=8).map("/".join).map("/{}".format))
def test_a_path_is_normalised_as_botocore_does(path):
    assert canonical.normalised_path(path) == normalize_url_path(path)


@pytest.mark.parametrize("query", ["a=1&b=2", "b=2&a=1", "a=%31&b=2", "b=2&%61=1"])
def test_the_habits_of_an_encoder_do_not_matter(query):
    assert canonical.query_text(query) == "a=1&b=2"
