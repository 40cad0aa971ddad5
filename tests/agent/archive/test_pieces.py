"""Pieces of chunks: the bytes of each file in a chunk, and files whose bytes are missing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cryostore.agent.archive.pieces import Piece, chunks_with_pieces
from cryostore.agent.entry import Content
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.model.chunks import Chunk


@dataclass(frozen=True)
class File:
    """A file that needs bytes of a content object."""

    content: Content
    data_bytes: int


class Pages:
    """The chunk lists of content objects, without pages: by object number, the length of each chunk index."""

    def __init__(self, objects):
        self.objects = objects

    def from_chunk(self, number, index):
        for at, length in sorted(self.objects[number].items()):
            if at >= index:
                yield Chunk(index=at, length=length, checksum="", checksum_algorithm="SHA256", chunk_token=str(at))


def taken(pages, files, lose=None):
    return [(chunk.index, pieces) for chunk, pieces in chunks_with_pieces(pages, files, lose)]


def test_small_files_share_a_chunk_and_a_large_file_spans_several():
    first, second = File(Content(1, 0, 0), 10), File(Content(1, 0, 10), 20)
    large = File(Content(1, 1, 0), 250)
    assert taken(Pages({1: {0: 30, 1: 100, 2: 100, 3: 100}}), [large, second, first]) == [
        (0, [Piece(first, 0, 10, 0), Piece(second, 10, 20, 0)]),
        (1, [Piece(large, 0, 100, 0)]),
        (2, [Piece(large, 0, 100, 100)]),
        (3, [Piece(large, 0, 50, 200)]),
    ]


def test_chunks_without_a_file_are_skipped():
    file = File(Content(2, 7, 5), 5)
    assert taken(Pages({2: dict.fromkeys(range(9), 10)}), [file]) == [(7, [Piece(file, 5, 5, 0)])]


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ({1: {0: 10, 2: 10}}, "content object 1 lacks chunk 1"),
        ({1: {0: 10}}, "content object 1 lacks chunks that its files need"),
        ({1: {1: 30}}, "content object 1 lacks chunks that its files need"),
    ],
)
def test_a_file_with_an_unlisted_chunk_is_lost_and_other_files_are_not(objects, reason):
    lost, sound = File(Content(1, 0, 0), 20), File(Content(2, 0, 0), 10)
    pages, losses = Pages(objects | {2: {0: 10}}), []
    found = taken(pages, [lost, sound], lambda file, why: losses.append((file, why)))
    assert losses == [(lost, reason)]
    assert found[-1] == (0, [Piece(sound, 0, 10, 0)])
    with pytest.raises(ArchiveDamagedError, match=reason):
        taken(pages, [lost, sound])


def test_a_file_that_begins_after_the_end_of_its_chunk_is_lost():
    file, losses = File(Content(1, 0, 10), 5), []
    assert taken(Pages({1: {0: 10}}), [file], lambda *loss: losses.append(loss)) == []
    assert losses == [(file, "chunk 0 of content object 1 is shorter than its files need")]
