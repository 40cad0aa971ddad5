"""The chunk store, compared with a dict, through power failures, full disks and restarts."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import open_envelope
from cryostore.chunks.packs.format import list_packs, pack_key, scan_pack
from cryostore.chunks.packs.recovery import cut_torn_tail
from cryostore.chunks.store import ChunkStore
from cryostore.core.digest import Payload, sha256
from cryostore.core.errors import StorageFullError, StorageUnavailableError
from cryostore.core.ids import counting_ids
from support.faults.faulty_blobs import CrashingBlobs, FaultyBlobs

KEYS = [DataKey(bytes([number]) * 16, bytes([number]) * 32) for number in range(2)]
PAYLOADS = st.one_of(st.binary(max_size=300), st.integers(0, 2000).map(lambda size: b"ab" * size))


class ChunkStoreMachine(RuleBasedStateMachine):
    """The model is a dict from location to payload. Each location that a put returned can be read at any time."""

    locations = Bundle("locations")

    @initialize(pack_bytes_target=st.sampled_from([200, 1000, 1 << 20]))
    def begin(self, pack_bytes_target):
        self.memory = CrashingBlobs()
        self.blobs = FaultyBlobs(self.memory)
        self.new_id = counting_ids()
        self.pack_bytes_target = pack_bytes_target
        self.model = {}
        self.open()

    def open(self):
        self.store = ChunkStore(self.blobs, self.new_id, pack_bytes_target=self.pack_bytes_target)

    @rule(target=locations, data=PAYLOADS, key=st.sampled_from(KEYS))
    def put(self, data, key):
        try:
            location = self.store.put(Payload(data), key)
        except StorageUnavailableError:
            return multiple()
        assert location not in self.model
        self.model[location] = (data, key)
        return location

    @rule(location=locations)
    def get(self, location):
        data, key = self.model[location]
        assert self.store.get(location, key, sha256(data), len(data)) == data

    @rule(
        method=st.sampled_from(["append", "sync", "open_append"]), at=st.integers(1, 3),
        torn_bytes=st.integers(0, 400), full=st.booleans(),
    )  # fmt: skip
    def will_fail(self, method, at, torn_bytes, full):
        full = full and method != "sync"
        error = (StorageFullError if full else StorageUnavailableError)("as told")
        self.blobs.fail(method, at, error, torn_bytes=0 if full else torn_bytes)

    @rule(kept_share=st.floats(0, 1), filler=st.sampled_from([None, 0, 0xFF]), cut=st.booleans())
    def power_cut(self, kept_share, filler, cut):
        """Unflushed bytes are lost, partly or as a hole. The next process may cut tails."""
        self.memory.crash(kept_share, filler)
        if cut:
            for pack_id in list(list_packs(self.memory)):
                cut_torn_tail(self.memory, pack_id)
        self.open()

    @rule()
    def restart(self):
        self.store.close()
        self.open()

    @rule()
    def tails_of_the_living_stay(self):
        """Another process may run the recovery at any time."""
        for pack_id in list(list_packs(self.memory)):
            cut_torn_tail(self.memory, pack_id)

    @invariant()
    def all_that_was_acknowledged_is_there(self):
        for location, (data, key) in getattr(self, "model", {}).items():
            envelope = self.memory.get(pack_key(location.pack_id), location.offset, location.length)
            assert open_envelope(envelope, key, sha256(data), len(data)) == data

    def teardown(self):
        """An index that is rebuilt from the packs has all acknowledged envelopes."""
        found = {
            (pack_id, offset, header.envelope_bytes): header
            for pack_id in list_packs(self.memory)
            for offset, header in scan_pack(self.memory, pack_id)
        }
        for location, (data, key) in self.model.items():
            header = found[location[:3]]
            assert (header.key_id, header.digest(key)) == (key.key_id, sha256(data))


TestChunkStoreMachine = ChunkStoreMachine.TestCase
