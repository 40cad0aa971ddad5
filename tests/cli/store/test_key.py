"""`cryo key` on a real store, as an operator uses it."""

from __future__ import annotations

import io
import json
import os
import shlex
import stat
import sys

import pytest

from cryostore.chunks.keyring import KeyringDocument, MasterKey
from cryostore.chunks.keyring.sources import FileKeyring
from cryostore.cli.verbs import run
from cryostore.core.time import wall_clock
from support.stores.in_process import opened
from support.stores.keyrings import BOTH, OLD_ALONE, printing, write_keyring

DATA = b"what is in the backup"


@pytest.fixture(autouse=True)
def _nobodys_keyring(monkeypatch):
    """Only the test names a keyring."""
    monkeypatch.delenv("CRYO_KEYRING", raising=False)


@pytest.fixture
def data_dir(tmp_path):
    """A store with something in it."""
    with opened(tmp_path / "data", clock=wall_clock) as store:
        store.api().backup({"name": DATA})
    return tmp_path / "data"


@pytest.fixture
def cryo(data_dir, capsys):
    """Run `cryo key VERB` on the store with --json; return exit code, result and errors."""

    def call(verb, *arguments, json_wanted=True):
        capsys.readouterr()
        code = run(["key", verb, *map(str, arguments), *(["--json"] if json_wanted else [])])
        out, err = capsys.readouterr()
        assert SECRETS.isdisjoint(err.split())
        return code, json.loads(out) if json_wanted and out else out, err

    return lambda verb, *arguments, **more: call(verb, "--data-dir", data_dir, *arguments, **more)


SECRETS = {key.secret.hex() for key in BOTH.keys.values()}


def readable(data_dir, **options):
    """Return whether the store opens and its backup can be read."""
    with opened(data_dir, clock=wall_clock, **options) as store:
        api = store.api()
        arn = api.backup({"name": DATA})
        return api.restored(arn) == {"name": DATA}


def test_the_life_of_keys(cryo, data_dir):
    """List, rotate and forget keys; the list shows the real state."""
    code, before, _ = cryo("list")
    (key,) = before["keys"]
    assert code == 0
    assert before["keyring"] == str(data_dir / "keyring.json")
    assert (key["active"], key["in_use"], key["in_keyring"]) == (True, True, True)
    assert key["wraps"] == {"secret": 1, "access_key": 1, "vault_key": 1, "record": 2}
    code, outcome, _ = cryo("rotate")
    assert (code, outcome["finished"], outcome["added"]) == (0, True, True)
    code, after, _ = cryo("list")
    states = {one["key_id"]: (one["active"], one["in_use"], bool(one["wraps"])) for one in after["keys"]}
    assert states == {key["key_id"]: (False, False, False), outcome["key_id"]: (True, True, True)}
    assert cryo("forget", outcome["key_id"])[0] == 2
    assert cryo("forget", key["key_id"])[:2] == (0, {"forgotten": key["key_id"]})
    assert [one["key_id"] for one in cryo("list")[1]["keys"]] == [outcome["key_id"]]
    assert readable(data_dir)


def test_results_as_text(cryo, data_dir):
    _, words, _ = cryo("list", json_wanted=False)
    assert "(active, in use): wraps 1 access_key, 2 record, 1 secret, 1 vault_key" in words
    _, words, _ = cryo("rotate", json_wanted=False)
    assert words.endswith("finished: nothing is wrapped with another key\n")
    _, words, _ = cryo("rotate", "--vault", "Default", json_wanted=False)
    assert words == "vault Default has 2 data keys\n"
    assert cryo("rotate", "--vault", "nowhere")[0] == 2
    old = next(name for name in FileKeyring(data_dir / "keyring.json").document().keys)
    assert "no longer in the keyring" in cryo("forget", old, json_wanted=False)[1]


