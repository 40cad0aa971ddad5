"""Wrapped keys, and keyring documents as JSON and on paper: valid and invalid ones. No error shows a secret."""

from __future__ import annotations

import base64
import json
import random
import traceback

import pytest

from cryostore.chunks.keyring import MasterKey, unwrap, wrapped_key_id
from cryostore.chunks.keyring.master_keys import (
    DOCUMENT_BYTES_MAX,
    PAPER_TITLE,
    KeyringDocument,
    NoDocumentError,
    decode,
    decode_text,
    is_paper,
    print_paper,
    read_paper,
)
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from support.project import ROOT
from support.stores.keyrings import BOTH, NEW, OLD, OLD_ALONE
from support.stores.memory_keyring import MemoryKeyring

SECRET = base64.b64encode(bytes(range(32))).decode()
GOLDEN = ROOT / "tests" / "golden" / "keyring.json"
GOLDEN_PAPER = ROOT / "tests" / "golden" / "keyring-paper.txt"

NO_DOCUMENTS = [
    "", "{", "[]", "null", "7", {}, {"keys": {}}, {"active": "a", "keys": {}}, {"active": "a", "keys": []},
    {"active": "b", "keys": {"a": SECRET}}, {"active": "a", "keys": {"a": "short"}}, {"keys": {"a": SECRET}},
    {"active": "a", "keys": {"a": 7}}, {"active": "a", "keys": {"a": SECRET + "!"}}, {"active": [], "keys": {}},
    {"active": "", "keys": {"": SECRET}}, {"active": "x" * 256, "keys": {"x" * 256: SECRET}}, "[" * 100_000,
    {"active": "\ud800", "keys": {"\ud800": SECRET}},
    f'{{"active": "a", "keys": {{"a": "{SECRET}", "a": "{SECRET}"}}}}',
]  # fmt: skip


def test_the_golden_document_is_read_and_written():
    """A keyring file of the first version can be read, and current files have the same bytes."""
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


def test_a_truncated_document_is_refused():
    data = BOTH.encode().rstrip()
    for end in range(len(data)):
        with pytest.raises(NoDocumentError):
            decode(data[:end])


def test_an_oversized_document_is_refused():
    with pytest.raises(NoDocumentError):
        decode(BOTH.encode() + b" " * DOCUMENT_BYTES_MAX)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"not base64!", base64.b64encode(b"{}"), b"\x00" * 50])
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(NoDocumentError):
        decode_text(data)


def test_a_document_as_text_is_json_or_base64_of_it():
    data = BOTH.encode()
    for text in (data, b"\n" + data, base64.b64encode(data), base64.encodebytes(data) + b"\n"):
        assert decode_text(text).is_same(BOTH)


def test_keys_are_added_to_and_removed_from_a_document():
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
def test_different_documents_are_not_the_same(other):
    assert not BOTH.is_same(other)
    assert not other.is_same(BOTH)


def test_no_repr_shows_a_secret():
    assert repr(bytes(range(32)))[2:10] not in repr(BOTH)
    assert SECRET[:10] not in repr(BOTH)


def lines_of(document):
    """Return the lines that a person has to type."""
    return print_paper(document).partition(PAPER_TITLE)[2].strip().splitlines()


def paper_of(lines):
    return "\n".join([PAPER_TITLE, *lines]).encode()


def test_the_golden_paper_is_read_and_printed():
    """A paper of an earlier version can be read."""
    assert read_paper(GOLDEN_PAPER.read_bytes()).is_same(BOTH)
    assert print_paper(BOTH) == GOLDEN_PAPER.read_text()


@pytest.mark.parametrize("count", range(1, 9))
def test_a_printed_keyring_can_be_read(count):
    keys = {
        f"key {number} ☃"[: number + 5]: MasterKey.generate(f"key {number} ☃"[: number + 5]) for number in range(count)
    }
    document = KeyringDocument(next(reversed(keys.values())), keys)
    assert read_paper(print_paper(document).encode()).is_same(document)


def test_lines_are_short_and_ascii():
    text = print_paper(OLD_ALONE)
    assert max(map(len, text.splitlines())) < 110
    assert text.isascii()


