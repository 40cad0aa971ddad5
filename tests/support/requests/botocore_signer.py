"""Requests signed by botocore, as the server receives them: the reference for signatures."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest import mock
from urllib.parse import urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cryostore.core.digest import Payload
from cryostore.core.time import SECOND_MS
from cryostore.wire.message import Request

HOST = "cryo.example:9000"


def signed(
    request, *, access_key_id, secret, region, service, now_ms, token=None, unsigned_payload=False, presign=None
):
    """Return `request` as botocore signs and sends it. `presign` seconds: with the signature in the query."""
    url = f"http://{HOST}{request.path}" + (f"?{request.query}" if request.query else "")
    data = bytes(request.body.data) if request.body else b""
    theirs = AWSRequest(request.method, url, headers=dict(request.headers), data=data)
    theirs.context["payload_signing_enabled"] = not unsigned_payload
    credentials = Credentials(access_key_id, secret, token)
    if presign is None:
        signer = botocore.auth.SigV4Auth(credentials, service, region)
    else:
        signer = botocore.auth.SigV4QueryAuth(credentials, service, region, expires=presign)
    with mock.patch("botocore.auth.get_current_datetime", return_value=_datetime(now_ms)):
        signer.add_auth(theirs)
    return received(theirs, data)


def received(theirs, data):
    """Return a request of botocore as it is sent."""
    parts = urlsplit(theirs.url)
    headers = [("host", parts.netloc)]
    headers += [(name.lower(), _text(value)) for name, value in theirs.headers.items()]
    return Request(theirs.method, parts.path, parts.query, headers, Payload(data))


def _datetime(now_ms):
    return datetime.fromtimestamp(now_ms // SECOND_MS, UTC)


def _text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value
