"""Marks of a move: they say why a store cannot be opened, and each is set and removed once."""

from __future__ import annotations

from cryostore.maintenance.migrate import cutover
from cryostore.maintenance.migrate.cutover import Mark, decode_mark
from support.catalogs.memory_database import MemoryDatabase

COVERS = ("maintenance/migrate/cutover.py",)


def test_a_mark_names_its_reason_and_can_be_decoded():
    for kind in ("into", "away"):
        mark = Mark(kind, "M", "S", "the place " * 40)
        assert decode_mark(mark.encode()) == mark
    assert decode_mark(None) is None
    assert decode_mark(b"CRYW\x01\x04name" + bytes(60)) is None


def test_marks_are_set_once():
    database = MemoryDatabase()
    mark = Mark("into", "M", "S", "there")
    assert database.write(lambda transaction: cutover.begin_into(transaction, mark))
    assert not database.write(lambda transaction: cutover.begin_into(transaction, mark))
    assert not database.write(lambda transaction: cutover.leave(transaction, mark))
    assert database.write(lambda transaction: cutover.end_into(transaction, mark, b"token"))
    assert not database.write(lambda transaction: cutover.end_into(transaction, mark, b"token"))