def test_spaces_case_and_similar_characters_do_not_matter():
    for text in (
        "\n\n".join(line.lower().replace("  ", " ") for line in lines_of(BOTH)),
        "\n".join(f" {line[:3]} {line[3:].replace(' ', '')} " for line in lines_of(BOTH)),
        "\n".join(line[:4] + line[4:].replace("O", "0").replace("I", "1").replace("B", "8") for line in lines_of(BOTH)),
        "\r\n".join(lines_of(BOTH)),
    ):
        assert read_paper(f"my notes\n{PAPER_TITLE.lower()}\n{text}\nmore".encode()).is_same(BOTH)


def test_every_wrong_letter_is_found_in_its_line():
    """The error does not repeat the input, because most of it is correct."""
    generator = random.Random(1)
    for number, line in enumerate(lines_of(BOTH)):
        for place in range(4, len(line)):
            if line[place] == " ":
                continue
            wrong = generator.choice([letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" if letter != line[place]])
            lines = lines_of(BOTH)
            lines[number] = line[:place] + wrong + line[place + 1 :]
            with pytest.raises(ConfigurationError) as caught:
                read_paper(paper_of(lines))
            is_end = line.startswith("END")
            assert caught.value.message.startswith("the lines do not match" if is_end else f"line {number + 1:02d} ")
            assert line[4:13] not in caught.value.message + caught.value.hint


def test_swapped_letters_are_found():
    lines = lines_of(BOTH)
    first = lines[0]
    lines[0] = first[:4] + first[9:13] + first[8] + first[4:8] + first[13:]
    with pytest.raises(ConfigurationError, match="line 01"):
        read_paper(paper_of(lines))


@pytest.mark.parametrize("change", ["missing", "swapped", "twice", "no end", "cut", "empty"])
def test_missing_and_misplaced_lines_are_found(change):
    lines = lines_of(BOTH)
    changed = {
        "missing": [*lines[:1], *lines[2:]],
        "swapped": [lines[1], lines[0], *lines[2:]],
        "twice": [lines[0], *lines],
        "no end": lines[:-1],
        "cut": [*lines[:-2], lines[-1]],
        "empty": [],
    }[change]
    with pytest.raises(ConfigurationError):
        read_paper(paper_of(changed))


def test_lines_of_two_papers_are_refused():
    other = lines_of(KeyringDocument(MasterKey("old", bytes(32)), {"old": MasterKey("old", bytes(32))}))
    with pytest.raises(ConfigurationError, match="END"):
        read_paper(paper_of([*lines_of(OLD_ALONE)[:1], *other[1:]]))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"CRYOSTORE KEYRING 2\n01 AAAA", b"01 AAAA\n", PAPER_TITLE.encode()]
)
def test_other_text_is_refused(data):
    with pytest.raises(ConfigurationError):
        read_paper(data)


def test_a_paper_is_distinguished_from_a_document():
    assert is_paper(print_paper(BOTH).encode())
    assert is_paper(b" cryostore keyring 1\n")
    assert not is_paper(BOTH.encode())


def test_key_ids_may_have_any_characters():
    key = MasterKey("schlüssel-☃", bytes(32))
    assert wrapped_key_id(key.wrap(b"", b"")) == "schlüssel-☃"


@pytest.mark.parametrize("wrapped", [b"", b"CRYW", b"CRYW\1", b"CRYW\2\1a", b"CRYE\1\1a", b"CRYW\1\1\xff"])
def test_bytes_that_are_not_a_wrapped_key_have_no_key_id(wrapped):
    with pytest.raises(KeyUnavailableError):
        wrapped_key_id(wrapped)


def test_no_key_unwraps_bytes_truncated_in_the_id():
    with pytest.raises(KeyUnavailableError):
        unwrap(MemoryKeyring(), b"CRYW\1\x09in mem", b"")
    with pytest.raises(KeyUnavailableError):
        unwrap(MemoryKeyring(), b"CRYW\1\xffin memory", b"")


@pytest.mark.parametrize(("key_id", "secret"), [("", 32), ("x" * 256, 32), ("a", 31), ("a", 33)])
def test_master_keys_have_an_id_and_an_exact_size(key_id, secret):
    with pytest.raises(ValueError, match="master key"):
        MasterKey(key_id, bytes(secret))


def test_new_master_keys_differ_from_each_other():
    one, two = MasterKey.generate("a"), MasterKey.generate("a")
    assert one.is_same(MasterKey("a", one.secret))
    assert not one.is_same(two)
    assert not one.is_same(MasterKey("b", one.secret))
