"""Checks of the blob store of a shared store: it answers, may be written, and keeps its promises."""

from __future__ import annotations

from cryostore.chunks.blobs import BlobStore, Versioning
from cryostore.chunks.blobs.self_test import check_blob_store
from cryostore.chunks.marker import marker_key, newest_marker
from cryostore.core.diagnosis import Diagnoses, Diagnosis, failed, ok, warning
from cryostore.core.errors import CryostoreError

LIFECYCLE = "no lifecycle rule of the bucket may expire objects, or move them to a class that takes hours to read"


def check_blobs(store: BlobStore, shown: str, *, trial_name: str | None) -> Diagnoses:
    """Check the blob store that people know as `shown`.

    With a `trial_name`, which must be unused, a few bytes are put there and deleted again.
    """
    try:
        marker = newest_marker(store)
    except CryostoreError as problem:
        yield failed("blobs", problem, "check the endpoint, the bucket, its region and the access key")
        return
    if marker is None:
        yield warning("blobs", f"{shown} answers, but holds no store", "give --blobs as `cryo init` was given it")
    else:
        yield ok("blobs", f"{shown} answers, and holds store {marker.store_id}")
    if trial_name is not None:
        yield _trial(store, trial_name)
    if isinstance(store, Versioning):
        yield _bucket(store, marker.number if marker else None)


def _trial(store: BlobStore, name: str) -> Diagnosis:
    about = "blob service"
    try:
        check_blob_store(store, name)
    except CryostoreError as problem:
        return failed(about, problem, "allow this access key to get, put, list and delete objects under the prefix")
    return ok(about, "conditional put, list and delete work")


def _bucket(store: BlobStore, number: int | None) -> Diagnosis:
    about = "bucket"
    try:
        versions = number is not None and isinstance(store, Versioning) and store.has_versions(marker_key(number))
    except CryostoreError as problem:
        return failed(about, problem, "allow this access key to read objects")
    if versions:
        advice = f"add a lifecycle rule that removes old versions after some days; but {LIFECYCLE}"
        return warning(about, "keeps old versions, so that deleted data still costs", advice)
    return ok(about, "its lifecycle rules are not visible from here", LIFECYCLE)
