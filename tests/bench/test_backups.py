"""Measurement of whole backups, on a folder of a few files."""

from __future__ import annotations

from bench.backups import Figure, fastest_peer, measure, rows, stored_bytes, warm
from bench.peers.backup_tools import Cryo


def test_our_backup_runs_all_steps(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"x" * 10_000)
    warm(source)
    figures = list(measure("tiny", Cryo(tmp_path / "cryo"), source, tmp_path / "restored"))
    assert [figure.step for figure in figures] == ["first", "again", "restore", "verify"]
    assert all(figure.seconds > 0 and figure.memory_peak_bytes > 1_000_000 for figure in figures)
    assert stored_bytes(tmp_path / "cryo" / "repository") > 0


def test_cryo_is_compared_with_the_fastest_peer():
    figures = [
        Figure("a", "first", tool, seconds, 1.0, 1, 1) for tool, seconds in (("cryo", 2.0), ("b", 5.0), ("c", 4.0))
    ]
    assert fastest_peer(figures, figures[0], lambda figure: figure.seconds) == 0.5
    assert fastest_peer(figures, figures[1], lambda figure: figure.seconds) is None
    assert [row[-2:] for row in rows(figures)] == [("0.50", "0.5"), ("", ""), ("", "")]
