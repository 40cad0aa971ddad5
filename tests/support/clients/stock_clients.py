"""Witnesses with real clients and their default retries: our own client, and botocore."""

from __future__ import annotations

import collections
import random

from botocore.config import Config
from botocore.exceptions import IncompleteReadError, ResponseStreamingError

from cryostore.client.client import Client
from cryostore.client.retry import Retry
from cryostore.client.settings import resolve
from cryostore.client.transport import Endpoint, HttpTransport
from support.clients import sdk_folder
from support.clients.witness import Witness
from support.requests.api import Api, hex_of, new_resource, summary_hex

SLOTS = 6
SIZES = (1, 1000, 40_000)


class WatchedRetry:
    """The default retries. Keeps the errors that they hide."""

    def __init__(self):
        self.errors = collections.Counter()
        self._retry = Retry()

    def run(self, attempt):
        """See Retry."""

        def watched():
            response = attempt()
            if response.status >= 400:
                self.errors[_said(response.status, response.header("x-amzn-errortype"))] += 1
            return response

        return self._retry.run(watched)


class WatchedTransport(HttpTransport):
    """The default transport. Counts requests that were sent, also the second attempt after a broken connection."""

    sent = 0

    def _exchange(self, connection, request):
        self.sent += 1
        return super()._exchange(connection, request)


def _said(status, name):
    return f"{status} {name}"


def client(url, credentials, **more):
    """Return our client with the root access key."""
    found = settings(url, credentials)
    return Client(found.endpoint_url, found.region, found.credentials, **more)


def settings(url, credentials):
    """Return address and root access key."""
    return resolve({"AWS_ENDPOINT_URL": url, "AWS_SHARED_CREDENTIALS_FILE": str(credentials)})


class StockWitness(Witness):
    """A witness with our unmodified client: none of its calls may fail."""

    actions = ("put", "put", "upload", "delete", "read")

    def __init__(self, url, credentials, seed, stop):
        self._retry = WatchedRetry()
        self._transport = WatchedTransport(Endpoint.parse(url))
        self.client = client(url, credentials, retry=self._retry, transport=self._transport)
        super().__init__(Api(self.client, None), seed, stop)

    @property
    def errors(self):
        """Count the unexpected responses."""
        return self._retry.errors

    def data(self):
        return self.random.randbytes(self.random.choice(SIZES))

    def attempt(self, operation):
        self._transport.sent = 0
        return super().attempt(operation)

    def has_asked_again(self):
        return self._transport.sent > 1

    def close(self):
        """Close its connections."""
        self.client.close()


class BotocoreWitness:
    """A witness with botocore. Its only job is never committed; it reads each object back at once.

    `acknowledged`, `errors` and `failure` are as those of a StockWitness; `contents` is what the job holds.
    """

    def __init__(self, folder, url, credentials, seed, stop):
        self.random = random.Random(seed)
        self.stop = stop
        self.errors = collections.Counter()
        self.acknowledged = 0
        self.failure = None
        self.contents = {}
        key = settings(url, credentials).credentials
        session = sdk_folder.session(sdk_folder.write(folder), key.access_key_id, key.secret_access_key)
        config = Config(retries={"mode": "standard"})
        self._storage = session.create_client("backupstorage", region_name="local-1", endpoint_url=url, config=config)
        self._storage.meta.events.register("response-received.*", self._look)
        with client(url, credentials) as ours:
            self.job = Api(ours, None).start_job(resource=new_resource())

    def _look(self, response_dict, **_):
        if response_dict is not None and response_dict["status_code"] >= 400:
            name = response_dict["headers"].get("x-amzn-errortype")
            self.errors[_said(response_dict["status_code"], name)] += 1

    def run(self):
        """Work until stopped. An error is kept in `failure`."""
        try:
            while not self.stop.is_set():
                name = f"name-{self.random.randrange(SLOTS)}"
                self.random.choice((self.put, self.upload))(name)
                assert self.read(name) == self.contents[name], name
        except BaseException as failure:  # noqa: BLE001 - the test raises it in its own thread
            self.failure = failure

    def put(self, name):
        """Put an object in one request."""
        data = self.random.randbytes(self.random.choice(SIZES))
        self._storage.put_object(BackupJobId=self.job, ObjectName=name, InlineChunk=data)
        self.acknowledged += 1
        self.contents[name] = [data]

    def upload(self, name):
        """Upload an object by chunks, the last one first."""
        contents = [self.random.randbytes(self.random.choice(SIZES)) for _ in range(3)]
        upload = self._storage.start_object(BackupJobId=self.job, ObjectName=name)["UploadId"]
        for index, data in reversed(list(enumerate(contents))):
            self._storage.put_chunk(
                BackupJobId=self.job, UploadId=upload, ChunkIndex=index, Data=data, Length=len(data),
                Checksum=hex_of(data), ChecksumAlgorithm="SHA256",
            )  # fmt: skip
            self.acknowledged += 1
        self._storage.notify_object_complete(
            BackupJobId=self.job, UploadId=upload, ObjectChecksum=summary_hex(*contents),
            ObjectChecksumAlgorithm="SUMMARY",
        )  # fmt: skip
        self.contents[name] = contents

    def read(self, name):
        """Read the chunks of an object. Retries after a torn body, which botocore does not."""
        listed = self._storage.list_objects(StorageJobId=self.job, StartingObjectPrefix=name)["ObjectList"]
        (token,) = [one["ObjectToken"] for one in listed if one["Name"] == name]
        chunks = self._storage.list_chunks(StorageJobId=self.job, ObjectToken=token)["ChunkList"]
        return [self._chunk(one["ChunkToken"]) for one in chunks]

    def _chunk(self, token):
        for _ in range(3):
            answer = self._storage.get_chunk(StorageJobId=self.job, ChunkToken=token)
            try:
                return answer["Data"].read()
            except (IncompleteReadError, ResponseStreamingError):
                continue
        return answer["Data"].read()

    def check(self, verified, api):
        """Check that every acknowledged write is there."""
        del verified  # this method reads everything
        assert api.read(self.job) == {name: b"".join(contents) for name, contents in self.contents.items()}

    def close(self):
        """Close its connections."""
        self._storage.close()
