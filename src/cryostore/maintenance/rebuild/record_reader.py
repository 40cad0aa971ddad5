"""Reading records back: which of them hold, and what they say, for `rebuild`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple

from cryostore.catalog.rows.records import COMMIT, STORE, VAULT, RecordKey
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.records import RecordName, Records
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, KeyUnavailableError, StorageUnavailableError
from cryostore.service.records.format import CommitRecord, StoreRecord, VaultRecord, decode

Losses = list[str]
"""What could not be read, for people."""
READ_ERRORS = (DamagedDataError, BlobNotFoundError, StorageUnavailableError)
_UNREADABLE = (KeyUnavailableError, *READ_ERRORS)


class StoredRecord(NamedTuple):
    """The record of a noun that holds: its highest number that is complete, and how many parts that has.

    `number_max` is the highest there is, complete or not. Of a noun without a complete record `parts` is 0.
    """

    key: RecordKey
    change: int
    parts: int
    number_max: int

    def names(self) -> Iterator[RecordName]:
        """The parts, in order."""
        return (RecordName(*self.key, self.change, part) for part in range(self.parts))


class RecordReader:
    """The records of a store.

    As parts turn out to be unreadable, `losses` says so, and `lost` has the commits they told of.
    """

    def __init__(self, records: Records, losses: Losses) -> None:
        self._records = records
        self._losses = losses
        self.lost: set[RecordKey] = set()

    def store(self) -> Iterator[tuple[StoredRecord, StoreRecord]]:
        """The record of the store, if there is one."""
        for held, data in self._wrapped(STORE):
            yield held, decode(data, StoreRecord)

    def vaults(self) -> Iterator[tuple[StoredRecord, VaultRecord]]:
        """The records of all vaults. Raises KeyUnavailableError at the end if the keyring has the key of none."""
        for held, data in self._wrapped(VAULT):
            yield held, decode(data, VaultRecord)

    def commits(self, key_of: Callable[[bytes], DataKey | None]) -> Iterator[StoredRecord]:
        """The records of commits, by lineage and generation: the one that is complete, or none.

        One may be incomplete and not be needed: it is being removed, or was never finished.
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
        """The parts of a commit's record, in order; what cannot be read is left out and counted as lost."""
        for name in held.names():
            part = self._part(name, key_of)
            if part is None:
                self.lose(held.key, f"part {name.part} of the record")
            else:
                yield part

    def lose(self, key: RecordKey, what: str) -> None:
        """Count as lost what a commit changed."""
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
        """The newest record of a noun that can be read. Raises KeyUnavailableError if the keyring lacks its key."""
        for change in sorted(numbers, reverse=True):
            name = RecordName(*key, change, 0)
            with contextlib.suppress(*READ_ERRORS):
                return StoredRecord(key, change, 1, max(numbers)), self._records.get_wrapped(name)
        return None

    def _part(self, name: RecordName, key_of: Callable[[bytes], DataKey | None]) -> CommitRecord | None:
        try:
            return decode(self._records.get(name, key_of), CommitRecord)
        except _UNREADABLE:
            return None

    def _numbers(self, noun: str) -> Iterator[tuple[RecordKey, dict[int, int]]]:
        """Of each noun of this kind the numbers of its records, each with how many parts it has from the first on."""
        for key, names in groupby(self._records.names(noun), key=lambda name: RecordKey(*name[:3])):
            numbers: dict[int, int] = {}
            for name in names:
                parts = numbers.setdefault(name.change, 0)
                numbers[name.change] = parts + (name.part == parts)
            yield key, numbers
