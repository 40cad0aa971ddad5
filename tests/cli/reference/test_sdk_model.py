"""`cryo sdk-model`: the files are written where AWS_DATA_PATH finds them."""

from __future__ import annotations

import pytest

from cryostore.cli.verbs import run
from cryostore.wire.reference import sdk_model

COVERS = ("cli/reference.py",)


def written(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("options", "extensions"), [([], True), (["--no-extensions"], False)])
def test_the_folder_is_written(tmp_path, capsys, options, extensions):
    folder = tmp_path / "new" / "folder"
    assert run(["sdk-model", str(folder), *options]) == 0
    assert written(folder) == sdk_model.render(extensions=extensions)
    assert any(name.startswith("backupstorage/") for name in written(folder))
    assert capsys.readouterr().out == f"AWS_DATA_PATH={folder}\n"


def test_writing_again_replaces(tmp_path):
    assert run(["sdk-model", str(tmp_path)]) == 0
    before = written(tmp_path)
    for path in tmp_path.rglob("*.json*"):
        path.write_bytes(b"old")
    assert run(["sdk-model", str(tmp_path)]) == 0
    assert written(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, capsys):
    (tmp_path / "backupstorage").write_text("in the way")
    assert run(["sdk-model", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write ")
