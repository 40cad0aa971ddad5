"""Marks of a move: they say why a store cannot be opened, and each is set and removed once."""

from __future__ import annotations

from cryostore.maintenance.migrate import move_mark
from cryostore.maintenance.migrate.move_mark import Mark, decode
from support.catalogs.memory_database import MemoryDatabase


def test_a_mark_names_its_reason_and_can_be_decoded():
    for kind in ("into", "away"):
        mark = Mark(kind, "M", "S", "the place " * 40)
        assert decode(mark.encode()) == mark
    assert decode(None) is None
    assert decode(b"CRYW\x01\x04name" + bytes(60)) is None


def test_marks_are_set_once():
    database = MemoryDatabase()
    mark = Mark("into", "M", "S", "there")
    assert database.write(lambda transaction: move_mark.begin_into(transaction, mark))
    assert not database.write(lambda transaction: move_mark.begin_into(transaction, mark))
    assert not database.write(lambda transaction: move_mark.leave(transaction, mark))
    assert database.write(lambda transaction: move_mark.end_into(transaction, mark, b"token"))
    assert not database.write(lambda transaction: move_mark.end_into(transaction, mark, b"token"))
