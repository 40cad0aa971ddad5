"""`cryo serve`: its options become the configuration, and it prints its address."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryostore.cli.verbs import run
from cryostore.options.configuration import Configuration
from cryostore.server import run as server_run


@pytest.fixture
def configured(monkeypatch):
    """Collect the configurations that servers would have been started with."""
    found = []

    def serve(configuration, announce):
        found.append(configuration)
        announce("listening on http://127.0.0.1:1")

    monkeypatch.setattr(server_run, "serve", serve)
    monkeypatch.delenv("CRYO_DATA_DIR", raising=False)
    return found


def test_defaults(configured, capsys):
    assert run(["serve"]) == 0
    assert configured == [Configuration(data_dir=Path("cryo-data"), host="127.0.0.1", port=8734)]
    assert capsys.readouterr().out == "listening on http://127.0.0.1:1\n"


def test_options(configured, tmp_path):
    (tmp_path / "cert").touch()
    (tmp_path / "key").touch(mode=0o600)
    options = {
        "--data-dir": tmp_path,
        "--listen": "[::]:443",
        "--workers": 3,
        "--region": "eu-central-1",
        "--tls-cert": tmp_path / "cert",
        "--tls-key": tmp_path / "key",
        "--log-level": "debug",
        "--metrics": "[::1]:9100",
        "--reserve": 5,
    }
    assert run(["serve", *(str(part) for option in options.items() for part in option)]) == 0
    assert configured == [
        Configuration(
            data_dir=tmp_path,
            host="::",
            port=443,
            workers=3,
            region="eu-central-1",
            tls_cert=tmp_path / "cert",
            tls_key=tmp_path / "key",
            log_level="debug",
            metrics_host="::1",
            metrics_port=9100,
            reserve_bytes=5 << 20,
        )
    ]


def test_the_data_directory_may_come_from_the_environment(configured, monkeypatch, tmp_path):
    monkeypatch.setenv("CRYO_DATA_DIR", str(tmp_path))
    assert run(["serve"]) == 0
    assert run(["serve", "--data-dir", "elsewhere"]) == 0
    assert [one.data_dir for one in configured] == [tmp_path, Path("elsewhere")]


def test_other_machines_need_tls_or_insecure_listen(configured, capsys):
    assert run(["serve", "--listen", "0.0.0.0:80"]) == 2
    assert "--insecure-listen" in capsys.readouterr().err
    assert run(["serve", "--listen", "0.0.0.0:80", "--insecure-listen"]) == 0
    assert [one.host for one in configured] == ["0.0.0.0"]


def test_the_address_of_metrics_follows_the_same_rule(configured, capsys):
    assert run(["serve", "--metrics", "0.0.0.0:9100"]) == 2
    assert "--insecure-listen" in capsys.readouterr().err
    assert run(["serve", "--metrics", "9100"]) == 2
    assert "--metrics must be HOST:PORT" in capsys.readouterr().err
    assert configured == []


def test_a_server_on_a_shared_store(cryo, place, configured, tmp_path, monkeypatch):
    """Named on the command line, in the environment and in a file, in this order of precedence."""
    path = tmp_path / "cryo.toml"
    path.write_text(f'catalog = "{place.catalog}"\nblobs = "file"\nlisten = "127.0.0.1:1"\nquarantine = "1h"\n')
    monkeypatch.setenv("CRYO_KEYRING", place.keyring)
    monkeypatch.setenv("CRYO_LISTEN", "127.0.0.1:2")
    cryo("serve", "--config", path, "--blobs", place.blobs, "--workers", 1)
    (found,) = configured
    assert (found.data_dir, found.catalog, found.blobs, found.keyring) == (None, *place)
    assert (found.port, found.workers, found.settings.quarantine_ms) == (2, 1, 3_600_000)
    assert "unknown option listn" in cryo("serve", "--config", _written(path, 'listn = "x"'), code=2).err


def _written(path, text):
    path.write_text(text)
    return path
