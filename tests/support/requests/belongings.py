"""Existing ids, names, ARNs and tokens of every kind in a store, so that random requests hit existing resources."""

from __future__ import annotations

from pathlib import Path

from cryostore.client.pages import objects
from cryostore.model.chunks import ListChunks
from cryostore.model.objects import ListObjects
from cryostore.model.operation import Call
from cryostore.model.restore_jobs import DescribeRestoreJob
from support.requests.api import Api, summary_hex


class Belongings:
    """Jobs in every state with uploads, objects and tokens; `by_label` has candidates for each label of a path."""

    def __init__(self, data_dir: Path, call: Call) -> None:
        self._made_of = data_dir, call
        api = self._api = Api(call, data_dir)
        vault = api.new_vault()
        self.point = api.backup({"one": b"1", "two": b"2"})
        self.running = api.running_job()
        self.upload = api.start(self.running, "upload")
        self.chunks = [b"first", b"second"]
        for index, data in enumerate(self.chunks):
            api.chunk(self.running, self.upload, index, data)
        self.summary = summary_hex(*self.chunks)
        self.completed_upload = api.upload(self.running, "whole", [b"x", b"y"], blob=b"blob", metadata_string="text")
        self.committed = api.start_job(resource=api.resource + "-committed")
        api.put(self.committed, "name", b"data")
        arn = api.commit(self.committed)
        self.stopped = api.running_job(resource=api.resource + "-stopped")
        api.stop(self.stopped)
        self.queued = api.start_job()
        self.restore, self.ended = api.restore(self.point), api.restore(arn)
        api.end_restore(self.ended)
        backup_jobs = [self.running, self.committed, self.stopped, self.queued]
        restore_jobs = [self.restore, self.ended]
        self.tokens = [token for job in (self.running, self.restore) for token in _tokens(api, job)]
        names = ["one", "two", "whole", "new", "a/b", "x/complete"]
        self.by_label = {
            "jobId": [*backup_jobs, *restore_jobs, f"{self.running}-BASE"],
            "backupJobId": backup_jobs,
            "restoreJobId": restore_jobs,
            "uploadId": [self.upload, self.completed_upload],
            "objectName": names,
            "chunkIndex": ["0", "1", "2", str(2**63 - 1)],
            "objectToken": self.tokens,
            "chunkToken": self.tokens,
            "backupVaultName": [vault, "Default"],
            "recoveryPointArn": [self.point, arn],
        }

    def alive(self) -> Belongings:
        """Return these, or new ones if a request has ended or deleted them."""
        ended = self._api.job(self.running).state != "RUNNING" or not self._restores()
        return Belongings(*self._made_of) if ended else self

    def _restores(self) -> bool:
        return self._api.call(DescribeRestoreJob(restore_job_id=self.restore)).status in ("PENDING", "RUNNING")


def _tokens(api: Api, job: str) -> list[str]:
    """Return tokens of every kind of a storage job."""
    first = api.call(ListObjects(storage_job_id=job, max_results=1))
    found = [first.next_token]
    for one in objects(api, job):
        listed = api.call(ListChunks(storage_job_id=job, object_token=one.object_token, max_results=1))
        found += [one.object_token, listed.next_token, *(chunk.chunk_token for chunk in listed.chunk_list)]
    return [token for token in found if token]
