"""Limits of the API (Backup Storage B.11). A server may lower each of them, and raise none."""

from __future__ import annotations

from dataclasses import dataclass, fields

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits in force. Raises ValueError for a value above its default."""

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
                raise ValueError(f"{field.name} is {value}: it must be between 1 and {field.default}")