def test_an_export_is_a_keyring_that_only_its_owner_can_read(cryo, data_dir, tmp_path):
    target = tmp_path / "copy.json"
    code, outcome, _ = cryo("export", "--to", target)
    assert (code, outcome["file"]) == (0, str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert target.read_bytes() == (data_dir / "keyring.json").read_bytes()
    code, _, err = cryo("export", "--to", target)
    assert code == 2
    assert "already exists" in err
    assert cryo("export", "--to", tmp_path / "nowhere" / "copy")[0] == 2
    code, _, err = cryo("export")
    assert code == 2
    assert "--to FILE, or --paper" in err
    assert [path.name for path in tmp_path.glob("~*")] == []


def test_a_keyring_from_paper(cryo, data_dir, tmp_path, monkeypatch):
    """Print, lose and type in a keyring."""
    _, paper, _ = cryo("export", "--paper", json_wanted=False)
    assert cryo("export", "--paper", "--to", tmp_path / "paper")[0] == 0
    assert (tmp_path / "paper").read_text() == paper
    kept = (data_dir / "keyring.json").read_bytes()
    (data_dir / "keyring.json").unlink()
    assert cryo("list")[0] == 2
    (tmp_path / "typed").write_text(paper.lower().replace("  ", " "))
    code, outcome, _ = cryo("import", tmp_path / "typed")
    assert (code, len(outcome["added"])) == (0, 1)
    assert (data_dir / "keyring.json").read_bytes() == kept
    assert stat.S_IMODE((data_dir / "keyring.json").stat().st_mode) == 0o600
    assert cryo("import", tmp_path / "paper")[1]["added"] == []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(paper.encode())))
    assert cryo("import", "-")[1]["added"] == []
    assert readable(data_dir)


def test_an_export_is_verified_against_the_keys_of_the_store(cryo, data_dir, tmp_path):
    cryo("export", "--to", tmp_path / "copy")
    cryo("export", "--paper", "--to", tmp_path / "paper")
    for name in ("copy", "paper"):
        code, found, _ = cryo("verify", tmp_path / name)
        assert (code, len(found["needed"]), found["missing"], found["wrong"]) == (0, 1, [], [])
    _, words, _ = cryo("verify", tmp_path / "copy", json_wanted=False)
    assert words == "the export has all 1 master keys that the store needs\n"
    document = FileKeyring(tmp_path / "copy").document()
    wrong = MasterKey(document.active.key_id, bytes(32))
    write_keyring(tmp_path / "wrong", KeyringDocument(wrong, {wrong.key_id: wrong}))
    code, found, _ = cryo("verify", tmp_path / "wrong")
    assert (code, found["wrong"]) == (1, [wrong.key_id])
    cryo("rotate")
    code, found, _ = cryo("verify", tmp_path / "copy")
    assert (code, found["missing"]) == (1, found["needed"])
    assert "the export lacks master key" in cryo("verify", tmp_path / "copy", json_wanted=False)[1]


def test_the_error_names_the_line_of_a_typing_mistake(cryo, tmp_path):
    _, paper, _ = cryo("export", "--paper", json_wanted=False)
    lines = paper.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("02"))
    lines[place] = lines[place][:-1] + ("A" if lines[place][-1] != "A" else "B")
    (tmp_path / "typed").write_text("\n".join(lines))
    code, _, err = cryo("import", tmp_path / "typed", json_wanted=False)
    assert code == 2
    assert err.startswith("error: line 02 has a mistake")


@pytest.mark.parametrize("content", [b"", b"nothing", b"{}", b"\xff" * 100])
def test_another_file_is_not_imported(cryo, data_dir, tmp_path, content):
    before = (data_dir / "keyring.json").read_bytes()
    (tmp_path / "file").write_bytes(content)
    assert cryo("import", tmp_path / "file")[0] == 2
    assert cryo("import", tmp_path / "nowhere")[0] == 2
    assert (data_dir / "keyring.json").read_bytes() == before


def test_missing_keys_are_added_and_nothing_is_replaced(cryo, data_dir, tmp_path):
    mine = FileKeyring(data_dir / "keyring.json").document()
    write_keyring(tmp_path / "more", BOTH)
    assert cryo("import", tmp_path / "more")[1]["added"] == ["old", "new"]
    merged = FileKeyring(data_dir / "keyring.json").document()
    assert merged.active.is_same(mine.active)
    assert merged.keys.keys() == {"old", "new", *mine.keys}
    write_keyring(tmp_path / "other", BOTH.encode().decode().replace("AAEC", "AQEC"))
    code, _, err = cryo("import", tmp_path / "other")
    assert code == 2
    assert "differs from the given key" in err
    assert readable(data_dir)


