"""Files of a recovery point that damaged chunks affect, as `cryo scrub` reports them."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

from cryostore.cli.verbs import run
from support.archives.agent import write


def spoil_content(data_dir):
    """Flip a bit of the largest chunk."""
    with closing(sqlite3.connect(data_dir / "catalog.sqlite")) as catalog:
        query = "SELECT name, pack_offset FROM chunk JOIN pack USING (pack_number) ORDER BY sealed_length DESC LIMIT 1"
        name, offset = catalog.execute(query).fetchone()
    (pack,) = data_dir.rglob(f"{name}.pack")
    content = bytearray(pack.read_bytes())
    content[offset + 200] ^= 1
    pack.write_bytes(content)


def test_scrub_reports_whether_files_are_affected_or_only_unused_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CRYO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    write(tmp_path / "source", {name: random.Random(name).randbytes(20_000) for name in "abc"})
    source = str(tmp_path / "source")
    assert run(["backup", source, "--resource", "tree"]) == 0
    (tmp_path / "source" / "c").unlink()
    assert run(["backup", source, "--resource", "tree"]) == 0
    spoil_content(tmp_path / "data")
    capsys.readouterr()

    def files_line(nth):
        assert run(["scrub"]) == 1
        said = capsys.readouterr().out.splitlines()
        return said[[place for place, line in enumerate(said) if line.startswith("affected: ")][nth] + 2].strip()

    assert [files_line(nth) for nth in (0, 1)] == [
        "2 of its files are affected: `cryo verify` names them",
        "3 of its files are affected: `cryo verify` names them",
    ]
    assert run(["backup", source, "--resource", "tree"]) == 0
    capsys.readouterr()
    assert files_line(0).startswith("none of its files is affected")
    assert files_line(1) == "1 of its files are affected: `cryo verify` names them"
