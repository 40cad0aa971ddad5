"""Keyring documents: valid and invalid ones, and no secret in any error."""

from __future__ import annotations

import base64
import json
import traceback

import pytest

from cryostore.chunks.keyring.document import DOCUMENT_BYTES_MAX, KeyringDocument, NoDocumentError, decode, decode_text
from cryostore.chunks.keyring.master_key import MasterKey
from support.project import ROOT
from support.stores.keyrings import BOTH, NEW, OLD, OLD_ALONE

SECRET = base64.b64encode(bytes(range(32))).decode()
GOLDEN = ROOT / "tests" / "golden" / "keyring.json"

NO_DOCUMENTS = [
    "", "{", "[]", "null", "7", {}, {"keys": {}}, {"active": "a", "keys": {}}, {"active": "a", "keys": []},
    {"active": "b", "keys": {"a": SECRET}}, {"active": "a", "keys": {"a": "short"}}, {"keys": {"a": SECRET}},
    {"active": "a", "keys": {"a": 7}}, {"active": "a", "keys": {"a": SECRET + "!"}}, {"active": [], "keys": {}},
    {"active": "", "keys": {"": SECRET}}, {"active": "x" * 256, "keys": {"x" * 256: SECRET}}, "[" * 100_000,
    {"active": "\ud800", "keys": {"\ud800": SECRET}},
    f'{{"active": "a", "keys": {{"a": "{SECRET}", "a": "{SECRET}"}}}}',
]  # fmt: skip


def test_the_golden_document_is_read_and_written():
    """A keyring file of the first version still reads, and today's files are the same."""
    assert decode(GOLDEN.read_bytes()).is_same(BOTH)
    assert BOTH.encode() == GOLDEN.read_bytes()


def test_unknown_members_are_ignored():
    document = json.loads(BOTH.encode()) | {"later": {"more": 1}}
    assert decode(json.dumps(document).encode()).is_same(BOTH)


@pytest.mark.parametrize("document", NO_DOCUMENTS, ids=lambda one: repr(one)[:40])
def test_invalid_documents_are_refused_and_not_repeated(document):
    data = (document if isinstance(document, str) else json.dumps(document)).encode()
    for reader in (decode, decode_text):
        with pytest.raises(NoDocumentError) as caught:
            reader(data)
        assert SECRET[:10] not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_document_cut_short_anywhere_is_refused():
    data = BOTH.encode().rstrip()
    for end in range(len(data)):
        with pytest.raises(NoDocumentError):
            decode(data[:end])


def test_a_document_that_is_far_too_long_is_refused():
    with pytest.raises(NoDocumentError):
        decode(BOTH.encode() + b" " * DOCUMENT_BYTES_MAX)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"not base64!", base64.b64encode(b"{}"), b"\x00" * 50])
def test_bytes_of_any_other_kind_are_refused(data):
    with pytest.raises(NoDocumentError):
        decode_text(data)


def test_a_document_as_text_is_json_or_base64_of_it():
    data = BOTH.encode()
    for text in (data, b"\n" + data, base64.b64encode(data), base64.encodebytes(data) + b"\n"):
        assert decode_text(text).is_same(BOTH)


def test_a_document_grows_and_shrinks():
    more = OLD_ALONE.with_new_key("third")
    assert more.active.key_id == "third"
    assert set(more.keys) == {"old", "third"}
    assert more.without("old").keys.keys() == {"third"}
    assert OLD_ALONE.keys == {"old": OLD}


@pytest.mark.parametrize(
    "other",
    [
        OLD_ALONE,
        KeyringDocument(OLD, {"old": OLD, "new": NEW}),
        KeyringDocument(NEW, {"new": NEW, "old": MasterKey("old", bytes(32))}),
    ],
)
def test_documents_that_differ(other):
    assert not BOTH.is_same(other)
    assert not other.is_same(BOTH)


def test_no_repr_shows_a_secret():
    assert repr(bytes(range(32)))[2:10] not in repr(BOTH)
    assert SECRET[:10] not in repr(BOTH)
