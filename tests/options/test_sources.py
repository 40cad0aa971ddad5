"""Sources of option values, their errors and their precedence."""

from __future__ import annotations

import pytest

from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB, Limits
from cryostore.core.time import DAY_MS, HOUR_MS
from cryostore.options.configuration import Configuration, ConnectionSettings, from_json, to_json
from cryostore.options.declared import configuration_of
from cryostore.options.sources import has_password, merged, read_command_line, read_environment, read_file
from cryostore.service.settings import Settings

EVERYTHING = """
data_dir = "/data"
keyring = "env:RING"
listen = "[::1]:1"
workers = 3
region = "eu-1"
insecure_listen = true
metrics = "127.0.0.1:2"
log_level = "debug"
drain = "5s"
reserve = 7
quarantine = "2h"
collection_period = "90m"
scrub_period = "2d"
idle_job = "2h"
idle_restore_job = "3h"
listed_jobs = "4d"
idempotency = "5h"
start_window = "2h"
complete_window = "1d"
summary_checksum = "store"
pack_size = "32MiB"
maintenance_period = "10s"
threads = 8
body_memory = 134217728
body_wait = "1500ms"
shutdown = "1m"

[connection]
connections_max = 5
head_max = "0.5s"
drain_bytes_max = "1MiB"

[limits]
chunk_bytes_max = "1MiB"
page_items_max = 10
"""


@pytest.fixture
def file(tmp_path):
    """Write a configuration file, and return its path."""

    def write(text, mode=0o600):
        path = tmp_path / "cryo.toml"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def test_a_file_with_everything(file):
    found = configuration_of(merged({}, {}, read_file(file(EVERYTHING))))
    assert found == Configuration(
        data_dir=found.data_dir,
        keyring="env:RING",
        host="::1",
        port=1,
        workers=3,
        region="eu-1",
        insecure_listen=True,
        metrics_host="127.0.0.1",
        metrics_port=2,
        log_level="debug",
        drain_seconds=5.0,
        reserve_bytes=7 * MIB,
        threads=8,
        body_bytes_in_flight_max=128 * MIB,
        body_wait_seconds_max=1.5,
        shutdown_seconds_max=60.0,
        maintenance_seconds=10.0,
        limits=Limits(chunk_bytes_max=MIB, page_items_max=10),
        connection=ConnectionSettings(connections_max=5, head_seconds_max=0.5, drain_bytes_max=MIB),
        settings=Settings(
            quarantine_ms=2 * HOUR_MS,
            collection_period_ms=HOUR_MS * 3 // 2,
            scrub_period_ms=2 * DAY_MS,
            idle_job_ms=2 * HOUR_MS,
            idle_restore_job_ms=3 * HOUR_MS,
            listed_jobs_ms=4 * DAY_MS,
            idempotency_ms=5 * HOUR_MS,
            start_window_minutes=120,
            complete_window_minutes=1440,
            summary_checksum="store",
            pack_bytes_target=32 * MIB,
        ),
    )
    assert str(found.data_dir) == "/data"
    assert from_json(to_json(found)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers = 0", "workers is 0: it must be a whole number from 1 to 64"),
        ('workers = "many"', "workers is 'many': it must be a whole number"),
        ("workers = true", "workers is True: it must be"),
        ("workers = 1.5", "workers is 1.5: it must be"),
        ('quarantine = "soon"', "quarantine is 'soon': it must be a duration"),
        ("quarantine = 24", "quarantine is 24: it must be a duration"),
        ('collection_period = "1s"', "collection_period is '1s'"),
        ('pack_size = "1KiB"', "pack_size is '1KiB': it must be a number of bytes from 1048576"),
        ('log_level = "loud"', "log_level is 'loud': it must be one of"),
        ("insecure_listen = 1", "insecure_listen is 1: it must be true or false"),
        ("data_dir = 5", "data_dir is 5: it must be a path"),
        ('region = ""', "region is '': it must be a region"),
        ('listen = "8734"', "--listen must be HOST:PORT"),
        ("[limits]\nchunk_bytes_max = 67108865", "limits.chunk_bytes_max is 67108865: it must be"),
        ("worker = 1", "unknown option worker"),
        ("[limits]\nnothing = 1", "unknown option limits.nothing"),
        ("[server]\nworkers = 1", "unknown option server"),
        ("limits = 5", "limits must be a table"),
        ("workers = ", "is not valid TOML"),
    ],
)
def test_an_invalid_file_is_refused(file, text, words):
    """The error names the file, the key, the value and the rule."""
    path = file(text)
    with pytest.raises(ConfigurationError) as refused:
        read_file(path)
    assert str(path) in refused.value.message
    assert words in refused.value.message


