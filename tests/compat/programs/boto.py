"""A backup client as users of botocore write one: all nine operations, driven by a plan on standard input.

Runs in an environment of its own that has no Cryostore, only the SDK: the 2024 one knows `backupstorage` itself, the
current one learns it from the folder in AWS_DATA_PATH.
"""

import base64
import json
import sys

import botocore.session
from botocore.config import Config

CONFIG = Config(retries={"max_attempts": 2}, read_timeout=60)


def write(storage, job_id, plan):
    """Write the plan's objects into a backup job."""
    for entry in plan["objects"]:
        if "inline" in entry:
            put_object(storage, job_id, entry)
        else:
            upload(storage, job_id, entry)
    storage.put_object(BackupJobId=job_id, ObjectName=plan["delete"], InlineChunk=b"gone")
    storage.delete_object(BackupJobId=job_id, ObjectName=plan["delete"])
    try:
        storage.start_object(BackupJobId=job_id, ObjectName=plan["objects"][0]["name"], ThrowOnDuplicate=True)
    except storage.exceptions.DataAlreadyExistsException as error:
        return {"duplicate": error.response["Checksum"]}
    return {}


def put_object(storage, job_id, entry):
    """Write an object in a single call."""
    optional = {"MetadataString": entry["metadataString"]} if "metadataString" in entry else {}
    storage.put_object(
        BackupJobId=job_id,
        ObjectName=entry["name"],
        InlineChunk=base64.b64decode(entry["inline"]),
        InlineChunkLength=entry["length"],
        InlineChunkChecksum=entry["checksum"],
        InlineChunkChecksumAlgorithm="SHA256",
        ThrowOnDuplicate=True,
        **optional,
    )


def upload(storage, job_id, entry):
    """Write an object chunk by chunk."""
    upload_id = storage.start_object(BackupJobId=job_id, ObjectName=entry["name"])["UploadId"]
    for chunk in entry["chunks"]:
        stored = storage.put_chunk(
            BackupJobId=job_id,
            UploadId=upload_id,
            ChunkIndex=chunk["index"],
            Data=base64.b64decode(chunk["data"]),
            Length=chunk["length"],
            Checksum=chunk["checksum"],
            ChecksumAlgorithm="SHA256",
        )
        assert stored["ChunkChecksum"] == chunk["checksum"], stored
    optional = {}
    if "blob" in entry:
        optional = {
            "MetadataBlob": base64.b64decode(entry["blob"]),
            "MetadataBlobLength": entry["blobLength"],
            "MetadataBlobChecksum": entry["blobChecksum"],
            "MetadataBlobChecksumAlgorithm": "SHA256",
        }
    done = storage.notify_object_complete(
        BackupJobId=job_id,
        UploadId=upload_id,
        ObjectChecksum=entry["checksum"],
        ObjectChecksumAlgorithm="SUMMARY",
        MetadataString=entry["metadataString"],
        **optional,
    )
    assert done["ObjectChecksum"] == entry["checksum"], done


def read(storage, job_id):
    """Read a restore job whole, in small pages."""
    objects = {}
    for item in listed(storage.list_objects, "ObjectList", StorageJobId=job_id, MaxResults=7):
        token = item["ObjectToken"]
        metadata = storage.get_object_metadata(StorageJobId=job_id, ObjectToken=token)
        blob = metadata["MetadataBlob"].read()
        assert metadata.get("MetadataString") == item.get("MetadataString"), metadata
        assert metadata.get("MetadataBlobLength", 0) == len(blob), metadata
        objects[item["Name"]] = {
            "checksum": item["ObjectChecksum"],
            "chunks": [
                read_chunk(storage, job_id, chunk)
                for chunk in listed(
                    storage.list_chunks, "ChunkList", StorageJobId=job_id, ObjectToken=token, MaxResults=2
                )
            ],
            "metadataString": item.get("MetadataString"),
            "blob": base64.b64encode(blob).decode() if blob else None,
        }
    return objects


def read_chunk(storage, job_id, chunk):
    """Read a chunk and compare it with its entry in the list."""
    got = storage.get_chunk(StorageJobId=job_id, ChunkToken=chunk["ChunkToken"])
    data = got["Data"].read()
    assert (got["Length"], got["Checksum"]) == (len(data), chunk["Checksum"]), got
    return [chunk["Index"], chunk["Checksum"], base64.b64encode(data).decode()]


def listed(operation, key, **arguments):
    """All items of a list, page by page."""
    while True:
        page = operation(**arguments)
        yield from page[key]
        if "NextToken" not in page:
            return
        arguments["NextToken"] = page["NextToken"]


def main():
    """Carry out the plan on stdin and write the result to stdout."""
    asked = json.load(sys.stdin)
    session = botocore.session.get_session()
    storage = session.create_client("backupstorage", region_name="local-1", config=CONFIG)
    if asked["verb"] == "write":
        answer = write(storage, asked["jobId"], asked["plan"])
    else:
        answer = read(storage, asked["jobId"])
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
