"""Messages of the FUSE protocol: sizes, padding and encodings, as in the header file of the kernel."""

from __future__ import annotations

import os
import stat
import struct

import pytest

from cryostore.agent.mount import fuse_messages as messages
from cryostore.agent.mount.fuse_messages import NodeAttributes, device_number, dirent, entry_out, init_out

ATTRIBUTES = NodeAttributes(7, stat.S_IFREG | 0o640, 100, 1, 1_500_000_001, 2_000_000_002, 3, 4, 5)


def test_structures_have_the_sizes_of_the_kernel():
    assert [messages.IN.size, messages.OUT.size, messages.ATTRIBUTES.size, messages.INIT_OUT.size] == [40, 16, 88, 64]
    assert [messages.ENTRY.size, messages.ATTRIBUTES_OUT.size, messages.DIRENT.size] == [40, 16, 24]


def test_times_are_split_into_seconds_and_nanoseconds():
    numbers = messages.ATTRIBUTES.unpack(ATTRIBUTES.pack())
    assert numbers[:9] == (7, 100, 1, 1, 1, 2, 500_000_001, 500_000_001, 2)
    assert numbers[9:14] == (stat.S_IFREG | 0o640, 3, 4, 5, 0)
    assert NodeAttributes(1, 0, 0, 0, -1, 0, 1, 0, 0).pack()[24:32] == struct.pack("<q", -1)


@pytest.mark.parametrize("numbers", [(1, 3), (8, 17), (259, 70_000)])
def test_a_device_number_is_encoded_as_by_the_kernel(numbers):
    assert device_number(*numbers) == os.makedev(*numbers)


def test_only_offered_features_are_accepted():
    assert struct.unpack_from("<IIII", init_out(4096, 0)) == (7, 31, 4096, 0)
    assert struct.unpack_from("<IIII", init_out(4096, 0xFFFF_FFFF))[3] == messages.WANTED


def test_a_missing_name_is_node_0():
    assert entry_out(0, None, 5) == messages.ENTRY.pack(0, 0, 5, 5, 0, 0) + bytes(88)
    assert len(entry_out(9, ATTRIBUTES, 5)) == 128


@pytest.mark.parametrize("name", [b"x", b"12345678", b"123456789"])
def test_a_directory_item_is_padded_to_8_bytes(name):
    packed = dirent(3, 4, stat.S_IFDIR | 0o755, name)
    assert len(packed) % 8 == 0
    assert messages.DIRENT.unpack_from(packed) == (3, 4, len(name), stat.S_IFDIR >> 12)
    assert packed[24:].rstrip(b"\0") == name
