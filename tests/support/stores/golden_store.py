"""Creates a golden data directory of the current schema: `PYTHONPATH=tests python -m support.stores.golden_store`.

`python -m support.stores.golden_store retention` makes `stores/retention-N` instead, whose oldest points were
deleted first.
It is in `tests/golden/stores/schema-N`, as its last, killed process left it: the log of the catalog is not merged
in, and a pack has a torn tail. Beside it, `manifest.json` has all that the API returned then. A
directory that exists is never created again: released data does not change.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
import tempfile
from pathlib import Path

from cryostore.core.ids import counting_ids
from cryostore.core.time import DAY_MS, MINUTE_MS, SECOND_MS
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.key_rotation import RotationResult, rotate_master_key, rotate_vault_key
from cryostore.maintenance.verification.scrub import scrub_all
from cryostore.model.jobs import CommitBackupJob, Lifecycle
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault
from cryostore.service.settings import Settings
from support.project import ROOT
from support.requests.api import base64_of, summary_base64
from support.stores.collecting import noise
from support.stores.in_process import Store
from support.stores.store_copy import copied
from support.stores.store_picture import picture

STORES = ROOT / "tests" / "golden" / "stores"
SETTINGS = Settings(pack_bytes_target=8000)
LEFT_OUT = ("open.lock", "catalog.lock", "in-use.lock", "catalog.sqlite-shm")
LONG_CHUNKS = 1100
TORN_BYTES = 77


class Story:
    """The history of the store. Every step is some seconds after the one before it."""

    def __init__(self, store):
        self.store = store
        self.api = store.api()
        self.points = {}
        self.open_uploads = []
        self.contents = {}

    def tick(self):
        """Let some time pass."""
        self.store.clock.advance(7 * SECOND_MS)

    def resource(self, name):
        """Use this resource from now on."""
        self.api.resource = f"arn:aws:cryo:local-1:000000000000:fileset:golden:{name}"
        self.tick()

    def commit(self, label, job, contents, **more):
        """Commit a job with these objects."""
        self.tick()
        self.points[label] = self.api.commit(job, **more)
        self.contents[label] = {name: b"".join(parts) for name, parts in contents.items()}

    def tell(self):
        """Run the complete history."""
        self.chain()
        self.branch()
        self.second_vault()
        self.other_keys()
        self.ended_jobs()
        self.restores()
        self.garbage()
        self.open_jobs()

    def chain(self):
        """Make three points of one resource, and delete the one in the middle."""
        self.resource("chain")
        few = [noise(number, 3) for number in range(5)]
        first = {
            "empty": [],
            "no bytes": [b""],
            "small": [noise(10)],
            "several": [noise(11), noise(12, 700), noise(13)],
            "compressible": [b"the same line of text, again and again\n" * 60],
            "long": [few[number % 5] for number in range(LONG_CHUNKS)],
            "gone in the second": [noise(14)],
            "gone in the third": [noise(15)],
            "Grüße/日本/\u0301": [noise(16)],
            "a b+c%d&e": [noise(17)],
        }
        job = self.api.start_job(
            recovery_point_tags={"kind": "golden", "Größe": "ein Wert"},
            lifecycle=Lifecycle(delete_after_days=3650),
            idempotency_token="chain 1",
        )
        self.api.put(job, "empty")
        self.api.put(job, "small", noise(10), metadata_string="kept with the object")
        for name in ("no bytes", "compressible", "gone in the second", "gone in the third", "a b+c%d&e"):
            self.api.put(job, name, b"".join(first[name]))
        self.api.upload(job, "several", first["several"], blob=b'{"owner": 0}' * 9, metadata_string="a blob, too")
        self.api.upload(job, "long", first["long"])
        self.api.upload(job, "Grüße/日本/\u0301", first["Grüße/日本/\u0301"], blob=noise(18))
        more = {"restore_metadata": {"path": "/srv/golden", "Größe": "12"}, "resource_name": "chain of golden points"}
        self.commit("chain 1", job, first, **more)

        self.resource("chain")
        second = {name: parts for name, parts in first.items() if name != "gone in the second"}
        second |= {"small": [noise(20)], "new in the second": [noise(21)]}
        job = self.api.start_job()
        self.api.delete(job, "gone in the second")
        self.api.put(job, "small", noise(20))
        self.api.put(job, "new in the second", noise(21))
        self.commit("chain 2", job, second)

        self.resource("chain")
        third = {name: parts for name, parts in second.items() if name not in ("gone in the third", "long")}
        third |= {"small": [noise(22)], "indexed": [noise(number, 40) for number in range(30, 40)]}
        job = self.api.start_job()
        self.api.delete(job, "gone in the third")
        self.api.delete(job, "long")
        self.api.put(job, "small", noise(22))
        self.api.upload(job, "indexed", {number**3 + 5: noise(30 + number, 40) for number in range(10)})
        self.commit("chain 3", job, third, message_category="SUCCESS", status_message="all well", issue_count=0)
        self.api.delete_point(self.points.pop("chain 2"))
        del self.contents["chain 2"]

    def branch(self):
        """Make a point on the first one of the chain, and one after it."""
        self.resource("chain")
        base = self.points["chain 1"]
        view = {name: [data] for name, data in self.contents["chain 1"].items()}
        options = {"IncrementalBase": base.rpartition(":")[2]}
        job = self.api.start_job(backup_options=options)
        self.api.delete(job, "several")
        self.api.put(job, "only in the branch", noise(50))
        view = {name: parts for name, parts in view.items() if name != "several"} | {"only in the branch": [noise(50)]}
        self.commit("branch 1", job, view)
        self.resource("chain")
        job = self.api.start_job()
        self.api.put(job, "several", noise(51))
        self.commit("branch 2", job, view | {"several": [noise(51)]})

    def second_vault(self):
        """Make another vault, with checksums in base64; an empty one; and a deleted one."""
        for name in ("second", "empty", "gone"):
            tags = {"team": "ops"} if name == "second" else {}
            vault = CreateBackupVault(backup_vault_name=name, backup_vault_tags=tags, creator_request_id=f"make-{name}")
            self.api.call(vault)
        self.api.call(DeleteBackupVault(backup_vault_name="gone"))
        self.api.vault = "second"
        self.resource("other")
        parts = [noise(10), noise(60), noise(60)]
        job = self.api.start_job(lifecycle=Lifecycle(move_to_cold_storage_after_days=30, delete_after_days=150))
        upload = self.api.start(job, "base64")
        for index, data in enumerate(parts):
            self.api.chunk(job, upload, index, data, checksum=base64_of(data))
        self.api.complete(job, upload, parts, object_checksum=summary_base64(*parts))
        self.commit("other", job, {"base64": parts})
        self.api.vault = "Default"

    def other_keys(self):
        """Rotate the master key and the data key of a vault; the old data key still decrypts."""
        context = self.store.service.context
        for _ in rotate_master_key(context, RotationResult()):
            pass
        rotate_vault_key(context, "second")
        self.store.reopen()
        self.api.vault = "second"
        self.resource("other")
        job = self.api.start_job()
        self.api.put(job, "under the new key", noise(61))
        self.api.put(job, "in both", noise(10))
        old = {"base64": [self.contents["other"]["base64"]]}
        self.commit("other 2", job, old | {"under the new key": [noise(61)], "in both": [noise(10)]})
        self.api.vault = "Default"

    def ended_jobs(self):
        """Make a failed job, a stopped one, and one without writes."""
        for ending in ("failed", "stopped", "overdue"):
            self.resource(ending)
            job = self.api.start_job(start_window_minutes=60) if ending == "overdue" else self.api.running_job()
            if ending == "overdue":
                self.store.clock.advance(61 * MINUTE_MS)
                maintain(self.store.service)
                continue
            self.api.put(job, "lost", noise(70))
            self.api.chunk(job, self.api.start(job, "never complete"), 0, noise(71))
            if ending == "failed":
                how = {"outcome": "FAILED", "status_message": "the disk vanished", "message_category": "AGENT_ERROR"}
                self.api.call(CommitBackupJob(backup_job_id=job, **how))
            else:
                self.api.stop(job)

    def restores(self):
        """Make an ended restore job, and an open one whose tokens were issued."""
        self.tick()
        ended = self.api.restore(self.points["other"], metadata={"to": "/elsewhere"})
        self.api.read(ended)
        self.api.end_restore(ended)
        self.running_restore = self.api.restore(self.points["chain 1"], metadata={"to": "/srv"}, idempotency_token="r")
        self.tokens = []
        for name in ("several", "compressible"):
            found = self.api.found(self.running_restore, name)
            parts = self.api.chunks(self.running_restore, name)
            held = [[chunk.chunk_token, chunk.checksum] for chunk in parts]
            self.tokens.append({"name": name, "object_token": found.object_token, "chunk_tokens": held})

    def garbage(self):
        """Delete and collect half of many small objects, which compacts packs; condemn some more."""
        self.resource("garbage")
        kept = {}
        for half in range(2):
            job = self.api.start_job()
            for number in range(half, 40, 2):
                self.api.put(job, f"object {number:02}", noise(1000 + number, 500))
                kept[f"object {number:02}"] = [noise(1000 + number, 500)]
            self.commit(f"garbage {half}", job, dict(kept))
        self.resource("garbage")
        job = self.api.start_job(backup_options={"IncrementalBase": "none"})
        rest = {name: parts for number, (name, parts) in enumerate(sorted(kept.items())) if number % 4 == 0}
        for name, parts in rest.items():
            self.api.put(job, name, parts[0])
        self.commit("garbage 2", job, rest)
        for half in range(2):
            self.api.delete_point(self.points.pop(f"garbage {half}"))
            del self.contents[f"garbage {half}"]
        maintain(self.store.service)
        for _ in range(3):
            collect_all(self.store.service.context, quarantine_ms=0)
            self.tick()
        self.resource("condemned")
        arn = self.api.backup({"doomed": noise(80)})
        self.api.delete_point(arn)
        maintain(self.store.service)
        collect_all(self.store.service.context, quarantine_ms=DAY_MS)
        assert scrub_all(self.store.service.context).is_clean

    def open_jobs(self):
        """Make jobs that continue when the store is opened again, with uploads in several states."""
        self.resource("chain")
        job = self.api.running_job()
        self.api.put(job, "small", noise(90))
        self.api.start(job, "nothing yet")
        parts = {3: noise(91, 90), 0: noise(92, 90), 900: noise(93, 90)}
        upload = self.api.start(job, "half uploaded")
        self.api.chunk(job, upload, 3, parts[3])
        self.store.reopen()  # the rest stays in the log of the catalog, and goes to another pack
        self.api.chunk(job, upload, 0, parts[0])
        self.api.chunk(job, upload, 900, parts[900])
        written = [[index, base64.b64encode(data).decode()] for index, data in sorted(parts.items())]
        self.open_uploads.append({"job": job, "upload": upload, "name": "half uploaded", "chunks": written})
        self.resource("waiting")
        self.waiting_job = self.api.start_job(idempotency_token="waiting")


def retain(store):
    """Make backups of one resource and a branch, keep the last three points, and return their content.

    Each version of an object is seen by a few points, and gone in a later one; then the points go, the oldest first.
    """
    api, points, contents = store.api(), [], {}
    api.resource = "arn:aws:cryo:local-1:000000000000:fileset:golden:retained"
    for number in range(9):
        store.clock.advance(DAY_MS)
        job = api.start_job()
        for name in {f"for two {number}", f"for three {number}", "always anew"}:
            api.put(job, name, noise(2000 + number, 300))
            contents[name] = noise(2000 + number, 300)
        for name in {f"for two {number - 2}", f"for three {number - 3}"} & contents.keys():
            api.delete(job, name)
            del contents[name]
        points.append((api.commit(job), dict(contents)))
    api.resource += "-branch"
    job = api.start_job(backup_options={"IncrementalBase": points[-2][0].rpartition(":")[2]})
    api.put(job, "always anew", noise(3000))
    branch = api.commit(job), points[-2][1] | {"always anew": noise(3000)}
    for arn, _ in points[:-2]:
        api.delete_point(arn)
        maintain(store.service)
    return dict([*points[-2:], branch])


def make_retention(stores):
    """Create the directory whose points were deleted oldest first; return its path."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "data", new_id=counting_ids(), settings=SETTINGS)
        kept = retain(store)
        versions = store.service.context.database.read(lambda t: t.row("SELECT max(version) FROM schema_version"))
        store.service.close()  # merges the log into the catalog
        made = copied(store.data_dir, Path(folder) / "made", without=LEFT_OUT)
        target = stores / f"retention-{versions[0]}"
        target.mkdir()
        shutil.copytree(made, target / "data")
    points = {
        arn: {name: base64.b64encode(data).decode() for name, data in contents.items()}
        for arn, contents in kept.items()
    }
    text = json.dumps({"now_ms": store.clock(), "points": points}, indent=1, sort_keys=True) + "\n"
    (target / "manifest.json").write_text(text, encoding="utf-8")
    return target


