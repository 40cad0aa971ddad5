"""What `cryo doctor` looks at where the blobs of a shared store are: whether it answers, and keeps its promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryostore.cli.doctor.diagnosis import Diagnoses, Diagnosis, failed, ok, warning
from cryostore.core.errors import CryostoreError

if TYPE_CHECKING:
    from cryostore.chunks.blobs import BlobStore

LIFECYCLE = "let no lifecycle rule of the bucket expire objects, or move them to where a read takes hours"


def blobs(store: BlobStore, shown: str, *, name: str | None) -> Diagnoses:
    """Everything about the place itself. With a `name` that nobody has used, a few bytes are put and deleted."""
    from cryostore.chunks.blobs import Versioning
    from cryostore.chunks.marker import newest_marker

    try:
        marker = newest_marker(store)
    except CryostoreError as problem:
        yield failed("blobs", problem, "see the endpoint, the bucket, its region and the access key")
        return
    if marker is None:
        yield warning("blobs", f"{shown} answers, and holds no store", "name the place it was prepared with")
    else:
        yield ok("blobs", f"{shown} answers, and holds store {marker.store_id}")
    if name is not None:
        yield _trial(store, name)
    if isinstance(store, Versioning):
        yield _bucket(store, marker.number if marker else None)


def _trial(store: BlobStore, name: str) -> Diagnosis:
    from cryostore.chunks.blobs.self_test import check_blob_store

    about = "blob service"
    try:
        check_blob_store(store, name)
    except CryostoreError as problem:
        return failed(about, problem, "allow this access key to get, put, list and delete objects under the prefix")
    return ok(about, "puts only if absent, and shows and deletes what it was given")


def _bucket(store: BlobStore, number: int | None) -> Diagnosis:
    from cryostore.chunks.blobs import Versioning
    from cryostore.chunks.marker import marker_key

    about = "bucket"
    try:
        versions = number is not None and isinstance(store, Versioning) and store.has_versions(marker_key(number))
    except CryostoreError as problem:
        return failed(about, problem, "allow this access key to read objects")
    if versions:
        advice = f"let a lifecycle rule remove old versions some days later; but {LIFECYCLE}"
        return warning(about, "keeps old versions: what is collected goes on costing", advice)
    return ok(about, "its rules cannot be seen from here", LIFECYCLE)
