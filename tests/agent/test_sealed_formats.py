"""The formats of sealed archives byte by byte: golden files that later versions must read, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.agent.encryption import key_file, key_paper
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.cipher import Stretching, seal
from cryostore.agent.encryption.key_objects import OBJECT_BYTES, unwrap, wrap
from cryostore.agent.encryption.sealed_chunk import HEAD, INNER, Kind, open_chunk, padded_length, seal_chunk
from cryostore.agent.encryption.sealed_object import ROWS_MAX, ChunkFacts, ChunkTable, Recipient, SealedHead, mark_of
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.core.errors import ConfigurationError, KeyUnavailableError

GOLDEN = Path(__file__).parents[1] / "golden"
KEY = AgentKey(bytes(range(32)))
ARCHIVE_KEY = ArchiveKey(bytes(range(16)), bytes(range(32, 64)), bytes(range(64, 96)))
KEYS = {ARCHIVE_KEY.key_id: ARCHIVE_KEY}
CHEAP = Stretching(bytes(range(16)), 1, 1, 64)
PASSPHRASE = "correct horse battery staple"
STORED = random.Random(1).randbytes(300)
TEXT = b"what compresses well " * 2000
TABLE = ChunkTable()
TABLE.set(0, ChunkFacts(1000, bytes(range(32))))
TABLE.set(1, ChunkFacts(4_000_000, bytes(32)))
SEALED_HEAD = SealedHead(
    resource="tree", table=[bytes(32)], header=b'{"format":1}', recipients=[Recipient(KEY.public, "laptop")]
)


def nobody():
    raise AssertionError("nobody is asked")


def golden(name):
    return (GOLDEN / name).read_bytes()


def golden_hex(name):
    return bytes.fromhex(golden(name).decode())


# --- golden files -----------------------------------------------------------------------------------------------------


def test_key_files():
    assert key_file.encode(KEY) == golden("agent-key.json")
    assert key_file.encode_public(KEY) == golden("agent-key-public.json")
    assert key_file.decode(golden("agent-key.json"), nobody).seed == KEY.seed
    assert key_file.decode(golden("agent-key-locked.json"), lambda: PASSPHRASE).seed == KEY.seed
    public = key_file.decode(golden("agent-key-public.json"), nobody)
    assert not isinstance(public, AgentKey)
    assert public.fingerprint == KEY.fingerprint


def test_keys_on_paper():
    assert key_paper.print_paper(KEY).encode() == golden("agent-key-paper.txt")
    assert key_paper.read_paper(golden("agent-key-paper.txt")).seed == KEY.seed


def test_key_objects():
    for name, owned in (("agent-key-object-owned.hex", True), ("agent-key-object.hex", False)):
        found, is_owned = unwrap(golden_hex(name), KEY)
        assert (found.key_id, found.secret, found.id_secret) == (
            ARCHIVE_KEY.key_id,
            ARCHIVE_KEY.secret,
            ARCHIVE_KEY.id_secret,
        )
        assert is_owned is owned


def test_sealed_chunks():
    identity = ARCHIVE_KEY.chunk_id(STORED)
    assert seal_chunk(ARCHIVE_KEY, Kind.TABLE, identity, STORED) == golden_hex("agent-sealed-chunk-stored.hex")
    assert open_chunk(KEYS, Kind.TABLE, identity, golden_hex("agent-sealed-chunk-stored.hex")) == STORED
    place = ARCHIVE_KEY.chunk_id(TEXT)
    assert open_chunk(KEYS, Kind.CATALOG, place, golden_hex("agent-sealed-chunk-zstd.hex")) == TEXT
    assert golden_hex("agent-piece-table.hex") == b"".join(TABLE.parts())


def test_sealed_heads():
    plain = bytes(open_chunk(KEYS, Kind.HEAD, b"catalog", golden_hex("agent-sealed-head.hex")))
    assert SealedHead.decode(plain) == SEALED_HEAD
    assert mark_of(ARCHIVE_KEY, plain).hex() == golden("agent-sealed-head-mark.txt").decode().strip()


def test_what_is_derived_stays_the_same():
    """No archive could be read, or gone on with, if one of these came out otherwise."""
    first = ArchiveKey.first(KEY.archive_seed, "tree", "JOB")
    derived = {
        "public": KEY.public,
        "fingerprint": KEY.fingerprint.encode(),
        "owner tag": KEY.owner_tag(b"data"),
        "opaque name": KEY.opaque_name("host:/path").encode(),
        "first key id": first.key_id,
        "first secret": first.secret,
        "first identity": first.id_secret,
        "piece id": ARCHIVE_KEY.chunk_id(b"piece"),
        "place key": ARCHIVE_KEY.chunk_key(b"place"),
        "nonce key": ARCHIVE_KEY.nonce_key(),
        "cut secret": ARCHIVE_KEY.cut_secret,
    }
    assert {name: value.hex() for name, value in derived.items()} == json.loads(golden("agent-derived.json"))


# --- sealing ----------------------------------------------------------------------------------------------------------


@given(payload=st.binary(max_size=70_000), kind=st.sampled_from(list(Kind)), place=st.binary(max_size=40))
def test_what_is_sealed_opens_and_tells_no_length(payload, kind, place):
    sealed = seal_chunk(ARCHIVE_KEY, kind, place, payload)
    assert open_chunk(KEYS, kind, place, sealed) == payload
    assert sealed == seal_chunk(ARCHIVE_KEY, kind, place, payload)
    assert (len(sealed) - HEAD.size - 16) % (4 << 10) == 0


@given(at=st.integers(0, 4200), bit=st.integers(0, 7))
def test_no_bit_can_be_changed(at, bit):
    sealed = bytearray(seal_chunk(ARCHIVE_KEY, Kind.HEAD, b"catalog", b"payload"))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises((ArchiveDamagedError, KeyUnavailableError)):
        open_chunk(KEYS, Kind.HEAD, b"catalog", bytes(sealed))


def test_another_place_kind_or_key_opens_nothing():
    sealed = seal_chunk(ARCHIVE_KEY, Kind.CONTENT, b"here", b"payload")
    other = ArchiveKey(ARCHIVE_KEY.key_id, bytes(32), ARCHIVE_KEY.id_secret)
    with pytest.raises(ArchiveDamagedError):
        open_chunk(KEYS, Kind.CONTENT, b"there", sealed)
    with pytest.raises(ArchiveDamagedError):
        open_chunk(KEYS, Kind.CATALOG, b"here", sealed)
    with pytest.raises(ArchiveDamagedError):
        open_chunk({other.key_id: other}, Kind.CONTENT, b"here", sealed)
    with pytest.raises(KeyUnavailableError, match="000102"):
        open_chunk({}, Kind.CONTENT, b"here", sealed)


@pytest.mark.parametrize("length", [0, 3, 35, 36, 51, 60])
def test_cut_short(length):
    sealed = seal_chunk(ARCHIVE_KEY, Kind.CONTENT, b"here", b"payload")[:length]
    with pytest.raises(ArchiveDamagedError):
        open_chunk(KEYS, Kind.CONTENT, b"here", sealed)


def test_a_later_format_is_named():
    sealed = bytearray(seal_chunk(ARCHIVE_KEY, Kind.CONTENT, b"here", b"payload"))
    sealed[4] = 2
    with pytest.raises(ArchiveDamagedError, match="format 2, unknown to this version"):
        open_chunk(KEYS, Kind.CONTENT, b"here", bytes(sealed))


def test_nonces_differ_wherever_plaintexts_do():
    """One place, many payloads, as the head of a catalog has: never one nonce for two of them."""
    nonces = {HEAD.unpack_from(seal_chunk(ARCHIVE_KEY, Kind.HEAD, b"catalog", b"%d" % n))[4] for n in range(500)}
    assert len(nonces) == 500


@given(length=st.integers(0, 1 << 33), quantum=st.sampled_from([1 << 12, 1 << 14, 1 << 16]))
def test_padding(length, quantum):
    padded = padded_length(length, quantum)
    assert length <= padded <= max(length + length // 16, length + quantum)
    assert padded % quantum == 0
    assert padded_length(padded, quantum) == padded


def test_lengths_fall_into_few_classes():
    lengths = {padded_length(length, 1 << 16) for length in range(1 << 20, 1 << 22, 997)}
    assert len(lengths) <= 50


# --- tables, keys -----------------------------------------------------------------------------------------------------


def test_tables_come_in_parts():
    table = ChunkTable(bytes(36 * (ROWS_MAX + 5)))
    parts = list(table.parts())
    assert [len(part) // 36 for part in parts] == [ROWS_MAX, 5]
    assert len(ChunkTable(b"".join(parts))) == ROWS_MAX + 5
    with pytest.raises(ArchiveDamagedError):
        ChunkTable(bytes(35))
    with pytest.raises(ArchiveDamagedError):
        table[ROWS_MAX + 5]


def test_key_objects_are_for_one_key_and_one_archive_key():
    data = wrap(ARCHIVE_KEY, PublicKey(KEY.public))
    assert len(data) == OBJECT_BYTES
    with pytest.raises(KeyUnavailableError):
        unwrap(data, AgentKey.generate())
    for at in (0, 4, 10, 30, 100, 140):
        wrong = bytearray(data)
        wrong[at] ^= 1
        with pytest.raises((ArchiveDamagedError, KeyUnavailableError)):
            unwrap(bytes(wrong), KEY)
    with pytest.raises(ArchiveDamagedError):
        unwrap(data[:-1], KEY)


def test_a_tag_that_only_the_whole_key_makes():
    """Neither the public part, nor another's tag, passes for the owner's."""
    data = wrap(ARCHIVE_KEY, PublicKey(KEY.public))
    assert unwrap(data, KEY)[1] is False
    with pytest.raises(ArchiveDamagedError, match="tag"):
        unwrap(data[:-32] + bytes(range(32)), KEY)
    assert unwrap(wrap(ARCHIVE_KEY, KEY), KEY)[1] is True


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"format":"cryostore agent key 2","public":"AAAA"}',
        golden("agent-key.json").replace(b"AAECAw", b"BBECAw"),
        golden("agent-key.json")[:-30],
        golden("agent-key-locked.json").replace(b'"iterations": 1', b'"iterations": 1000000'),
        b" " * 70_000,
    ],
    ids=["empty", "no members", "a list", "no text", "later", "another secret", "cut", "costs", "long"],
)
def test_what_is_no_key_file(data):
    with pytest.raises(ConfigurationError) as raised:
        key_file.decode(data, lambda: PASSPHRASE, "FILE")
    assert raised.value.message == "FILE is not a key file of the agent"
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_another_passphrase():
    with pytest.raises(KeyUnavailableError, match="passphrase does not open"):
        key_file.decode(golden("agent-key-locked.json"), lambda: "another")


@pytest.mark.parametrize("number", range(4))
def test_a_mistake_on_paper_is_found_in_its_line(number):
    lines = golden("agent-key-paper.txt").decode().splitlines()
    at = lines.index(key_paper.TITLE) + 1 + number
    letter = lines[at][5]
    lines[at] = lines[at][:5] + ("Q" if letter != "Q" else "R") + lines[at][6:]
    with pytest.raises(ConfigurationError, match=f"line 0{number + 1} has a mistake"):
        key_paper.read_paper("\n".join(lines).encode())


def test_paper_as_people_type_it():
    text = golden("agent-key-paper.txt").decode().lower().replace("  ", "\t ").replace("\t", " ")
    assert key_paper.read_paper(text.encode()).seed == KEY.seed
    with pytest.raises(ConfigurationError, match="END is missing"):
        key_paper.read_paper(text[: text.index("end ")].encode())
    with pytest.raises(ConfigurationError, match="the first line"):
        key_paper.read_paper(b"hello")


def test_the_inner_head_is_checked_though_it_is_authentic():
    """What an owner of the key wrote wrongly does not become memory or wrong bytes."""
    wrong = [INNER.pack(codec, 5, length) + b"short" for codec, length in ((0, 500), (1, 5), (9, 5))]
    for inner in (*wrong, b""):
        head = HEAD.pack(b"CRYA", 1, Kind.CONTENT, ARCHIVE_KEY.key_id, bytes(12))
        key = ARCHIVE_KEY.chunk_key(bytes([Kind.CONTENT]) + b"here")
        with pytest.raises(ArchiveDamagedError):
            open_chunk(KEYS, Kind.CONTENT, b"here", head + seal(key, bytes(12), inner, head + b"here"))
