"""An agent with its own resource, which records the acknowledged writes, and those with an unknown result."""

from __future__ import annotations

import contextlib
import random

from cryostore.client.pages import objects
from cryostore.core.digest import Payload
from cryostore.model.errors import ResourceNotFoundException
from cryostore.model.jobs import CommitBackupJob
from cryostore.model.objects import DeleteObject, PutObject, StartObject
from cryostore.model.recovery_points import DeleteRecoveryPoint
from support.requests.api import new_resource, summary_base64, summary_hex

SLOTS = 12
OPERATIONS_PER_JOB = 30
POINTS_KEPT = 4
SIZES = (0, 10, 1000, 50_000, 300_000)


class Witness:
    """Backs up over `api` until it is stopped. `check` then verifies every acknowledged write."""

    actions = ("put", "put", "upload", "delete")

    def __init__(self, api, seed, stop):
        self.api = api
        self.random = random.Random(seed)
        self.stop = stop
        self.job = None
        self.expected = {}  # by name: the possible contents of the object; None stands for no object
        self.points = {}  # by ARN: the same, at the time of the commit
        self.acknowledged = 0
        self.failure = None

    def run(self):
        """Work until stopped. An error is kept in `failure`."""
        try:
            while not self.stop.is_set():
                self.back_up()
        except BaseException as failure:  # noqa: BLE001 - the test raises it in its own thread
            self.failure = failure

    def back_up(self):
        """Run one job."""
        self.job = self.insist(self.api.start_operation(idempotency_token=new_resource())).backup_job_id
        for _ in range(OPERATIONS_PER_JOB):
            if self.stop.is_set():
                return
            getattr(self, self.random.choice(self.actions))(f"name-{self.random.randrange(SLOTS)}")
        done = self.insist(CommitBackupJob(backup_job_id=self.job, discard_open_uploads=True))
        self.job = None
        self.points[done.recovery_point_arn] = dict(self.expected)
        if len(self.points) > POINTS_KEPT:
            self.delete_point(self.random.choice(list(self.points)[:-1]))  # the last is the next base

    def delete_point(self, arn):
        """Delete a recovery point."""
        del self.points[arn]
        with contextlib.suppress(ResourceNotFoundException):  # an earlier attempt whose response was lost
            self.insist(DeleteRecoveryPoint(backup_vault_name="Default", recovery_point_arn=arn))

    def put(self, name):
        """Put an object in one request."""
        data = self.data()
        put = PutObject(
            backup_job_id=self.job, object_name=name, inline_chunk=Payload(data), inline_chunk_length=len(data)
        )
        self.note(name, (data,), known=self.attempt(put) is not None)

    def delete(self, name):
        """Delete an object, if it is there."""
        try:
            known = self.attempt(DeleteObject(backup_job_id=self.job, object_name=name)) is not None
        except ResourceNotFoundException:
            assert None in self.expected.get(name, {None}) or self.has_asked_again()
            known = True
        self.note(name, None, known=known)

    def upload(self, name):
        """Upload an object by chunks; continue after a crash of the server."""
        contents = tuple(self.data() for _ in range(self.random.randrange(1, 4)))
        upload = self.insist(StartObject(backup_job_id=self.job, object_name=name)).upload_id
        for index, data in enumerate(contents):
            self.insist(self.api.chunk_operation(self.job, upload, index, data))
        self.insist(self.api.complete_operation(self.job, upload, contents))
        self.note(name, contents, known=True)

    def read(self, name):
        """Check that acknowledged writes are visible at once, on every node."""
        found = {one.name: one for one in objects(self.api, self.job, prefix=name) if one.name == name}
        self.check_object(self.api, self.job, name, found, self.expected.get(name, {None}), set())

    def data(self):
        """Return bytes of a random length."""
        return self.random.randbytes(self.random.choice(SIZES))

    def note(self, name, content, *, known):
        """Record the content of an object, or its possible contents."""
        self.expected[name] = {content} if known else self.expected.get(name, {None}) | {content}

    def attempt(self, operation):
        """Return the response, or None if there was none, so that the result is unknown."""
        answer = self.api.call(operation)
        self.acknowledged += 1
        return answer

    def has_asked_again(self):
        """Whether the last response was for a retry, which may reflect the effect of an earlier attempt."""
        return False

    def insist(self, operation):
        """Retry until there is a response. Only for operations that may be repeated."""
        while (answer := self.attempt(operation)) is None:
            pass
        return answer

    def check(self, verified, api=None):
        """Check that every acknowledged write is there. Each chunk is read once; `verified` has those that were."""
        api = api or self.api
        if self.job is not None:
            self.check_view(api, self.job, self.expected, verified)
        for arn, expected in self.points.items():
            restore = api.restore(arn)
            self.check_view(api, restore, expected, verified)
            api.end_restore(restore)

    def check_view(self, api, storage_job, expected, verified):
        """Check that a view has these objects and no others."""
        found = {one.name: one for one in objects(api, storage_job)}
        for name, contents in expected.items():
            self.check_object(api, storage_job, name, found, contents, verified)
        assert set(found) <= set(expected)

    @staticmethod
    def check_object(api, storage_job, name, found, contents, verified):
        """Check that an object is one of `contents`, byte for byte."""
        if name not in found:
            assert None in contents, f"{name} is lost"
            return
        checksum = found[name].object_checksum
        summaries = {text(*content) for content in contents - {None} for text in (summary_hex, summary_base64)}
        assert checksum in summaries, f"{name} is another object"
        if checksum not in verified:
            api.read_chunks(storage_job, found[name].object_token)
            verified.add(checksum)