def test_a_misspelt_key_gets_a_hint(file):
    with pytest.raises(ConfigurationError) as refused:
        read_file(file("quarantin = '1h'"))
    assert refused.value.hint == "did you mean quarantine?"


def test_a_file_that_is_not_a_configuration(tmp_path, file):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_file(tmp_path / "absent")
    path = file("")
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="is not valid TOML"):
        read_file(path)
    with pytest.raises(ConfigurationError, match="too large"):
        read_file(file("#" * (1 << 20) + "\n"))


def test_a_password_in_a_file_that_others_may_read(file):
    text = 'catalog = "postgresql://u:secret@h/d"\nblobs = "s3://b"\n'
    assert read_file(file(text))["catalog"].value == "postgresql://u:secret@h/d"
    for mode in (0o640, 0o604):
        with pytest.raises(ConfigurationError, match="holds a password") as refused:
            read_file(file(text, mode))
        assert "secret" not in refused.value.message + refused.value.hint
    assert read_file(file(text.replace(":secret", ""), 0o644))


@pytest.mark.parametrize(
    ("url", "has"),
    [
        ("postgresql://u:p@h/d", True),
        ("postgresql://u@h/d", False),
        ("postgresql://u:p?w@h/d", True),
        ("postgresql://u:1/w@h/d", True),
        ("postgresql://u@h:1/d?options=a:@b", False),
        ("postgresql://h/d?password=x", True),
        ("postgresql://h/d?sslmode=require", False),
        ("/a/path", False),
        ("postgresql://[", False),
        ("postgresql://u:p@a:1,[::1]:2/d", True),
        ("postgresql://u@a:1,[::1]:2/d", False),
        ("postgresql://a:1,b:2/d", False),
    ],
)
def test_a_password_in_a_url(url, has):
    assert has_password(url) is has


def test_a_password_on_the_command_line_is_refused():
    with pytest.raises(ConfigurationError) as refused:
        read_command_line({"catalog": "postgresql://u:secret@h/d"})
    assert "CRYO_CATALOG" in refused.value.hint
    assert "secret" not in refused.value.message


def test_precedence_is_command_line_then_environment_then_file(file):
    path = file('workers = 1\nregion = "file"\nlog_level = "debug"\nthreads = 5')
    environment = read_environment({"CRYO_WORKERS": "2", "CRYO_REGION": "environment", "CRYO_THREADS": "", "X": "y"})
    line = read_command_line({"workers": "3", "region": None})
    assert merged(line, environment, read_file(path)) == {
        "workers": 3,
        "region": "environment",
        "log_level": "debug",
        "threads": 5,
    }


def test_a_variable_means_the_same_as_the_file():
    values = merged(
        read_environment(
            {
                "CRYO_INSECURE_LISTEN": "yes",
                "CRYO_LIMITS_CHUNK_BYTES_MAX": "4096",
                "CRYO_CONNECTION_HEAD_MAX": "2s",
                "CRYO_PACK_SIZE": "2 MiB",
                "CRYO_SCRUB_PERIOD": "0s",
            }
        )
    )
    found = configuration_of(values)
    assert (found.insecure_listen, found.limits.chunk_bytes_max) == (True, 4096)
    assert (found.connection.head_seconds_max, found.settings.pack_bytes_target) == (2.0, 2 * MIB)
    assert found.settings.scrub_period_ms == 0
    with pytest.raises(ConfigurationError, match="CRYO_WORKERS is '-1'"):
        read_environment({"CRYO_WORKERS": "-1"})


def test_a_directory_and_a_shared_store_exclude_each_other(file):
    """The error names both sources."""
    path = file('data_dir = "/data"')
    with pytest.raises(ConfigurationError) as refused:
        merged(read_command_line({"catalog": "postgresql://h/d"}), {}, read_file(path))
    assert f"data_dir in {path} and --catalog exclude each other" in refused.value.message
    with pytest.raises(ConfigurationError, match="CRYO_DATA_DIR and --blobs"):
        merged(read_command_line({"blobs": "s3://b"}), read_environment({"CRYO_DATA_DIR": "x"}), {})


def test_a_shared_store_needs_all_three():
    whole = {"catalog": "postgresql://u:secret@h/d", "blobs": "s3://b/p", "keyring": "env:X"}
    found = configuration_of(whole)
    assert (found.data_dir, found.catalog, found.blobs) == (None, whole["catalog"], "s3://b/p")
    assert "secret" not in repr(found)
    assert from_json(to_json(found)) == found
    for name in whole:
        with pytest.raises(ConfigurationError, match=f"{name} is not given|no store"):
            configuration_of({key: value for key, value in whole.items() if key != name})
