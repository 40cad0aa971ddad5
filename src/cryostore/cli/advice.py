"""Hints for errors that carry none, by error class.

The classes are named, not imported: a command loads only the errors that it can raise.
"""

from __future__ import annotations

from collections.abc import Sequence

BY_CLASS = {
    "StorageFullError": "make room: delete recovery points and run `cryo gc --quarantine 0` twice, or enlarge the disk",
    "StorageUnavailableError": "check whether the disk is full, read-only or failing, then repeat the command",
    "UnknownFormatError": "use a newer cryo",
    "DamagedDataError": "`cryo check` lists the affected recovery points; `cryo repair` uses other copies",
    "KeyUnavailableError": "`cryo key list` shows which keys exist, and which are needed",
    "ArchiveDamagedError": "`cryo points` lists other recovery points; `cryo check` checks the store",
    "ConnectionFailedError": "`cryo doctor` checks the connection to the server",
    "SignatureError": "use the access key of this server (its DIR/credentials); `cryo doctor` checks it, and the clock",
    "AccessDeniedException": "use an access key with this permission",
    "ResourceNotFoundException": "`cryo points` lists recovery points; `cryo doctor` checks the vault",
    "ThrottlingException": "repeat the command later",
    "ServiceUnavailableException": "repeat the command later; the server's operator finds the cause in its log and"
    " with `cryo doctor` there",
    "RetryableException": "repeat the command later; see the server's log for details",
    "DamagedDataException": "`cryo verify POINT` names the affected files; the next backup heals what it reads again",
    "ServiceInternalException": "repeat the command; see the server's log for details",
    "KeyMissingError": "put back the keyring that has this key; `cryo key list` shows which keys are needed",
    "KMSInvalidKeyUsageException": "on the server, `cryo key list` shows which keys are missing",
}


def advice(error: BaseException, arguments: Sequence[str]) -> str:
    """Return a hint for an error: that of its class or the nearest base class, else a pointer to the help text.

    The cause of an error comes first: with a store in this process there is no server whose log has it.
    """
    for each in (error.__cause__, error):
        for kind in type(each).__mro__:
            if kind.__name__ in BY_CLASS:
                return BY_CLASS[kind.__name__]
    verb = next((word for word in arguments if not word.startswith("-")), "")
    return f"{f'cryo {verb}'.strip()} --help lists the options"
