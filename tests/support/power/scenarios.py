"""Programs that run until a power loss: `python -m support.power.scenarios NAME FOLDER MARKS`.

Only this process uses the store in FOLDER/store. It writes a line to MARKS after each acknowledged operation, and
before each deletion, for content that may be gone from then on. `check` reads the marks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
from pathlib import Path

from cryostore.core.errors import CryostoreError
from cryostore.core.time import FrozenClock
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.key_rotation import RotationResult, forget_master_key, rotate_master_key, rotate_vault_key
from cryostore.maintenance.rebuild.run import RebuildResult
from cryostore.maintenance.rebuild.stores import rebuild_directory
from cryostore.maintenance.verification.scrub import scrub_all
from cryostore.service.opening.data_directory import existing_keyring
from cryostore.service.settings import Settings
from support.requests.api import new_resource
from support.stores.collecting import noise
from support.stores.in_process import Store
from support.stores.store_copy import copied

STORE = "store"
SETTINGS = Settings(pack_bytes_target=6000, reserve_bytes=20_000)
WRITERS = 4
RESTORE_METADATA = {"path": "/srv"}


def sha(data):
    """Return a digest for a mark."""
    return hashlib.sha256(data).hexdigest()


def content(contents):
    """Return digests of objects by name."""
    return {name: sha(data) for name, data in contents.items()}


class Teller:
    """Writes marks. Lines of several threads are not mixed."""

    def __init__(self, path):
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, kind, **facts):
        """Write one line."""
        os.write(self.descriptor, json.dumps({"kind": kind} | facts).encode() + b"\n")


def first_start(folder, tell):
    """Create a store and write to it at once."""
    store = Store(folder / STORE, settings=SETTINGS)
    tell("started", credentials=sha((folder / STORE / "credentials").read_bytes()))
    _backup(store.api(), {"a": b"first", "b": noise(1)}, tell)
    store.service.close()


def jobs(folder, tell):
    """Run two jobs of one resource, with every way to write an object, and a third that stays open."""
    store = Store(folder / STORE, settings=SETTINGS)
    api = store.api()
    view = _backup(api, {"a": noise(1), "b": noise(2, 700), "c": b""}, tell)
    job = api.start_job()
    parts = [noise(3, 900), noise(4, 10), noise(5, 600)]
    upload = api.start(job, "uploaded")
    tell("upload", job=job, upload=upload)
    for index, data in enumerate(parts):
        api.chunk(job, upload, index, data)
        tell("chunk", upload=upload, index=index, digest=sha(data))
    tell("completing", upload=upload)
    api.complete(job, upload, parts, blob=noise(6), metadata_string="text")
    view |= {"uploaded": b"".join(parts)}
    tell("object", job=job, name="uploaded", digest=sha(view["uploaded"]))
    tell("removing", job=job, name="a")
    api.delete(job, "a")
    del view["a"]
    tell("removed", job=job, name="a")
    _commit(api, job, view, tell)
    job = api.running_job()
    api.put(job, "left open", noise(7))
    tell("object", job=job, name="left open", digest=sha(noise(7)))
    store.service.close()


def writers(folder, tell):
    """Write from several threads, each with its own job, beyond the end of packs."""
    store = Store(folder / STORE, settings=SETTINGS)

    def write(number):
        api = store.api()
        contents = {f"{number} {one}": noise(100 * number + one, 900) for one in range(5)}
        _backup(api, contents, tell)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.service.close()


def collection(folder, tell):
    """Delete points, collect garbage, compact and remove packs, while a job continues."""
    store = Store(folder / STORE, settings=SETTINGS)
    api = store.api()
    kept = json.loads((folder / "kept.json").read_text())
    for arn, contents in kept["kept"].items():
        tell("point", arn=arn, contents=contents)
    api.resource = new_resource("collected")
    job = api.running_job()
    for arn in kept["doomed"]:
        tell("deleting", arn=arn)
        api.delete_point(arn)
        tell("deleted", arn=arn)
    maintain(store.service)
    for number in range(3):
        api.put(job, f"while {number}", noise(50 + number))
        tell("object", job=job, name=f"while {number}", digest=sha(noise(50 + number)))
        collect_all(store.service.context, quarantine_ms=0)
        scrub_all(store.service.context)
    store.service.close()


def rotation(folder, tell):
    """Rotate the master key and a vault's data key between backups, and remove the old master key from the keyring."""
    store = Store(folder / STORE, settings=SETTINGS)
    api, context = store.api(), store.service.context
    view = _backup(api, {"a": noise(1), "b": noise(2)}, tell)
    old = context.keys.keyring.source.active().key_id
    for _ in rotate_master_key(context, RotationResult()):
        pass
    view = _backup(api, {"a": noise(1), "c": noise(3)}, tell, view)
    rotate_vault_key(context, "Default")
    forget_master_key(context, old)
    _backup(api, {"a": noise(4)}, tell, view)
    store.service.close()


