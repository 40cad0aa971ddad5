"""Statements and values between Python and PostgreSQL: parameters by name, and one SQL type per Python type."""

from __future__ import annotations

import functools
import re
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper, NumericBinaryLoader
from psycopg.types.string import StrBinaryDumper, TextBinaryLoader

QUOTED_OR_PARAMETER = re.compile(r"('(?:[^']|'')*')|(?<!:):([a-z_][a-z0-9_]*)")
NOT_TEXT = re.compile("[\0\1]")
ESCAPED = re.compile("\1([\1\2])")


class _TextDumper(StrBinaryDumper):
    """Encodes text for the server: U+0000, which it refuses, as two characters, so that all texts keep their order."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(NOT_TEXT.sub(lambda found: "\1\1" if found[0] == "\0" else "\1\2", obj))


class _TextLoader(TextBinaryLoader):
    """Decodes text that `_TextDumper` encoded."""

    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        assert isinstance(text, str)
        return ESCAPED.sub(lambda found: "\0" if found[1] == "\1" else "\1", text) if "\1" in text else text


class _SumLoader(NumericBinaryLoader):
    """Decodes a sum of integers as an integer."""

    def load(self, data: Buffer) -> Any:
        return int(super().load(data))


class _TruthLoader(Loader):
    """Decodes a boolean as 1 or 0, as every engine does."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        return data[0]


def _adapters() -> AdaptersMap:
    """Return the adapters. Integers are always int8, so that a statement has one plan."""
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(bool, Int8BinaryDumper)
    adapters.register_dumper(str, _TextDumper)
    adapters.register_loader("text", _TextLoader)
    adapters.register_loader("numeric", _SumLoader)
    adapters.register_loader("bool", _TruthLoader)
    return adapters


ADAPTERS = _adapters()


@functools.lru_cache(maxsize=1000)
def translated(statement: str) -> bytes:
    """Return a statement with `:name` parameters in psycopg's notation."""

    def place(found: re.Match[str]) -> str:
        return found[1] or f"%({found[2]})s"

    return QUOTED_OR_PARAMETER.sub(place, statement.replace("%", "%%")).encode()
