"""Verification of the copied blobs: each exists with its size, and some or all are read again.

A blob that is read must have the digest that was read from the source, and one envelope of each pack is opened with the
rows of the target, as a restore does. `rows` verifies the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from cryostore.catalog.queries import store_copy
from cryostore.catalog.queries.store_copy import BEGUN, NamedPack, Note
from cryostore.chunks.envelope import open_envelope
from cryostore.chunks.keyring import Keyring
from cryostore.core.digest import sha256
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, KeyUnavailableError
from cryostore.maintenance.migrate.blobs import WORKERS, Wanted, batches, portions, wanted_blobs
from cryostore.maintenance.migrate.side import Side, StageProgress
from cryostore.service.vault_keys import VaultKeys

SAMPLED = 50
"""One blob in so many is read again, unless all are."""


@dataclass
class BlobCheckResult:
    """Counts of the blobs that exist, and of those that were read again."""

    blobs: int = 0
    read: int = 0
    read_bytes: int = 0


class _Asked(NamedTuple):
    """A blob to check, its note, and whether it is to be read."""

    wanted: Wanted
    note: Note | None
    is_read: bool


class BlobCheck:
    """Checks all blobs of the target; counts into `verified`. With `everything`, each is read."""

    def __init__(
        self, source: Side, target: Side, keyring: Keyring, verified: BlobCheckResult, *, everything: bool
    ) -> None:
        self.verified = verified
        self._source = source
        self._target = target
        self._keys = VaultKeys(target, keyring)
        self._everything = everything

    def run(self) -> Iterator[StageProgress]:
        """Check each blob, step by step.

        Raises DamagedDataError if any blob is missing or has changed; a later run copies these again.
        """
        total = self._source.read(store_copy.count_blobs)
        bad: list[str] = []
        with ThreadPoolExecutor(WORKERS, "migrate") as pool:
            for some in batches(wanted_blobs(self._source)):
                for portion in portions(self._asked(some), lambda one: one.note.size if one.note else 0):
                    problems = list(pool.map(self._problem, portion))
                    bad += self._note(portion, problems)
                    yield StageProgress("verify blobs", self.verified.blobs, total, self.verified.read_bytes)
        if bad:
            raise DamagedDataError(
                f"{self._target.name}: {len(bad)} blobs are missing or have changed: {bad[0]}",
                hint="repeat the command, which copies them again; if that fails too, the place loses data",
            )

    def _asked(self, some: Sequence[Wanted]) -> list[_Asked]:
        notes = self._target.read(partial(store_copy.notes, keys=[one.key for one in some]))
        first = self.verified.blobs
        self.verified.blobs += len(some)
        return [
            _Asked(one, notes.get(one.key), self._everything or not number % SAMPLED)
            for number, one in enumerate(some, start=first)
        ]

    def _problem(self, asked: _Asked) -> str | None:
        """Return the problem of a blob in the target, None if it has none. Runs in any thread."""
        wanted, note, _ = asked
        if note is None or note.digest == BEGUN:
            return None if self._source.stat(wanted.key) is None else f"{wanted.key} was not copied"
        size = self._target.stat(wanted.key)
        if size != note.size:
            return f"{wanted.key} is missing" if size is None else f"{wanted.key} has {size} bytes, not {note.size}"
        if not asked.is_read:
            return None
        try:
            data = self._target.get(wanted.key)
        except (BlobNotFoundError, DamagedDataError) as error:
            return error.message
        if sha256(data).hex() != note.digest:
            return f"{wanted.key} has other bytes"
        return self._open_one(wanted.what, data) if isinstance(wanted.what, NamedPack) else None

    def _open_one(self, pack: NamedPack, data: bytes) -> str | None:
        """Open one envelope of a pack with the rows of the target, as a restore does."""
        row = self._target.read(partial(store_copy.first_chunk, pack_number=pack.pack_number))
        if row is None:
            return None
        _, digest, key_number, offset, sealed_length, length = row
        try:
            key = self._keys.opening(key_number)
            open_envelope(memoryview(data)[offset : offset + sealed_length], key, digest, length)
        except KeyUnavailableError:
            return None  # the source cannot read it either, which was reported
        except DamagedDataError as error:
            return f"pack {pack.name} at {offset}: {error.message}"
        return None

    def _note(self, portion: Sequence[_Asked], problems: Sequence[str | None]) -> list[str]:
        """Reset the notes of bad blobs, so that a later run copies them again. Returns their problems."""
        for one in portion:
            if one.is_read and one.note is not None:
                self.verified.read += 1
                self.verified.read_bytes += one.note.size
        bad = [one.note._replace(digest=BEGUN) for one, problem in zip(portion, problems, strict=True)
               if problem and one.note is not None]  # fmt: skip
        if bad:
            self._target.write(partial(store_copy.note, some=bad))
        return [problem for problem in problems if problem]
