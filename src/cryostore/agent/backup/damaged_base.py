"""What a run does about a base that the store has lost bytes of: read those files again, or begin without the base.

The store says which objects of the base need damaged bytes. What the files in them hold is read and sent again, which
heals the older recovery points, too, as far as the bytes are still the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryostore.agent.archive.disk_image import SEGMENT_PREFIX
from cryostore.agent.encryption.key_objects import is_sealed_archive
from cryostore.agent.encryption.keyed_call import key_of
from cryostore.agent.header import CONTENT_PREFIX
from cryostore.client import pages
from cryostore.core.errors import KeyUnavailableError
from cryostore.model.jobs import GetIncrementalBaseBackupOutput
from cryostore.model.operation import Call


def is_unreadable(base: GetIncrementalBaseBackupOutput) -> bool:
    """Whether more is damaged than content: then nothing can be known from the base."""
    names = base.damaged_objects or []
    only_content = all(name.startswith((CONTENT_PREFIX, SEGMENT_PREFIX)) for name in names)
    return not only_content or len(names) < (base.damaged_object_count or 0)


def check_secrecy(call: Call, base: GetIncrementalBaseBackupOutput) -> None:
    """Raise KeyUnavailableError if the base is sealed and there is no key, or the other way round.

    Whoever does without the base would else send in the clear what its owner had sealed.
    """
    names = [each.name for each in pages.objects(call, base.storage_job_id or "")]
    if is_sealed_archive(names) != (key_of(call) is not None):
        raise KeyUnavailableError(
            "the last backup of this resource is encrypted, and there is no key, or the other way round",
            hint="give its key with --key FILE, or leave it out; or say another --resource",
        )


def content_numbers(names: Iterable[str]) -> frozenset[int]:
    """The numbers of the content objects among some names."""
    numbers = [name.removeprefix(CONTENT_PREFIX) for name in names if name.startswith(CONTENT_PREFIX)]
    return frozenset(int(number) for number in numbers if number.isascii() and number.isdigit())
