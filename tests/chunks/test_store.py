"""The chunk store on real files, and on failing blob stores."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import ENVELOPE_OVERHEAD_BYTES, EnvelopeHeader, PayloadKind
from cryostore.chunks.packs.format import list_packs, pack_key, scan_pack
from cryostore.chunks.packs.recovery import cut_torn_tail
from cryostore.chunks.store import ChunkStore, Location
from cryostore.core.compression import CompressedPayload, decompress_whole
from cryostore.core.digest import Payload, sha256
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, StorageUnavailableError
from cryostore.core.ids import counting_ids, random_id
from support.faults.faulty_blobs import FaultyBlobs, FaultyObjects

KEY = DataKey(b"k" * 16, bytes(range(32)))
NOISE = random.Random(5).randbytes(1 << 20)


@pytest.fixture
def blobs(tmp_path):
    store = open_blobs(tmp_path / "blobs")
    yield store
    store.close()


@pytest.fixture
def store(blobs):
    store = ChunkStore(blobs, counting_ids())
    yield store
    store.close()


def get(store, location, data, key=KEY):
    return store.get(location, key, sha256(data), len(data))


@pytest.mark.parametrize("data", [b"", b"x", NOISE[:4096], NOISE, b"text " * 100_000], ids=len)
def test_a_blob_reads_back(store, data):
    location = store.put(Payload(data), KEY)
    assert get(store, location, data) == data
    assert location.length <= len(data) + ENVELOPE_OVERHEAD_BYTES


@given(st.lists(st.binary(max_size=2000), max_size=20))
def test_every_payload_has_its_own_location(payloads):
    store = ChunkStore(MemoryBlobs(), counting_ids(), pack_bytes_target=3000)
    locations = [store.put(Payload(data), KEY) for data in payloads]
    assert len(set(locations)) == len(payloads)
    for location, data in zip(locations, payloads, strict=True):
        assert get(store, location, data) == data


def test_a_new_store_reads_the_packs_of_the_old_one(blobs):
    first = ChunkStore(blobs, new_id := counting_ids())
    location = first.put(Payload(b"old"), KEY)
    first.close()
    second = ChunkStore(blobs, new_id)
    assert get(second, location, b"old") == b"old"
    assert second.put(Payload(b"new"), KEY).pack_id != location.pack_id


def test_two_stores_share_the_blobs(blobs):
    """As in two worker processes, each has its own pack, and both read both packs."""
    new_id = counting_ids()
    stores = [ChunkStore(blobs, new_id) for _ in range(2)]
    locations = [store.put(Payload(b"of %d" % number), KEY) for number, store in enumerate(stores)]
    assert locations[0].pack_id != locations[1].pack_id
    for store in stores:
        for number, location in enumerate(locations):
            assert get(store, location, b"of %d" % number) == b"of %d" % number


def test_the_kind_of_a_payload_is_part_of_the_envelope(store, blobs):
    location = store.put(Payload(b"metadata"), KEY, PayloadKind.METADATA)
    ((offset, header),) = scan_pack(blobs, location.pack_id)
    assert (offset, header.kind) == (location.offset, PayloadKind.METADATA)
    assert get(store, location, b"metadata") == b"metadata"


def test_packs_hold_neither_payload_nor_digest(store, blobs):
    """The bytes on the disk reveal no content."""
    location = store.put(Payload(NOISE[:5000]), KEY)
    content = blobs.get(pack_key(location.pack_id))
    assert NOISE[:16] not in content
    assert sha256(NOISE[:5000])[:8] not in content


def test_a_missing_pack_is_damage_and_the_error_names_it(store, blobs):
    location = store.put(Payload(b"x"), KEY)
    blobs.delete(pack_key(location.pack_id))
    with pytest.raises(DamagedDataError, match=location.pack_id):
        get(store, location, b"x")


@pytest.mark.parametrize(("data", "is_compressed"), [(NOISE, False), (b"text " * 100_000, True)], ids=["noise", "text"])
def test_a_compressed_payload_can_be_read_compressed(store, data, is_compressed):
    location = store.put(Payload(data), KEY)
    found = store.get_compressed(location, KEY, sha256(data), len(data))
    assert isinstance(found, CompressedPayload) is is_compressed
    assert found.sha256 == sha256(data)
    assert bytes(decompress_whole(found.data, len(data)) if is_compressed else found.data) == data


def test_damage_in_compressed_bytes_is_noticed(store, blobs):
    data = b"text " * 1_000
    location = store.put(Payload(data), KEY)
    path = blobs._root / pack_key(location.pack_id)
    written = bytearray(path.read_bytes())
    written[location.offset + location.length - 20] ^= 1
    path.write_bytes(written)
    with pytest.raises(DamagedDataError, match=location.pack_id):
        store.get_compressed(location, KEY, sha256(data), len(data))


@pytest.mark.parametrize("change", [(1, 0), (-1, 0), (0, 1), (0, -1), (10_000, 0), (0, 10_000)])
def test_a_wrong_location_is_damage_and_the_error_names_it(store, change):
    store.put(Payload(b"before"), KEY)
    location = store.put(Payload(b"x" * 100), KEY)
    store.put(Payload(b"behind"), KEY)
    false = Location(location.pack_id, location.offset + change[0], location.length + change[1])
    with pytest.raises(DamagedDataError, match=f"{location.pack_id} at {false.offset}"):
        get(store, false, b"x" * 100)


def test_any_damaged_byte_on_disk_is_noticed(store, blobs):
    data = b"precious " * 50
    location = store.put(Payload(data), KEY)
    path = blobs._root / pack_key(location.pack_id)
    with path.open("r+b") as file:
        for position in range(location.offset, location.offset + location.length):
            file.seek(position)
            (byte,) = file.read(1)
            for value, wanted in ((byte ^ 0x10, DamagedDataError), (byte, None)):
                file.seek(position)
                file.write(bytes([value]))
                file.flush()
                if wanted:
                    with pytest.raises(DamagedDataError):
                        get(store, location, data)
    assert get(store, location, data) == data


def test_the_key_of_one_vault_opens_nothing_of_another_vault(store):
    location = store.put(Payload(b"x"), KEY)
    for other in (DataKey(b"o" * 16, bytes(32)), DataKey(KEY.key_id, bytes(32))):
        with pytest.raises(DamagedDataError):
            get(store, location, b"x", other)


def test_unreadable_is_not_damaged():
    """A temporarily unreadable disk is no reason to give up the bytes."""
    blobs = FaultyBlobs(MemoryBlobs())
    store = ChunkStore(blobs, counting_ids())
    location = store.put(Payload(b"x"), KEY)
    blobs.fail("get")
    with pytest.raises(StorageUnavailableError):
        get(store, location, b"x")
    assert get(store, location, b"x") == b"x"


def test_packs_are_immutable_in_a_store_without_appends():
    blobs = FaultyObjects(MemoryBlobs())
    store = ChunkStore(blobs, counting_ids())
    assert not store.packs_grow
    locations = [store.put(Payload(b"of %d" % number), KEY) for number in range(3)]
    assert [get(store, location, b"of %d" % number) for number, location in enumerate(locations)]
    pack_id = locations[0].pack_id
    assert set(store.pack_ids()) == {location.pack_id for location in locations}
    assert store.pack_bytes(pack_id) == locations[0].offset + locations[0].length
    assert store.pack_sizes([pack_id, "00000000-0000-4000-8000-0000000000FF"]) == [store.pack_bytes(pack_id), None]
    assert not store.is_owned(pack_id)
    assert store.close_pack(pack_id)
    assert store.make_durable(pack_id)
    assert store.torn_tail_bytes(pack_id) == store.cut_torn_tail(pack_id) == 0
    assert [placed.offset for placed in store.reader(pack_id).walk()] == [locations[0].offset]
    store.roll(pack_id)
    store.delete_pack(pack_id)
    assert store.pack_bytes(pack_id) is None
    with pytest.raises(BlobNotFoundError):
        store.make_durable(pack_id)


def test_packs_grow_in_a_store_with_appends(store):
    assert store.packs_grow
    locations = store.append([b"one", b"two"]) + store.append([b"three"])
    assert len({location.pack_id for location in locations}) == 1


def test_writers_use_new_salts(blobs):
    """Two stores never derive the same key, for example before and after a restart."""
    salts = set()
    for _ in range(2):
        store = ChunkStore(blobs, random_id)
        location = store.put(Payload(b"x"), KEY)
        salts.add(EnvelopeHeader.decode(blobs.get(pack_key(location.pack_id), location.offset, location.length)).salt)
        store.close()
    assert len(salts) == 2


def test_many_threads_put_and_get(store):
    wrong = []

    def work(seed):
        chance = random.Random(seed)
        for _ in range(30):
            start, size = chance.randrange(500_000), chance.choice([0, 50, 4096, 300_000])
            data = NOISE[start : start + size]
            if get(store, store.put(Payload(data), KEY), data) != data:
                wrong.append((seed, start, size))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


WRITER = """
import sys
from pathlib import Path
from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.store import ChunkStore
from cryostore.core.digest import Payload
from cryostore.core.ids import random_id
import threading
store = ChunkStore(open_blobs(Path(sys.argv[1])), random_id, pack_bytes_target=100_000)
key = DataKey(b"k" * 16, bytes(range(32)))
lock = threading.Lock()
def work(base):
    number = base
    while True:
        location = store.put(Payload(b"payload %d " % number * (number % 300)), key)
        with lock:
            print(number, *location, flush=True)
        number += 4