def test_the_keyring_is_moved_out_of_the_data_directory(cryo, data_dir, tmp_path, monkeypatch):
    """Every command takes the option or the variable that names its new place."""
    elsewhere = tmp_path / "elsewhere.json"
    (data_dir / "keyring.json").rename(elsewhere)
    assert cryo("list")[0] == 2
    assert cryo("list", "--keyring", elsewhere)[0] == 0
    assert run(["gc", "--data-dir", str(data_dir)]) == 2
    assert run(["gc", "--data-dir", str(data_dir), "--keyring", f"file:{elsewhere}"]) == 0
    monkeypatch.setenv("CRYO_KEYRING", str(elsewhere))
    assert run(["jobs", "--data-dir", str(data_dir)]) == 0
    assert cryo("list")[1]["keyring"] == str(elsewhere)
    assert cryo("rotate")[1]["finished"]
    assert readable(data_dir, keyring=str(elsewhere))
    assert not (data_dir / "keyring.json").exists()
    cryo("export", "--to", data_dir / "keyring.json")
    code, _, err = cryo("list")
    assert code == 2
    assert "names another keyring" in err


def test_a_keyring_for_elsewhere_is_made_and_rotated(cryo, tmp_path, capsys, monkeypatch):
    """A command prints the keyring: make it, install it, and replace it by one with a new key."""
    document, other = tmp_path / "document", tmp_path / "other"
    assert run(["key", "create", "--to", str(document), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["active"]
    assert run(["key", "create", "--to", str(document)]) == 2
    place = f"command:{shlex.join(printing(document))}"
    with opened(tmp_path / "other-data", clock=wall_clock, keyring=place):
        pass
    where = ["--data-dir", str(tmp_path / "other-data"), "--keyring", place]
    capsys.readouterr()
    assert run(["key", "rotate", *where]) == 2
    assert "--with-new-key" in capsys.readouterr().err
    assert run(["key", "export", *where, "--with-new-key", "--to", str(other), "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert first in second["keys"]
    assert second["active"] != first
    other.rename(document)
    assert run(["key", "rotate", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key_id"] == second["active"]
    assert run(["key", "import", *where, str(document)]) == 2
    assert "only a keyring in a file" in capsys.readouterr().err


def test_a_variable_is_read_once(cryo, data_dir, monkeypatch):
    text = (data_dir / "keyring.json").read_text()
    (data_dir / "keyring.json").unlink()
    monkeypatch.setenv("CRYOSTORE_TEST_KEYS", text)
    assert (
        cryo("list", "--keyring", "env:CRYOSTORE_TEST_KEYS")[1]["keyring"] == "environment variable CRYOSTORE_TEST_KEYS"
    )
    assert "CRYOSTORE_TEST_KEYS" not in os.environ


def test_a_missing_key_is_an_issue(cryo, data_dir):
    with opened(data_dir, clock=wall_clock) as store:
        lost = BOTH.active.wrap(b"x" * 32, b"")
        store.service.context.database.write(lambda t: t.run("UPDATE vault_key SET wrapped = :wrapped", wrapped=lost))
    code, found, _ = cryo("list")
    assert code == 1
    assert [key["in_keyring"] for key in found["keys"]] == [True, False]
    assert "NOT IN THE KEYRING" in cryo("list", json_wanted=False)[1]
    code, outcome, _ = cryo("rotate")
    assert (code, outcome["finished"], outcome["left"]) == (1, False, {"new": 1})
    assert "left: 1 wrapped with new" in cryo("rotate", json_wanted=False)[1]


@pytest.mark.parametrize("place", ["vault:x", "env:1", "command:", "file:"])
def test_an_invalid_place(cryo, place):
    code, _, err = cryo("list", "--keyring", place)
    assert code == 2
    assert "--keyring" in err


def test_the_keyring_of_another_store_is_refused_with_a_hint(cryo, data_dir, tmp_path):
    write_keyring(data_dir / "keyring.json", OLD_ALONE)
    for verb in ("list", "rotate"):
        code, _, err = cryo(verb)
        assert code == 2
        assert json.loads(err)["hint"].startswith("put the keyring of this store there")
