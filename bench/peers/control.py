"""Calls that prepare a measurement of Cryostore: jobs, objects, pages. They are not measured."""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
from typing import Any

from bench.load.payload import Payload
from bench.load.signature import Signer, query_text
from cryostore.wire.sigv4 import Credentials

ROLE = "arn:aws:iam::000000000000:role/backup-agent"
EMPTY_HASH = hashlib.sha256().hexdigest()


class CallError(Exception):
    """The server refused a preparatory call."""


class Control:
    """A client for jobs (AWS Backup operations) and objects (Backup Storage operations)."""

    def __init__(self, port: int, credentials: Credentials) -> None:
        self.host = f"127.0.0.1:{port}"
        self.credentials = credentials
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def signer(self, service: str = "backup-storage") -> Signer:
        """Return a signer for the current time."""
        return Signer(self.credentials, self.host, service)

    def start_backup_job(self) -> str:
        """Start a job of a new resource, so that it does not queue behind another job."""
        resource = f"arn:aws:cryo:local-1:000000000000:Stream:bench:{secrets.token_hex(8)}"
        document = {"BackupVaultName": "Default", "ResourceArn": resource, "IamRoleArn": ROLE}
        return str(self._call("PUT", "/backup-jobs", document, service="backup")["BackupJobId"])

    def start_object(self, job: str, name: str) -> str:
        """Start an upload and return its id."""
        return str(self._call("PUT", f"/backup-jobs/{job}/object/{name}", {})["UploadId"])

    def stop_backup_job(self, job: str) -> None:
        """Stop a job and discard what it wrote."""
        self._call("POST", f"/backup-jobs/{job}", None, service="backup")

    def complete(self, job: str, upload: str, payload: Payload, count: int) -> str:
        """Complete the upload of the first `count` bodies and commit the job. Returns the ARN of the recovery point."""
        summary = hashlib.sha256(b"".join(payload.digest(index) for index in range(count))).hexdigest()
        query = {"checksum": summary, "checksum-algorithm": "SUMMARY"}
        self._call("PUT", f"/backup-jobs/{job}/object/{upload}/complete", None, query)
        return str(self._call("PUT", f"/backup-jobs/{job}/commit", {})["RecoveryPointArn"])

    def start_restore_job(self, recovery_point: str) -> str:
        """Start a restore job and return its id."""
        document = {"RecoveryPointArn": recovery_point, "Metadata": {}, "IamRoleArn": ROLE}
        return str(self._call("PUT", "/restore-jobs", document, service="backup")["RestoreJobId"])

    def complete_restore_job(self, job: str) -> None:
        """Complete a restore job."""
        self._call("PUT", f"/restore-jobs/{job}/complete", {"Status": "COMPLETED"})

    def chunk_tokens(self, job: str) -> list[str]:
        """Return the tokens of the chunks of the only object, in order of index."""
        objects = self._call("GET", f"/restore-jobs/{job}/objects/list", None)["ObjectList"]
        path = f"/restore-jobs/{job}/chunks/{objects[0]['ObjectToken']}/list"
        tokens: list[str] = []
        query = {"max-results": "100"}
        while True:
            page = self._call("GET", path, None, query)
            tokens += [chunk["ChunkToken"] for chunk in page["ChunkList"]]
            if not page.get("NextToken"):
                return tokens
            query = {**query, "next-token": page["NextToken"]}

    def _call(
        self,
        method: str,
        path: str,
        document: dict[str, Any] | None,
        query: dict[str, str] | None = None,
        service: str = "backup-storage",
    ) -> dict[str, Any]:
        body = b"" if document is None else json.dumps(document).encode()
        headers = self.signer(service).headers(method, path, query or {}, hashlib.sha256(body).hexdigest())
        if document is not None:
            headers["Content-Type"] = "application/json"
        target = f"{path}?{query_text(query)}" if query else path
        self._connection.request(method, target, body or None, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status // 100 != 2:
            raise CallError(f"{method} {path}: {answer.status} {text[:300]!r}")
        result: dict[str, Any] = json.loads(text or b"{}")
        return result
