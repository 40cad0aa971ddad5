"""Checks of a shared store, as `cryo doctor` prints them: each part, and that the three belong together."""

from __future__ import annotations

import json
import os

import pytest

from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.cli import doctor
from cryostore.cli.verbs import run
from cryostore.core.errors import StorageUnavailableError
from cryostore.core.time import wall_clock
from cryostore.maintenance.diagnosis import ERROR, OK, WARNING
from cryostore.maintenance.diagnosis import catalog as diagnosis_catalog
from cryostore.maintenance.diagnosis.stores import check_blobs, check_shared
from support.stores.shared_store import ON_PATHS, ON_SERVICES, SharedStore, fresh_place, missing_services, prepared


@pytest.fixture(params=[ON_PATHS, ON_SERVICES])
def place(request, tmp_path):
    """A prepared shared store."""
    if request.param == ON_SERVICES and missing_services():
        pytest.skip(missing_services())
    with prepared(tmp_path / "store", request.param) as place:
        yield place


@pytest.fixture
def doctored(capsys, monkeypatch):
    """Run `cryo doctor`; return its exit code and its results by subject."""
    monkeypatch.setattr(doctor, "_fuse", lambda: iter(()))  # does not depend on whether this machine has FUSE

    def call(place, *more, as_options=True):
        given = []
        for name, value in place._asdict().items():
            if as_options and not (name == "catalog" and "://" in value):
                given += [f"--{name}", value]
            else:  # the URL may contain a password
                monkeypatch.setenv(f"CRYO_{name.upper()}", value)
        capsys.readouterr()
        code = run(["doctor", "--json", *given, *map(os.fspath, more)])
        return code, {line["about"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}

    return call


def rows_of(store):
    return store.rows("SELECT version FROM schema_version ORDER BY version")


@pytest.mark.parametrize("as_options", [True, False], ids=["options", "variables"])
def test_all_is_well(doctored, place, as_options):
    code, said = doctored(place, as_options=as_options)
    levels = {about: line["level"] for about, line in said.items() if about != "catalog settings"}
    assert set(levels.values()) == {OK}, said
    assert said.keys() >= {"keyring", "catalog", "schema", "clock", "blobs", "blob service", "store", "vault", "trial"}
    assert code in {0, 1}, "a server for tests need not have the recommended settings"
    if "://" in place.catalog:
        assert said.keys() >= {"rights", "catalog settings", "bucket"}
        assert "PostgreSQL" in said["catalog"]["found"]


def test_no_write_writes_nothing(doctored, place):
    before = SharedStore(place)
    footprint = before.footprint()
    before.service.close()
    _, said = doctored(place, "--no-write")
    assert said.keys().isdisjoint({"trial", "blob service"})
    after = SharedStore(place)
    assert after.footprint() == footprint
    after.service.close()


def test_a_configuration_file_names_the_store(doctored, tmp_path, monkeypatch):
    with prepared(tmp_path / "store") as place:
        config = tmp_path / "cryo.toml"
        config.write_text("".join(f'{name} = "{value}"\n' for name, value in place._asdict().items()))
        assert run(["doctor", "--json", "--config", str(config)]) == 0
        config.write_text(f'data_dir = "{tmp_path}"\n')
        assert run(["doctor", "--config", str(config)]) != 0


@pytest.mark.parametrize("kind", [ON_PATHS, ON_SERVICES])
@pytest.mark.parametrize("more", [[], ["--no-write"]], ids=["write", "no write"])
def test_an_unprepared_store_is_one_error_with_the_advice_to_run_init(doctored, tmp_path, kind, more):
    """A missing keyring, catalog and blob store are one error, not three."""
    if kind == ON_SERVICES and missing_services():
        pytest.skip(missing_services())
    with fresh_place(tmp_path, kind) as place:
        code, said = doctored(place, *more)
        assert code == 2
        assert [about for about, line in said.items() if line["level"] != OK] == ["store"]
        assert "cryo init" in said["store"]["advice"]
        assert list(tmp_path.iterdir()) == []


def test_a_missing_part_is_named_and_the_others_are_checked(doctored, tmp_path):
    with prepared(tmp_path / "store") as place:
        _, said = doctored(place._replace(keyring=str(tmp_path / "none.json")))
        assert (said["keyring"]["level"], said["catalog"]["level"], said["blobs"]["level"]) == (ERROR, OK, OK)
        _, said = doctored(place._replace(blobs=str(tmp_path / "none")))
        assert (said["catalog"]["level"], said["blobs"]["level"]) == (OK, ERROR)
        assert not (tmp_path / "none").exists()
        code, said = doctored(place._replace(catalog=str(tmp_path / "none.sqlite")))
        assert (said["catalog"]["level"], said["blobs"]["level"], code) == (ERROR, OK, 2)
        assert said.keys().isdisjoint({"store", "vault"})
        assert all(line["advice"] for line in said.values() if line["level"] != OK)


def test_parts_of_two_stores_are_an_error(doctored, tmp_path):
    with prepared(tmp_path / "one") as one, prepared(tmp_path / "two") as two:
        for mixed in (one._replace(blobs=two.blobs), one._replace(keyring=two.keyring)):
            code, said = doctored(mixed)
            assert (code, said["store"]["level"]) == (2, ERROR)
            assert said["store"]["advice"]
            assert "vault" not in said


def test_a_catalog_of_an_older_version_is_reported_and_not_upgraded(doctored, place):
    store = SharedStore(place)
    versions = rows_of(store)
    newest = versions[-1][0]
    work = store.service.context.database.write
    work(lambda transaction: transaction.run("DELETE FROM schema_version WHERE version = :newest", newest=newest))
    code, said = doctored(place)
    assert (code, said["schema"]["level"]) == (1, WARNING)
    assert "init --upgrade" in said["schema"]["advice"]
    assert "vault" not in said
    assert rows_of(store) == versions[:-1]
    work(lambda transaction: transaction.run("INSERT INTO schema_version (version) VALUES (:newest)", newest=newest))
    store.service.close()


def test_a_catalog_that_is_too_new_is_an_error(doctored, place):
    store = SharedStore(place)
    work = store.service.context.database.write
    work(lambda transaction: transaction.run("INSERT INTO schema_version (version) VALUES (999)"))
    code, said = doctored(place)
    assert (code, said["schema"]["level"]) == (2, ERROR)
    work(lambda transaction: transaction.run("DELETE FROM schema_version WHERE version = 999"))
    store.service.close()


def test_a_wrong_clock_and_a_claim_are_reported(tmp_path, monkeypatch):
    if missing_services():
        pytest.skip(missing_services())
    with prepared(tmp_path / "store", ON_SERVICES) as place:
        store = SharedStore(place)
        insert = (
            "INSERT INTO claim (work, holder, fence, until_ms, begun_ms, finished_ms, doing, place)"
            " VALUES ('scrub', 'host/1', 1, 0, 0, 0, '', '') ON CONFLICT (work) DO UPDATE SET holder = excluded.holder"
        )
        store.service.context.database.write(lambda transaction: transaction.run(insert))
        store.service.close()
        said = {each.about: each for each in check_shared(place, now_ms=wall_clock() + 3_600_000, trial_name=None)}
        assert said["clock"].level == WARNING
        assert "ahead of the catalog" in said["clock"].found
        assert "scrub is done by host/1" in said["background work"].found
        assert "expired" in said["background work"].found
        monkeypatch.setattr(diagnosis_catalog, "PREDICATE_LOCKS_MIN", 10**9)
        said = {each.about: each for each in check_shared(place, now_ms=wall_clock(), trial_name=None)}
        assert said["catalog settings"].level == WARNING


def test_a_directory_or_a_server_besides_the_shared_store_is_refused(doctored, tmp_path):
    with prepared(tmp_path / "store") as place:
        for more in (["--data-dir", tmp_path], ["--endpoint-url", "http://127.0.0.1:1"]):
            code, said = doctored(place, *more)
            assert code != 0
            assert not said


class Versioned(MemoryBlobs):
    """Blobs of a service that keeps old versions of the markers, or refuses to list them."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def has_versions(self, _key):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Unreachable(MemoryBlobs):
    """Blobs that cannot be read."""

    def get(self, *_, **__):
        raise StorageUnavailableError("no answer", hint="wait")


def blob_levels(store, **options):
    return {found.about: found.level for found in check_blobs(store, "the place", **options)}


def test_an_empty_blob_store_is_a_warning():
    store = MemoryBlobs()
    assert blob_levels(store, trial_name=None) == {"blobs": WARNING}
    assert blob_levels(store, trial_name="unused") == {"blobs": WARNING, "blob service": OK}
    assert not list(store.list()), "the trial leaves nothing behind"


def test_an_unreachable_blob_store_has_no_further_checks():
    (found,) = check_blobs(Unreachable(), "the place", trial_name="unused")
    assert (found.level, found.found, found.advice) == (ERROR, "no answer", "wait")


def test_a_failed_trial_is_an_error():
    class ReadOnly(MemoryBlobs):
        def put(self, *_):
            raise StorageUnavailableError("refused")

    assert blob_levels(ReadOnly(), trial_name="unused")["blob service"] == ERROR


def test_the_versions_of_a_bucket(monkeypatch):
    marker = type("Marker", (), {"store_id": "store", "number": 1})()
    monkeypatch.setattr("cryostore.maintenance.diagnosis.stores.newest_marker", lambda _: marker)
    for answer, level in ((False, OK), (True, WARNING), (StorageUnavailableError("refused"), ERROR)):
        assert blob_levels(Versioned(answer), trial_name=None) == {"blobs": OK, "bucket": level}