def tear(data_dir):
    """Write half an envelope at the end of the open pack, as a killed process leaves it."""
    newest = max(data_dir.rglob("*.pack"), key=lambda path: path.stem)
    data = newest.read_bytes()
    newest.write_bytes(data + data[32 : 32 + TORN_BYTES])


def make(stores):
    """Create the directory; return its path."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "data", new_id=counting_ids(), settings=SETTINGS)
        story = Story(store)
        story.tell()
        versions = store.service.context.database.read(lambda t: t.row("SELECT max(version) FROM schema_version"))
        made = copied(store.data_dir, Path(folder) / "made", without=LEFT_OUT)
        store.service.close()
        tear(made)
        look = Store(copied(made, Path(folder) / "look"), clock=store.clock, settings=SETTINGS)
        manifest = {
            "schema": versions[0],
            "now_ms": store.clock(),
            "points": story.points,
            "running_restore": story.running_restore,
            "tokens": story.tokens,
            "open_uploads": story.open_uploads,
            "waiting_job": story.waiting_job,
            "waiting_resource": story.api.resource,
        }
        for label, arn in story.points.items():
            api = look.api()
            api.vault = arn.rpartition(":")[0]
            assert api.restored(arn) == story.contents[label], label
        look.service.close()
        look = Store(copied(made, Path(folder) / "look again"), clock=store.clock, settings=SETTINGS)
        manifest["picture"] = picture(look.api())
        look.service.close()
        target = stores / f"schema-{versions[0]}"
        target.mkdir()
        shutil.copytree(made, target / "data")
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (target / "manifest.json").write_text(text, encoding="utf-8")
    return target


if __name__ == "__main__":
    print(make_retention(STORES) if sys.argv[1:] == ["retention"] else make(STORES))
