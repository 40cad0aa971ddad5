"""What to do next about errors that do not say so themselves, by their class.

The classes are named here, not imported: an error that nobody raised is not loaded to be told about.
"""

from __future__ import annotations

from collections.abc import Sequence

BY_CLASS = {
    "StorageFullError": "make room: delete recovery points and run `cryo gc --quarantine 0` twice, or enlarge the disk",
    "StorageUnavailableError": "see whether the disk is full, read-only or failing, then repeat the command",
    "UnknownFormatError": "use a newer cryo",
    "DamagedDataError": "`cryo check` says what is hurt, `cryo repair` puts right what can be put right",
    "KeyUnavailableError": "`cryo key list` shows which keys are there, and which are needed",
    "ArchiveDamagedError": "`cryo points` lists other recovery points; `cryo check` looks at the store",
    "ConnectionFailedError": "`cryo doctor` looks at the way to the server",
    "SignatureError": "use the access key of this server (its DIR/credentials); `cryo doctor` checks it, and the clock",
    "AccessDeniedException": "use an access key that may do this",
    "ResourceNotFoundException": "`cryo points` lists what there is; `cryo doctor` checks the vault",
    "ThrottlingException": "repeat the command a little later",
    "ServiceUnavailableException": "repeat the command later; the server's operator finds the cause in its log and"
    " with `cryo doctor` there",
    "RetryableException": "repeat the command later; the server's log says more",
    "DamagedDataException": "`cryo verify POINT` names the affected files; another backup heals what it reads again",
    "ServiceInternalException": "repeat the command; the server's log says more",
    "KeyMissingError": "put the keyring that has this key in its place; `cryo key list` shows which keys are needed",
    "KMSInvalidKeyUsageException": "on the server, `cryo key list` shows which keys are missing",
}


def advice(error: BaseException, arguments: Sequence[str]) -> str:
    """A hint for an error without one: of its class, else of the nearest class above; else where to read on.

    What a store in this process could not do is told by what stood in its way: there is no server to ask.
    """
    for each in (error.__cause__, error):
        for kind in type(each).__mro__:
            if kind.__name__ in BY_CLASS:
                return BY_CLASS[kind.__name__]
    verb = next((word for word in arguments if not word.startswith("-")), "")
    return f"{f'cryo {verb}'.strip()} --help says what is possible"
