"""Reader of the records of a store, for a rebuild: finds the newest complete record of each noun and decodes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple

from cryostore.catalog.rows.records import COMMIT, STORE, VAULT, RecordKey
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.records import RecordName, Records
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, KeyUnavailableError, StorageUnavailableError
from cryostore.service.recording import CommitRecord, StoreRecord, VaultRecord, decode_record

Losses = list[str]
"""Descriptions, for people, of what could not be read."""
READ_ERRORS = (DamagedDataError, BlobNotFoundError, StorageUnavailableError)
_UNREADABLE = (KeyUnavailableError, *READ_ERRORS)


class StoredRecord(NamedTuple):
    """The newest complete record of a noun: its number `change` and its number of parts.

    `number_max` is the highest number that exists, complete or not. If no record is complete, `parts` is 0.
    """

    key: RecordKey
    change: int
    parts: int
    number_max: int

    def names(self) -> Iterator[RecordName]:
        """Return the names of the parts, in order."""
        return (RecordName(*self.key, self.change, part) for part in range(self.parts))


class RecordReader:
    """Reads the records of a store.

    Each unreadable part is described in `losses`; the keys of the affected commits are collected in `lost`.
    """

    def __init__(self, records: Records, losses: Losses) -> None:
        self._records = records
        self._losses = losses
        self.lost: set[RecordKey] = set()

    def store(self) -> Iterator[tuple[StoredRecord, StoreRecord]]:
        """Yield the record of the store, if there is one."""
        for held, data in self._wrapped(STORE):
            yield held, decode_record(data, StoreRecord)

    def vaults(self) -> Iterator[tuple[StoredRecord, VaultRecord]]:
        """Yield the records of all vaults. Raises KeyUnavailableError at the end if the keyring opens none of them."""
        for held, data in self._wrapped(VAULT):
            yield held, decode_record(data, VaultRecord)

    def commits(self, key_of: Callable[[bytes], DataKey | None]) -> Iterator[StoredRecord]:
        """Yield the newest complete record of each commit, by lineage and generation.

        A commit without a complete record is yielded with `parts` 0. It may not be needed: perhaps it was being removed
        or was never finished.
        """
        for key, numbers in self._numbers(COMMIT):
            number_max = max(numbers)
            for change in sorted(numbers, reverse=True):
                held = StoredRecord(key, change, numbers[change], number_max)
                last = self._part(RecordName(*key, change, held.parts - 1), key_of) if held.parts else None
                if last is not None and last.last:
                    yield held
                    break
            else:
                yield StoredRecord(key, 0, 0, number_max)

    def parts(self, held: StoredRecord, key_of: Callable[[bytes], DataKey | None]) -> Iterator[CommitRecord]:
        """Yield the parts of the record of a commit, in order. Unreadable parts are left out and counted as lost."""
        for name in held.names():
            part = self._part(name, key_of)
            if part is None:
                self.lose(held.key, f"part {name.part} of the record")
            else:
                yield part

    def lose(self, key: RecordKey, what: str) -> None:
        """Count the changes of a commit as lost."""
        if key not in self.lost:
            self._losses.append(f"{what} of commit {key.number}.{key.generation} cannot be read")
        self.lost.add(key)

    def _wrapped(self, noun: str) -> Iterator[tuple[StoredRecord, bytes]]:
        opened, missing = 0, None
        for key, numbers in self._numbers(noun):
            try:
                found = self._newest(key, numbers)
            except KeyUnavailableError as error:
                missing = missing or error
                found = None
            if found is None:
                self._losses.append(f"the record of {noun} {key.number} cannot be read")
            else:
                opened += 1
                yield found
        if missing is not None and not opened:
            raise missing

    def _newest(self, key: RecordKey, numbers: dict[int, int]) -> tuple[StoredRecord, bytes] | None:
        """Return the newest readable record of a noun. Raises KeyUnavailableError if the keyring lacks its key."""
        for change in sorted(numbers, reverse=True):
            name = RecordName(*key, change, 0)
            with contextlib.suppress(*READ_ERRORS):
                return StoredRecord(key, change, 1, max(numbers)), self._records.get_wrapped(name)
        return None

    def _part(self, name: RecordName, key_of: Callable[[bytes], DataKey | None]) -> CommitRecord | None:
        try:
            return decode_record(self._records.get(name, key_of), CommitRecord)
        except _UNREADABLE:
            return None

    def _numbers(self, noun: str) -> Iterator[tuple[RecordKey, dict[int, int]]]:
        """Yield each noun of this kind with the numbers of its records and how many parts each has without a gap."""
        for key, names in groupby(self._records.names(noun), key=lambda name: RecordKey(*name[:3])):
            numbers: dict[int, int] = {}
            for name in names:
                parts = numbers.setdefault(name.change, 0)
                numbers[name.change] = parts + (name.part == parts)
            yield key, numbers