for base in range(4):
    threading.Thread(target=work, args=(base,)).start()
"""


def test_after_sigkill_all_acknowledged_data_is_there(blobs):
    """A process that writes from four threads is killed. Its tail may be cut, but acknowledged data is kept."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, blobs._root], stdout=subprocess.PIPE, text=True)
    lines = [writer.stdout.readline() for _ in range(150)]
    owned = [pack_id for pack_id in list_packs(blobs) if blobs.owned(pack_key(pack_id))]
    assert owned, "the writer is alive"
    os.kill(writer.pid, signal.SIGKILL)
    lines += [line for line in writer.stdout if line.endswith("\n")]
    writer.stdout.close()
    writer.wait()
    assert not any(blobs.owned(pack_key(pack_id)) for pack_id in list_packs(blobs))
    for pack_id in list_packs(blobs):
        cut_torn_tail(blobs, pack_id)
    store = ChunkStore(blobs, random_id)
    for line in lines:
        number, pack_id, offset, length, _ = line.split()
        data = b"payload %d " % int(number) * (int(number) % 300)
        assert get(store, Location(pack_id, int(offset), int(length)), data) == data
    indexed = sum(1 for pack_id in list_packs(blobs) for _ in scan_pack(blobs, pack_id))
    assert indexed >= len(lines)
    store.close()
