"""Reader of the entries of a new archive: each is inherited from the base or read from the source.

Decides which entries have changed and reports what cannot be read. Blocks and objects are the archive writer's.
"""

from __future__ import annotations

from functools import partial

from cryostore.agent.backup.incremental_base import ArchiveBase, ArchivedEntry, BaseEntries, stat_identity
from cryostore.agent.backup.listing_writer import FORMAT_BITS, REGULAR
from cryostore.agent.backup.write_only_base import WriteOnlyBase, WriteOnlyEntries
from cryostore.agent.block import Extra
from cryostore.agent.entry import NO_CONTENT, ROW, UNTRUSTED_CTIME, Row, is_held
from cryostore.agent.errors import SourceError
from cryostore.agent.report import Report
from cryostore.agent.source.file_reader import REPLACED, FileReader
from cryostore.agent.source.walk import Directory, join
from cryostore.agent.upload.content import SMALL_BYTES_MAX
from cryostore.agent.upload.digest_table import DigestTable


class EntryReader:
    """Reads the entries of directories for one archive, and counts them in `report`.

    `trusted_before_ns` is a moment: an entry that changed after it is marked, so that the next run reads it again.
    """

    def __init__(
        self,
        base: ArchiveBase | WriteOnlyBase | None,
        source: FileReader,
        report: Report,
        *,
        small_files: DigestTable,
        known_chunks: DigestTable,
        trusted_before_ns: int,
    ) -> None:
        """`small_files` and `known_chunks` get those of the base once the first file has to be read."""
        self._base = base
        self._file_reader = source
        self._report = report
        self._small_files = small_files
        self._known_chunks = known_chunks
        self._trusted_before_ns = trusted_before_ns
        self._is_base_loaded = base is None
        self._hard_links: dict[tuple[int, int], ArchivedEntry] = {}
        self.gone: set[bytes] = set()
        """Directories that were missing when their attributes were to be read."""

    def new_small_file(
        self, directory: Directory, name: bytes, packed: bytes, old: BaseEntries | WriteOnlyEntries
    ) -> tuple[bytes, list[Extra]] | None:
        """Return the packed content and the extras of a new small file, on the fast path; None if `entry` must decide.

        `packed` is the row of the entry.
        """
        row = ROW.unpack(packed)
        mode, _, _, links, _, size, _, ctime_ns, _ = row
        if (
            mode & FORMAT_BITS != REGULAR
            or size > SMALL_BYTES_MAX
            or links > 1
            or ctime_ns >= self._trusted_before_ns
            or not is_held(ctime_ns)
            or not isinstance(old, BaseEntries)
            or name in old
        ):
            return None
        self._load_base()
        small = self._file_reader.read_small(directory, name, row)
        if small is not None:
            self._report.new += 1
        return small

    def entry(
        self, directory: Directory, name: bytes, packed: bytes, old: BaseEntries | WriteOnlyEntries
    ) -> ArchivedEntry:
        """Return the entry of a directory for the archive. Raises SourceError if it cannot be read.

        `packed` is its row, `old` the same directory in the base.
        """
        row = Row.unpack(packed)
        if (known := old.unchanged(name, row)) is not None:
            return self._unchanged(directory, name, known._replace(row=row), old)
        path = join(directory.path, name)
        if not row.is_file:
            return self._with_attributes(directory, name, ArchivedEntry(self._trusted(row), NO_CONTENT, []))
        link = (row.device, row.inode)
        if row.links > 1 and (known := self._hard_links.get(link)) is not None:
            self._count_read(is_new=name not in old)
            return known
        known = self._read(directory, path, name, row, old)
        if row.links > 1:
            self._hard_links[link] = known
        return known

    def _unchanged(
        self, directory: Directory, name: bytes, known: ArchivedEntry, old: BaseEntries | WriteOnlyEntries
    ) -> ArchivedEntry:
        """Return an entry as the base has it. Raises SourceError."""
        self._report.unchanged += known.row.is_file
        if isinstance(old, WriteOnlyEntries):  # the state holds no attributes
            return self._with_attributes(directory, name, known)
        return known

    def _read(
        self, directory: Directory, path: bytes, name: bytes, row: Row, old: BaseEntries | WriteOnlyEntries
    ) -> ArchivedEntry:
        """Read a file. Raises SourceError.

        An unchanged file is read only to move its content to a better place. If that fails, the entry of the base
        stays: the object that holds the content is then needed, so it is neither dropped nor trimmed of it.
        """
        held = old.held(name, row)
        try:
            known = self._same_file(directory, path, name, row, old)
            return known or self._file(directory, path, name, row, old, held)
        except SourceError as problem:
            if held is None or problem.errno in REPLACED:
                raise
            return self._kept(directory, name, held._replace(row=row), [problem.reason], old)

    def _kept(
        self,
        directory: Directory,
        name: bytes,
        held: ArchivedEntry,
        reasons: list[str],
        old: BaseEntries | WriteOnlyEntries,
    ) -> ArchivedEntry:
        """Return an unchanged entry as the base has it, because it could not be read."""
        for reason in reasons:
            kept = f"{reason}; the file is unchanged, so its copy in the last recovery point is kept"
            self._report.issue(join(directory.path, name), kept)
        return self._unchanged(directory, name, held, old)

    def _with_attributes(self, directory: Directory, name: bytes, known: ArchivedEntry) -> ArchivedEntry:
        """Add the extras that are read separately from the content. Raises SourceError."""
        path = join(directory.path, name)
        extras, missing, gone = self._file_reader.read_other(directory.fd, path, name or b".", known.row)
        if gone:
            self.gone.add(path)
        known = known._replace(extras=[*extras, *known.extras])
        return self._incomplete(path, missing, known) if missing or gone else known

    def _incomplete(self, path: bytes, missing: list[str], known: ArchivedEntry) -> ArchivedEntry:
        """Report the parts that could not be read, and mark the entry so that the next run tries again."""
        for reason in missing:
            self._report.issue(path, reason)
        return known._replace(row=known.row._replace(ctime_ns=UNTRUSTED_CTIME))

    def _same_file(
        self, directory: Directory, path: bytes, name: bytes, row: Row, old: BaseEntries | WriteOnlyEntries
    ) -> ArchivedEntry | None:
        """Return a large file that was too young to be trusted by the last run, if its bytes are still the same."""
        if row.size <= SMALL_BYTES_MAX or not isinstance(base := self._base, ArchiveBase):
            return None
        if not isinstance(old, BaseEntries) or (content := old.alike(name, row)) is None:
            return None
        holds = partial(base.holds, content, row.size)
        if (stored := self._file_reader.read_unchanged(directory.fd, path, name, row, content, holds)) is None:
            return None
        self._report.unchanged += 1
        known = ArchivedEntry(self._trusted(stored.row), stored.content, stored.extras)
        return self._incomplete(path, stored.missing, known) if stored.missing else known

    def _file(
        self,
        directory: Directory,
        path: bytes,
        name: bytes,
        row: Row,
        old: BaseEntries | WriteOnlyEntries,
        held: ArchivedEntry | None,
    ) -> ArchivedEntry:
        self._load_base()
        stored = self._file_reader.read_file(directory.fd, path, name, row, old.digest(name))
        if (
            held is not None
            and stored.missing
            and isinstance(old, BaseEntries)
            and stat_identity(stored.row) == stat_identity(row)
        ):
            return self._kept(directory, name, held._replace(row=row), stored.missing, old)
        self._count_read(is_new=name not in old)
        known = ArchivedEntry(self._trusted(stored.row), stored.content, stored.extras)
        missing = stored.missing if stored.steady else [*stored.missing, "changed while it was read"]
        return self._incomplete(path, missing, known) if missing else known

    def _count_read(self, *, is_new: bool) -> None:
        if is_new:
            self._report.new += 1
        else:
            self._report.changed += 1

    def _trusted(self, row: Row) -> Row:
        """Return the row, marked if the entry could change again without a trace.

        Only the change time counts: a program may set the modification time to any moment, often one in the future.
        """
        if row.ctime_ns < self._trusted_before_ns and is_held(row.ctime_ns):
            return row
        return row._replace(ctime_ns=UNTRUSTED_CTIME)

    def _load_base(self) -> None:
        """Load the small files and the chunks of the base when the first file has to be read."""
        if not self._is_base_loaded and self._base is not None:
            self._base.load_small_files(self._small_files)
            self._base.load_chunks(self._known_chunks)
        self._is_base_loaded = True
