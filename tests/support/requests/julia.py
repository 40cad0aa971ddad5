"""Requests in the exact form of Julia's AWS.jl, the client of the reference page (Backup Storage A.5).

Everything that is not a path label is a member of one JSON body, on GET and DELETE too; path labels are not
percent-encoded; the Host header lacks the port; every header is signed, and the body's hash always is. Written and
signed here from the rules of Signature Version 4, without code of the product.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import time
from urllib.parse import quote, urlsplit


class Literal(bytes):
    """Bytes that AWS.jl puts into a JSON string unchanged, valid UTF-8 or not."""


class Julia:
    """AWS.jl with one endpoint and one access key."""

    def __init__(self, url, access_key_id, secret, region="local-1"):
        self.url = urlsplit(url)
        self.access_key_id, self.secret, self.region = access_key_id, secret, region

    def __call__(self, method, path, arguments=None, *, service="backup-storage"):
        """Send a request; return status, headers and raw body of the response."""
        body = _body(arguments or {})
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = {
            "Host": self.url.hostname,
            "Content-Type": "application/json",
            "User-Agent": "AWS.jl/1.0.0",
            "x-amz-date": stamp,
            "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
        }
        headers["Authorization"] = self._authorization(method, path, headers, stamp, service)
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def json(self, *request, **options):
        """Send a request that must succeed, and read the response as AWS.jl does: by its exact content type."""
        status, headers, body = self(*request, **options)
        assert status in (200, 202), body
        assert {name.lower(): value for name, value in headers.items()}["content-type"] == "application/json"
        return json.loads(body)

    def _authorization(self, method, path, headers, stamp, service):
        scope = f"{stamp[:8]}/{self.region}/{service}/aws4_request"
        lower = {name.lower(): value.strip() for name, value in headers.items()}
        signed = ";".join(sorted(lower))
        canonical = "\n".join(
            [
                method,
                quote(path, safe="/-_.~"),
                "",
                *(f"{name}:{lower[name]}" for name in sorted(lower)),
                "",
                signed,
                lower["x-amz-content-sha256"],
            ]
        )
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        credential = f"{self.access_key_id}/{scope}"
        return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}"


def _body(arguments):
    """Return the JSON body. The bytes of a Literal are unchanged, except for escaped quotes and backslashes."""
    marks = {}
    plain = {}
    for name, value in arguments.items():
        if isinstance(value, Literal):
            marks[f"@{len(marks)}@"] = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            value = f"@{len(marks) - 1}@"  # noqa: PLW2901 - a placeholder until the text is complete
        plain[name] = value
    body = json.dumps(plain, ensure_ascii=False).encode()
    for mark, value in marks.items():
        body = body.replace(mark.encode(), value)
    return body