def rebuild(folder, tell):
    """Rebuild the catalog, in place of one whose last commits are only in its log, and use it at once."""
    kept = json.loads((folder / "kept.json").read_text())
    for arn, contents in kept["kept"].items():
        tell("point", arn=arn, contents=contents)
    tell("rebuilding")
    data_dir = folder / STORE
    for _ in rebuild_directory(
        data_dir, existing_keyring(data_dir), RebuildResult(), clock=FrozenClock(), replace=True
    ):
        pass
    store = Store(data_dir, settings=SETTINGS)
    tell("rebuilt")
    api = store.api()
    api.resource = new_resource("rebuilt")
    _backup(api, {"a": noise(1), "new": noise(2)}, tell)
    store.service.close()


def prepare_nothing(folder):
    """Prepare nothing: there is no store yet."""


def prepare(folder):
    """Prepare an empty store."""
    Store(folder / STORE, settings=SETTINGS).service.close()


def prepare_collection(folder):
    """Prepare two points whose chunks lie between those of two that will be deleted."""
    store = Store(folder / STORE, settings=SETTINGS)
    pairs = {}
    for fate in ("kept", "doomed"):
        api = store.api()
        pairs[fate] = api, api.start_job()
    views = {fate: {f"{fate} {one}": noise(200 + one + len(fate), 800) for one in range(8)} for fate in pairs}
    for one in range(8):
        for fate, (api, job) in pairs.items():
            api.put(job, f"{fate} {one}", views[fate][f"{fate} {one}"])
    arns = {fate: api.commit(job) for fate, (api, job) in pairs.items()}
    store.service.close()
    facts = {"kept": {arns["kept"]: content(views["kept"])}, "doomed": [arns["doomed"]]}
    (folder / "kept.json").write_text(json.dumps(facts))


def prepare_rebuild(folder):
    """Prepare a store whose process was killed, so that the log of its catalog is still there."""
    store = Store(folder / "first", settings=SETTINGS)
    facts = {"kept": {}}
    store.reopen()
    api = store.api()
    for contents in ({"a": noise(1), "b": noise(2)}, {"c": noise(3), "b": None}):
        arn = api.backup(contents)
        facts["kept"][arn] = content(api.restored(arn))
    copied(folder / "first", folder / STORE, without=("catalog.sqlite-shm", "open.lock"))
    store.service.close()
    shutil.rmtree(folder / "first")
    assert (folder / STORE / "catalog.sqlite-wal").stat().st_size
    (folder / "kept.json").write_text(json.dumps(facts))


def _backup(api, contents, tell, base=None):
    """Make a point with some objects on top of a base; return its view."""
    job = api.start_job()
    tell("job", job=job)
    for name, data in contents.items():
        api.put(job, name, data)
        tell("object", job=job, name=name, digest=sha(data))
    view = (base or {}) | contents
    _commit(api, job, view, tell)
    return view


def _commit(api, job, view, tell):
    tell("committing", job=job)
    arn = api.commit(job, restore_metadata=RESTORE_METADATA)
    tell("point", arn=arn, contents=content(view))


SCENARIOS = {
    "first start": (prepare_nothing, first_start),
    "jobs": (prepare, jobs),
    "writers": (prepare, writers),
    "collection": (prepare_collection, collection),
    "rotation": (prepare, rotation),
    "rebuild": (prepare_rebuild, rebuild),
}


if __name__ == "__main__":
    try:
        SCENARIOS[sys.argv[1]][1](Path(sys.argv[2]), Teller(sys.argv[3]).tell)
    except CryostoreError as error:
        sys.exit(f"{error!r} {error.hint}")
