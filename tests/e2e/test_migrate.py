"""`cryo migrate` killed at random moments: the last run finishes, and the content of the store is unchanged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import ExitStack

import pytest

from cryostore.core.time import wall_clock
from cryostore.service.settings import Settings
from support.processes.serving import CRYO
from support.services import postgres, s3
from support.stores.collecting import noise
from support.stores.in_process import opened
from support.stores.moving import DirectoryStore, opened_at, shared
from support.waiting import until

POINTS = 6
RUN_SECONDS_MAX = 300


class Moving:
    """A store of many small packs, and `cryo migrate` as a process."""

    def __init__(self, folder, **where):
        self.folder, self.data_dir = folder, folder / "data"
        with opened(self.data_dir, clock=wall_clock, settings=Settings(pack_bytes_target=20_000)) as store:
            api = store.api()
            self.contents = {}
            for point in range(POINTS):
                contents = {f"object {number}": noise(100 * point + number, 2000) for number in range(40)}
                self.contents[api.backup(contents)] = contents
        self.keyring = folder / "keyring.json"
        self.keyring.write_bytes((self.data_dir / "keyring.json").read_bytes())
        self.keyring.chmod(0o600)
        self.nodes = shared(folder / "shared", self.keyring, **where)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("CRYO_")}
        self.environment |= {"CRYO_CATALOG": self.nodes.place.catalog, "CRYO_BLOBS": self.nodes.place.blobs}

    def start(self, *more):
        return subprocess.Popen(
            [*CRYO, "migrate", "--data-dir", str(self.data_dir), "--keyring", str(self.keyring), *more],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *more):
        """Let a run finish; return its duration in seconds."""
        begun = time.monotonic()
        process = self.start(*more)
        _, said = process.communicate(timeout=RUN_SECONDS_MAX)
        assert process.returncode == 0, said
        return time.monotonic() - begun

    def kill_after(self, seconds):
        """Kill a run after some seconds; return False if it ended before that."""
        process = self.start()
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=RUN_SECONDS_MAX)
        assert process.returncode in (0, -signal.SIGKILL)
        return process.returncode != 0

    def kill_at(self, packs):
        """Kill a run once `packs` packs are copied, unless it has ended by then."""
        process = self.start()
        place = self.folder / "shared" / "blobs" / "packs"
        until(
            lambda: process.poll() is not None or len(list(place.glob("*/*"))) >= packs,
            seconds_max=RUN_SECONDS_MAX,
            pause_seconds=0.002,
        )
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=RUN_SECONDS_MAX)

    def check_contents(self, place):
        with opened_at(place, wall_clock) as store:
            for arn, contents in self.contents.items():
                assert store.api.restored(arn) == contents


def check_after_kills(moving, kills, seed):
    """Kill run after run at random moments, then let one finish."""
    chance = random.Random(seed)
    seconds_max = 3.0
    for _ in range(kills):
        if not moving.kill_after(chance.uniform(0.3, seconds_max)):
            seconds_max = max(seconds_max / 1.5, 0.5)
    moving.run("--verify-data")
    moving.check_contents(moving.nodes)


def test_a_killed_migration_leaves_the_source_usable(tmp_path):
    """Backups continue there. The next run copies new data and removes deleted data."""
    moving = Moving(tmp_path)
    moving.kill_at(packs=2)
    with opened_at(DirectoryStore(moving.data_dir), wall_clock) as store:
        first = next(iter(moving.contents))
        store.api.delete_point(first)
        del moving.contents[first]
        moving.contents[store.api.backup({"late": noise(7)})] = {"late": noise(7)}
    moving.kill_at(packs=8)
    moving.run("--verify-data")
    moving.check_contents(moving.nodes)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(10))
def test_a_migration_survives_many_kills(tmp_path, seed):
    check_after_kills(Moving(tmp_path), 20, seed)


@pytest.mark.stress
def test_a_migration_to_postgresql_and_s3_survives_many_kills(tmp_path, monkeypatch):
    for name, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as entered:
        catalog = entered.enter_context(postgres.new_database())
        check_after_kills(Moving(tmp_path, catalog=catalog, blobs=s3.fresh_url()), 20, seed=3)
