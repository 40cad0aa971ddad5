"""The S3 service that `scripts/services` starts: unused prefixes of its bucket, and access by another client."""

from __future__ import annotations

import os
import subprocess
import uuid
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from support.waiting import until

START_SECONDS_MAX = 180
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK"}
"""The environment variables that a process needs to use it."""


@cache
def _place():
    """Wait for the service; return the URL of CRYO_TEST_S3, or None if it is not set."""
    url = os.environ.get("CRYO_TEST_S3")
    if url and (folder := os.environ.get("CRYO_TEST_SERVICES")):
        up, failed = (Path(folder, f"ceph-rgw.{outcome}") for outcome in ("up", "failed"))
        until(lambda: up.exists() or failed.exists(), seconds_max=START_SECONDS_MAX, pause_seconds=0.1)
        assert up.exists(), f"Ceph did not start: see {folder}/ceph-rgw.log"
    return url


def fresh_url(*, endpoint=None, **options):
    """Return the URL of an unused prefix, perhaps with another endpoint. Skips the test where there is no S3."""
    place = _place()
    if not place:
        pytest.skip("CRYO_TEST_S3 is not set: run `make unit` as root on Debian, or within `scripts/services run`")
    bucket, own_endpoint = _parts(place)
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return f"s3://{bucket}/{uuid.uuid4().hex}?endpoint={endpoint or own_endpoint}{more}"


def endpoint():
    """Return the address of the service. Skips the test where there is none."""
    return _parts(fresh_url())[1]


def _parts(url):
    parts = urlsplit(url)
    return parts.netloc, parse_qs(parts.query)["endpoint"][0]


def versioned_bucket():
    """The URL of a new bucket that keeps old versions."""
    name = f"versioned-{uuid.uuid4().hex}"
    client = _client(endpoint())
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return f"s3://{name}?endpoint={endpoint()}"


def small_bucket(bytes_max):
    """The URL of a new bucket with a quota. Skips the test where the service cannot be configured."""
    folder = os.environ.get("CRYO_TEST_SERVICES")
    if not folder:
        pytest.skip("CRYO_TEST_SERVICES is not set: only within `scripts/services run` can a bucket have a quota")
    name = f"small-{uuid.uuid4().hex}"
    _client(endpoint()).create_bucket(Bucket=name)
    of_bucket = ["--uid=cryo", "--quota-scope=bucket", f"--bucket={name}"]
    for words in (["set", f"--max-size={bytes_max}"], ["enable"]):
        command = ["radosgw-admin", "--conf", f"{folder}/ceph-rgw/ceph.conf", "quota", words[0], *of_bucket, *words[1:]]
        subprocess.run(command, check=True, capture_output=True)
    return f"s3://{name}?endpoint={endpoint()}"


class BackDoor:
    """The blobs of a prefix, accessed with an independent client."""

    def __init__(self, url):
        self.bucket, _ = _parts(url)
        self.prefix = urlsplit(url).path.strip("/") + "/"
        self.client = _client(endpoint())

    def peek(self, key):
        """Return the bytes of a blob, or None."""
        try:
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()
        except ClientError as error:
            assert error.response["Error"]["Code"] == "NoSuchKey"
            return None

    def plant(self, key, data):
        """Put bytes under a key."""
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=bytes(data))

    def names(self):
        """Return the keys."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        return [entry["Key"].removeprefix(self.prefix) for page in pages for entry in page.get("Contents", ())]

    def unfinished_uploads(self):
        """Return the multipart uploads that were neither completed nor aborted."""
        answer = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
        return [upload["Key"] for upload in answer.get("Uploads", ())]


@cache
def _client(address):
    return boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )
