"""Every bound of the API in one place (Backup Storage B.11). All may be configured down, none up."""

from __future__ import annotations

from dataclasses import dataclass, fields

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds in force. Building one with a value above the default raises ValueError."""

    object_name_bytes_max: int = 1024
    chunk_bytes_max: int = 64 * MIB
    chunks_per_object_max: int = 10_000_000
    metadata_blob_bytes_max: int = 4 * MIB
    metadata_string_bytes_max: int = 256
    metadata_string_inline_bytes_max: int = 1024
    page_items_max: int = 100
    link_chunks_max: int = 1000
    request_head_bytes_max: int = 32 * KIB
    request_document_bytes_max: int = 1 * MIB
    request_document_blob_bytes_max: int = 96 * MIB
    restore_metadata_items_max: int = 64
    restore_metadata_bytes_max: int = 32 * KIB

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 1 <= value <= field.default:
                raise ValueError(f"{field.name} is {value}: it may be configured between 1 and {field.default}")
