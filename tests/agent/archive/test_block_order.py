"""Order of the blocks of a listing: a block out of order, or without the entry of its folder, is a fault."""

from __future__ import annotations

from cryostore.agent.archive.block_order import BlockOrder
from cryostore.agent.block import BlockBuilder, Kind
from cryostore.agent.entry import NO_CONTENT, Row

DIRECTORY_ROW = Row(0o040755, 0, 0, 0, 0, 0, 1, 1, 1).pack()


def directory(path, *names):
    builder = BlockBuilder(Kind.DIRECTORY, path)
    for name in names:
        builder.add(name, DIRECTORY_ROW, NO_CONTENT.pack(), [])
    return builder.block()


def test_missing_and_swapped_blocks_are_faults():
    root = BlockBuilder(Kind.ROOT, b"")
    root.add(b"", DIRECTORY_ROW, NO_CONTENT.pack(), [])
    right = [root.block(), directory(b"", b"a", b"a!", b"b"), directory(b"", b"c"), directory(b"a", b"x")]
    right += [directory(b"a/x"), directory(b"a!"), directory(b"c")]
    block_order = BlockOrder()
    assert [block_order.add(block) for block in right] == [None] * len(right)
    for left_out in (0, 1, 3):
        block_order = BlockOrder()
        assert [fault for block in right[:left_out] + right[left_out + 1 :] if (fault := block_order.add(block))]
    for number in range(len(right) - 1):
        swapped = [*right[:number], right[number + 1], right[number], *right[number + 2 :]]
        block_order = BlockOrder()
        assert [fault for block in swapped if (fault := block_order.add(block))]
