"""Cloud URLs of blob stores: parsed, checked, and opened with the library.

A URL never contains secrets: they come from the environment, under the names that each cloud's own tools use.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from cryostore.chunks.blobs.key import KEY_PATTERN
from cryostore.core.errors import ConfigurationError

OPTIONS = {
    "s3": frozenset({"endpoint", "region", "insecure", "timeout"}),
    "gs": frozenset({"endpoint", "insecure", "timeout"}),
    "az": frozenset({"endpoint", "account", "insecure", "timeout"}),
}
ENDPOINT_VARIABLES = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
REGION = "us-east-1"
CONNECTIONS_MAX = 32
CONNECT_SECONDS_MAX = 5
IDLE_SECONDS_MAX = 20
"""A connection that was idle for longer is not used again: a firewall between may have forgotten it."""
REQUEST_SECONDS_MAX = 25.0
"""Time limit of one request, unless the URL sets another: it ends requests on connections that hang."""

CloudStore = S3Store | GCSStore | AzureStore


@dataclass(frozen=True, slots=True)
class CloudUrl:
    """A bucket or container, and a prefix of keys in it: "" or without slashes at its ends."""

    scheme: str
    bucket: str
    prefix: str
    endpoint: str
    region: str
    account: str
    request_seconds_max: float

    @classmethod
    def parse(cls, url: str) -> CloudUrl:
        """Parse `s3://bucket/prefix?endpoint=...&region=...`, `gs://` and `az://` likewise.

        Raises ConfigurationError, which never repeats a password.
        """
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ConfigurationError(
                f"the {parts.scheme} URL names a user or a password",
                hint="give credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        options = _options(parts)
        prefix = parts.path.strip("/")
        if not parts.netloc or parts.fragment or (prefix and not KEY_PATTERN.fullmatch(prefix)):
            raise ConfigurationError(f"blobs cannot be kept at {url!r}", hint="Give s3://bucket/prefix")
        endpoint = options.get("endpoint") or _of_environment(ENDPOINT_VARIABLES[parts.scheme])
        _check_endpoint(endpoint, insecure=options.get("insecure") == "1")
        return cls(
            scheme=parts.scheme,
            bucket=parts.netloc,
            prefix=prefix,
            endpoint=endpoint.rstrip("/"),
            region=options.get("region") or _of_environment(REGION_VARIABLES) or REGION,
            account=options.get("account", ""),
            request_seconds_max=_seconds(options.get("timeout", str(REQUEST_SECONDS_MAX))),
        )

    def open(self) -> CloudStore:
        """Return the library's store, which connects at its first use. Raises ConfigurationError."""
        try:
            if self.scheme == "s3":
                return S3Store(self.bucket, config=self._s3_config(), **self._client())
            if self.scheme == "gs":
                return GCSStore(self.bucket, **_given(base_url=self.endpoint), **self._client())
            return AzureStore(
                self.bucket, **_given(endpoint=self.endpoint, account_name=self.account), **self._client()
            )
        except (BaseError, ValueError) as error:
            words = str(error).partition("\n")[0]
            raise ConfigurationError(f"{self.scheme}://{self.bucket} cannot be opened: {words}") from None

    def _s3_config(self) -> Any:
        """Return the options of S3. Sets defaults of the library, too, that the environment must not change."""
        fixed = {"conditional_put": "etag", "disable_bulk_delete": True, "unsigned_payload": False}
        return fixed | _given(endpoint=self.endpoint, aws_endpoint_url_s3=self.endpoint, region=self.region)

    def _client(self) -> Any:
        """Return time limits, and no retries: only the module `cloud` can tell whether an earlier attempt arrived."""
        client = {
            "allow_http": self.endpoint.startswith("http://"),
            "allow_invalid_certificates": False,
            "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS_MAX, self.request_seconds_max)),
            "timeout": timedelta(seconds=self.request_seconds_max),
            "pool_idle_timeout": timedelta(seconds=IDLE_SECONDS_MAX),
            "pool_max_idle_per_host": str(CONNECTIONS_MAX),
        }
        return {"client_options": client, "retry_config": {"max_retries": 0}}


def _options(parts: SplitResult) -> dict[str, str]:
    """Return the options in the query. Each may appear once, and must be known."""
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    known = OPTIONS[parts.scheme]
    if len(options) < len(pairs) or not set(options) <= known:
        unknown = sorted(set(options) - known)
        problem = f"unknown options: {', '.join(unknown)}" if unknown else "an option twice"
        raise ConfigurationError(
            f"the {parts.scheme} URL has {problem}", hint=f"known options: {', '.join(sorted(known))}"
        )
    if options.get("insecure", "1") != "1":
        raise ConfigurationError("the option insecure only takes the value 1")
    return options


def _of_environment(names: Sequence[str]) -> str:
    return next((value for name in names if (value := os.environ.get(name, ""))), "")


def _check_endpoint(endpoint: str, *, insecure: bool) -> None:
    """Refuse an endpoint that is no address, and plain HTTP to other machines.

    Stored data is sealed, but an unencrypted request shows the names of blobs, and an attacker who can change it can
    hold an answer back, or delete.
    """
    if not endpoint:
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
        raise ConfigurationError("the endpoint is not an address", hint="give https://host or https://host:port")
    if parts.scheme == "http" and not insecure and not _is_loopback(parts.hostname):
        raise ConfigurationError(
            f"the endpoint {parts.hostname} uses plain HTTP, without encryption",
            hint="use https://, or add insecure=1 to the URL if the network between is private",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise ConfigurationError(f"timeout {text!a} is no number of seconds", hint="give 0.1 to 3600 seconds")
    return seconds


def _given(**values: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
